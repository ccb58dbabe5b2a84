import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from app.cli.commands import Late, Noun, Verb
from app.cli.root import root


def every_command(
    command: click.Command = root, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from every_command(found, (*words, name))
    if words:
        yield words, command


VERBS = [(words, verb) for words, verb in every_command() if not isinstance(verb, click.Group)]
IDS = [" ".join(words) for words, _ in VERBS]


@pytest.mark.parametrize(("words", "verb"), VERBS, ids=IDS)
def test_the_help_of_every_verb_ends_with_examples_that_parse(
    words: tuple[str, ...], verb: click.Command
) -> None:
    assert isinstance(verb, Verb)
    assert verb.examples
    help_text = CliRunner().invoke(root, [*words, "--help"]).output
    for example in verb.examples:
        assert f"  {example}\n" in help_text
        typed = shlex.split(example.partition(" | ")[0])
        if typed[1] == "--config":
            del typed[1:3]
        assert tuple(typed[: len(words) + 1]) == ("grantserver", *words)
        verb.make_context(words[-1], typed[len(words) + 1 :]).close()


@pytest.mark.parametrize(("words", "command"), [*every_command()])
def test_every_command_and_option_says_what_it_does(
    words: tuple[str, ...], command: click.Command
) -> None:
    assert (command.help or "").strip(), words
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert (parameter.help or "").strip(), (words, parameter.name)


def test_the_help_of_what_loads_late_is_that_of_the_command_itself() -> None:
    for noun in (root, *(one for _, one in every_command() if isinstance(one, Noun))):
        for name, late in noun.late.items():
            command = noun.get_command(click.Context(noun), name)
            assert command is not None
            assert late.help == command.get_short_help_str(200)


def test_help_and_redeeming_do_not_load_the_database() -> None:
    script = (
        "import sys; from app.cli.root import root\n"
        "try: root.main(sys.argv[1:])\n"
        "except SystemExit: print(*sorted({'sqlalchemy', 'alembic', 'aiohttp', 'uvicorn'}"
        " & sys.modules.keys()))"
    )
    expected = {"--help": "", "token --help": "", "token redeem --help": "aiohttp"}
    for words, loaded in expected.items():
        ran = subprocess.run(
            [sys.executable, "-c", script, *words.split()],
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.splitlines()[-1] == loaded


def test_a_late_module_without_a_command_is_a_fault() -> None:
    noun = Noun(name="x", late={"y": Late("tests.cli.test_commands", "Nothing.")})
    with pytest.raises(TypeError, match="is no command"):
        noun.get_command(click.Context(noun), "y")


command = "what a late module has to have, though not of this kind"


def test_a_verb_without_examples_has_no_section_for_them() -> None:
    assert "Example" not in CliRunner().invoke(Verb(name="x"), ["--help"]).output
