import errno
import os
from pathlib import Path

import pytest

from app.cli.issuing import is_local
from tests.cli.conftest import Cli


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("words", [["grant", "create", "lab", "--token"], ["token", "issue"]])
def test_a_token_that_cannot_be_written_leaves_no_grant(
    west: Cli, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert west.run(*words, "missing/t.yaml").exit_code == 2
    (west.directory / "t.yaml").write_text("mine")
    assert west.run(*words, "t.yaml").exit_code == 1
    assert (west.directory / "t.yaml").read_text() == "mine"
    monkeypatch.setattr(os, "link", full)
    assert west.run(*words, "u.yaml").exit_code == 3
    assert west.json("grant", "list") == []
    assert sorted(path.name for path in west.directory.iterdir()) == ["data", "t.yaml"]


def test_a_token_that_cannot_be_printed_leaves_no_grant(
    west: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.issuing.sys", type("Sys", (), {"stdout": Broken()}))
    result = west.run("token", "issue", "-")
    assert result.exit_code == 1
    assert west.json("grant", "list") == []


class Broken:
    def write(self, _: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_with_force_a_token_is_replaced(west: Cli) -> None:
    path = Path("t.yaml")
    path.write_text("mine")
    west.done("token", "issue", "t.yaml", "--force")
    assert "AccessToken" in path.read_text()


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.0.0.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("grants.example.com", False),
    ],
)
def test_what_is_this_machine(host: str, *, local: bool) -> None:
    assert is_local(host) is local


def test_a_token_that_works_here_only_is_warned_of(west: Cli) -> None:
    assert "works on this machine only" not in west.run("token", "issue", "a.yaml").stderr
    west.environment["GRANTSERVER_REACH_URL"] = "https://localhost:9090"
    for words in (["token", "issue", "b.yaml"], ["grant", "create", "lab"]):
        result = west.run(*words)
        assert "GRANTSERVER_REACH_URL" in result.stderr


def test_file_names_are_quoted_for_the_shell(west: Cli) -> None:
    told = west.done("token", "issue", "my token;x.yaml")
    assert "  grantserver token redeem 'my token;x.yaml'\n" in told
    assert "  kubectl apply -f 'my token;x.yaml'\n" in told
