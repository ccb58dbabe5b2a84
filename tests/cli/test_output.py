import json
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from app.cli.afar import remember
from app.cli.output import Form, aligned, hint, paste, say, show_list, show_one, table, warn
from app.cli.root import root

ROWS = [("a", 1), ("n", None)]
DOCUMENTS: list[dict[str, object]] = [{"name": "a", "size": 1}, {"name": "n", "size": None}]


def test_a_table_is_aligned_and_takes_texts_as_they_are() -> None:
    assert table(("name", "size"), [("1e5", "x"), ("a\nb", None)]) == (
        "NAME    SIZE\n1e5     x\na\\nb    -"
    )


def test_facts_stand_under_each_other() -> None:
    assert aligned([("Name", "x"), ("Redemptions", None)]) == "Name          x\nRedemptions   -"


def test_a_list_is_an_array(capsys: pytest.CaptureFixture[str]) -> None:
    show_list(Form.JSON, ("name", "size"), ROWS, DOCUMENTS, empty="none")
    assert json.loads(capsys.readouterr().out) == DOCUMENTS
    show_list(Form.YAML, ("name", "size"), ROWS, DOCUMENTS, empty="none")
    written = capsys.readouterr().out
    assert YAML(typ="safe").load(written) == DOCUMENTS
    assert '"n"' in written  # YAML 1.1 takes a bare n for a boolean


def test_an_empty_list_says_what_to_do_only_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    show_list(Form.TABLE, ("name",), [], [], empty="make one")
    assert capsys.readouterr() == ("", "make one\n")
    show_list(Form.JSON, ("name",), [], [], empty="make one")
    assert capsys.readouterr() == ("[]\n", "")
    show_list(Form.YAML, ("name",), [], [], empty="make one")
    assert capsys.readouterr() == ("[]\n", "")


def test_a_single_thing_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    show_one(Form.JSON, [("Name", "x")], {"name": "é"})
    assert json.loads(capsys.readouterr().out) == {"name": "é"}
    show_one(Form.TABLE, [("Name", "x")], {"name": "é"})
    assert capsys.readouterr().out == "Name   x\n"


def test_hints_and_warnings_stay_out_of_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hint("a")
    warn("b")
    say("c")
    assert capsys.readouterr() == ("c\n", "a\nwarning: b\n")


def test_a_command_to_paste_is_quoted_and_has_the_same_settings() -> None:
    with click.Context(click.Command("x"), obj=None):
        assert paste("a", Path("b c")) == "grantserver a 'b c'"
    with click.Context(click.Command("x"), obj=Path("s $x.toml")):
        assert shlex.split(paste("a;b")) == ["grantserver", "--config", "s $x.toml", "a;b"]


def test_it_goes_to_the_same_server_as_the_command_that_says_it() -> None:
    @click.command(params=root.params)
    @click.pass_context
    def show(context: click.Context, /, config: object, **given: Any) -> None:
        del config
        remember(context, **given)
        click.echo(paste("a"))

    words = ["--server", "https://a.example.com", "--token-file", "my token"]
    typed = CliRunner().invoke(show, words).stdout
    assert shlex.split(typed) == ["grantserver", *words, "a"]
    # What a variable says is said to the next command as well.
    known = CliRunner(env={"GRANTSERVER_SERVER": "https://a.example.com"}).invoke(show, [])
    assert known.stdout == "grantserver a\n"
