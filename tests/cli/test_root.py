import subprocess
import sys
from typing import Any

import pytest

from app import __version__
from app.cli.root import root
from app.errors import Unavailable
from app.services import sites
from tests.cli.conftest import Cli

KEY = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----"


def failing_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(sites, "every", fail)


def test_without_a_command_help_is_shown_and_usage_was_wrong(cli: Cli) -> None:
    result = cli.run()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr
    assert result.stdout == ""


def test_the_version_is_told(cli: Cli) -> None:
    assert cli.done("--version") == f"grantserver {__version__}\n"


@pytest.mark.parametrize(
    "words", [["sitr", "list"], ["site", "list", "--nonsense"], ["site", "show"], ["-x"]]
)
def test_wrong_usage_ends_with_2_and_says_where_help_is(cli: Cli, words: list[str]) -> None:
    result = cli.run(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "--help" in result.stderr


def test_every_problem_of_the_settings_is_a_line(cli: Cli) -> None:
    cli.environment |= {"GRANTSERVER_NONSENSE": "1", "GRANTSERVER_LOGS_LEVEL": "loud"}
    result = cli.run("site", "list")
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: GRANTSERVER_") for line in lines)


def test_settings_come_from_the_file_that_is_named(cli: Cli) -> None:
    del cli.environment["GRANTSERVER_DATA_DIR"]
    (cli.directory / "my settings.toml").write_text('[data]\ndir = "elsewhere"\n')
    result = cli.run("--config", "my settings.toml", "site", "list")
    assert (cli.directory / "elsewhere" / "grantserver.db").exists()
    assert "grantserver --config 'my settings.toml' site set" in result.stderr


def test_an_error_of_ours_is_one_line_without_a_trace(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_with(Unavailable("the disk is\x1b[31m full"), monkeypatch)
    result = cli.run("site", "list")
    assert result.exit_code == 3
    assert result.stderr == "error: the disk is\\x1b[31m full; trying again may help\n"


def test_what_was_not_foreseen_is_one_line_and_its_text_is_not_shown(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_with(RuntimeError(KEY), monkeypatch)
    result = cli.run("site", "list")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: something happened that was not foreseen")
    assert len(result.stderr.splitlines()) == 1
    assert "PRIVATE KEY" not in result.stderr
    assert "GRANTSERVER_LOGS_LEVEL=debug" in result.stderr


def test_with_debugging_the_trace_is_shown_without_its_secrets(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_with(RuntimeError(KEY), monkeypatch)
    cli.environment["GRANTSERVER_LOGS_LEVEL"] = "debug"
    result = cli.run("site", "list")
    assert result.exit_code == 1
    assert "in fail" in result.stderr
    assert "RuntimeError" in result.stderr
    assert "secret" not in result.stderr


def test_debugging_may_be_set_in_the_file_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(RuntimeError("x"), monkeypatch)
    (cli.directory / "s.toml").write_text('[logs]\nlevel = "debug"\n')
    assert "in fail" in cli.run("--config", "s.toml", "site", "list").stderr


def test_settings_that_cannot_be_read_mean_no_debugging(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.opening.settings", lambda: 1 / 0)
    cli.environment["GRANTSERVER_NONSENSE"] = "1"
    result = cli.run("site", "list")
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.stderr


def test_an_interruption_is_a_word_and_a_failure(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(KeyboardInterrupt(), monkeypatch)
    result = cli.run("site", "list")
    assert result.exit_code == 1
    assert "error: interrupted" in result.stderr


def test_a_reader_that_leaves_is_no_reason_to_complain(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cli.environment.items():
        monkeypatch.setenv(name, value)
    ran = subprocess.Popen(
        [sys.executable, "-m", "app", "audit", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert ran.stdout is not None
    assert ran.stderr is not None
    ran.stdout.close()
    complaint = ran.stderr.read()
    ran.stderr.close()
    assert ran.wait(60) == 1
    assert complaint == b""


def test_every_noun_of_the_design_is_there() -> None:
    assert list(root.late) == [
        *("serve", "site", "grant", "token", "link", "renew"),
        *("ca", "admin-token", "webhook", "audit", "db", "doctor"),
    ]
