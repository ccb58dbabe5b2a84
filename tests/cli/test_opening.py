import getpass
import os

import click
import pytest

from app.cli.opening import actor, opened, settings
from tests.cli.conftest import Cli


def test_the_actor_is_the_user_of_the_process_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = getpass.getuser()
    monkeypatch.setenv("USER", "mallory")
    monkeypatch.setenv("LOGNAME", "mallory")
    assert actor() in {f"cli:{name}", "cli:root"}
    assert "mallory" not in actor()


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 987654321)
    assert actor() == "cli:987654321"


def test_what_was_opened_is_closed_with_the_command(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cli.environment.items():
        monkeypatch.setenv(name, value)
    closed = []
    with click.Context(click.Command("x"), obj=None):
        home = opened()
        monkeypatch.setattr(home.database, "close", home.database.close)
        assert home.settings == settings()
        click.get_current_context().call_on_close(lambda: closed.append(home.database.revision()))
    assert closed
    home.database.close()
