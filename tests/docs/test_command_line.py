"""`docs/cli.md` lists every command and option as the program has them: no more, no less."""

import inspect
import re
from pathlib import Path

import click
import pytest

from app.cli.commands import Noun
from app.cli.exits import Exit
from tests.cli.test_commands import every_command

PAGE = (Path(__file__).parent.parent.parent / "docs" / "cli.md").read_text()
COMMANDS = [(words, command) for words, command in every_command() if not isinstance(command, Noun)]
IDS = [" ".join(words) for words, _ in COMMANDS]


def reference(words: tuple[str, ...], command: click.Command) -> str:
    """Write the section of a command as it has to stand in the page."""
    context = click.Context(command, info_name=" ".join(["grantserver", *words]))
    usage = command.get_usage(context).removeprefix("Usage: ")
    lines = [f"### `{' '.join(words)}`", "", f"`{' '.join(usage.split())}`", ""]
    help_text = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help or ""))
    lines += [help_text, ""]
    options = [one for one in command.params if isinstance(one, click.Option)]
    if options:
        lines += ["| option | default | meaning |", "|---|---|---|"]
        for option in options:
            names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
            if not option.is_flag:
                names += f" `{option.make_metavar(context)}`"
            default = f"`{option.default}`" if option.show_default else ""
            cells = (names, default, option.help or "")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=IDS)
def test_every_command_is_documented_as_it_is(
    words: tuple[str, ...], command: click.Command
) -> None:
    assert reference(words, command) in PAGE


def test_no_other_command_is_documented() -> None:
    documented = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
    assert documented == [" ".join(words) for words, _ in COMMANDS]


def test_every_exit_code_is_documented() -> None:
    documented = re.findall(r"^\| `(\d)` \|", PAGE, re.MULTILINE)
    assert documented == [str(code.value) for code in Exit]
