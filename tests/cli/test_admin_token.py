import contextlib
import stat
from pathlib import Path

import pytest

from app import ambient
from app.domain.admin_tokens import parse
from app.home import open_home
from app.services import admin_tokens
from app.settings import load
from tests.cli.conftest import Cli

READ = ("--verb", "read", "--site", "west")


def is_good(cli: Cli, text: str, name: str) -> bool:
    home = open_home(load(cli.environment))
    with contextlib.closing(home.database):
        found = admin_tokens.verify(
            home.database,
            parse(text),
            keys=home.admin_token_keys,
            now=ambient.utc_now(),
            on_lost_key=lambda _: None,
        )
    return found.name == name


def test_a_token_is_printed_once_and_the_next_command_is_given(cli: Cli) -> None:
    result = cli.run("admin-token", "create", "ci", *READ, "--verb", "create", "--window", "720h")
    assert result.exit_code == 0
    assert "Admin token ci is made: read, create at west, until 20" in result.stdout
    assert "  grantserver admin-token show ci\n" in result.stdout
    assert result.stderr == ""
    (text,) = (line.strip() for line in result.stdout.splitlines() if line.startswith("  gsa_"))
    assert is_good(cli, text, "ci")
    shown = cli.done("admin-token", "show", "ci") + cli.done("admin-token", "list", "-o", "json")
    assert text not in shown
    assert text.split("_")[2] not in shown


def test_one_that_never_ends_is_pointed_out(cli: Cli) -> None:
    result = cli.run("admin-token", "create", "boss", "--verb", "*", "--site", "*")
    assert "everything at every site, until it is revoked" in result.stdout
    assert "warning: it is good until somebody revokes it" in result.stderr


def test_a_token_goes_into_a_private_file_and_is_not_printed(cli: Cli) -> None:
    words = ("admin-token", "create", "ci", *READ, "--out", "ci.token")
    result = cli.run(*words)
    path = Path("ci.token")
    text = path.read_text().strip()
    assert is_good(cli, text, "ci")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert text not in result.stdout + result.stderr
    assert "It is in ci.token" in result.stdout
    again = cli.run(*words)  # replaces nothing, and makes nothing that nobody has
    assert again.exit_code == 1
    assert path.read_text().strip() == text
    assert len(cli.json("admin-token", "list")) == 1
    cli.done("admin-token", "revoke", "ci")
    cli.done(*words, "--force")
    assert path.read_text().strip() != text


def test_a_token_goes_to_standard_output_alone_where_it_is_read_by_a_program(cli: Cli) -> None:
    result = cli.run("admin-token", "create", "ci", *READ, "--out", "-")
    assert is_good(cli, result.stdout.removesuffix("\n"), "ci")
    assert "Admin token ci is made" in result.stderr


def test_tokens_are_listed_and_shown_with_what_became_of_them(cli: Cli) -> None:
    assert "There are no admin tokens." in cli.run("admin-token", "list").stderr
    cli.done("admin-token", "create", "ci", *READ, "--site", "east")
    cli.done("admin-token", "create", "portal", "--verb", "*", "--site", "*", "--window", "1h")
    cli.done("admin-token", "revoke", "ci")
    lines = [line.split() for line in cli.done("admin-token", "list").splitlines()]
    assert lines[0] == ["NAME", "STATE", "VERBS", "SITES", "EXPIRES", "LAST", "USED"]
    assert lines[1] == ["ci", "revoked", "read", "east,", "west", "-", "-"]
    document = cli.json("admin-token", "show", "portal")
    assert document["state"] == "active"
    assert (document["verbs"][0], document["sites"]) == ("read", ["*"])
    assert document["expirationTime"].endswith("Z")
    assert document["createdBy"].startswith("cli:")
    assert document["lastUsedTime"] is None
    assert cli.json("admin-token", "list")[1] == document
    assert "never" in cli.done("admin-token", "show", "ci")


def test_a_revoked_token_is_told_to_be_good_for_nothing(cli: Cli) -> None:
    cli.done("admin-token", "create", "ci", *READ)
    assert "is nobody from now on" in cli.done("admin-token", "revoke", "ci")
    acts = [entry["act"] for entry in cli.json("audit", "list", "--act", "admin_token")]
    assert acts == ["admin_token.created", "admin_token.revoked"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("create", "ci", "--site", "west"), 2, "--verb"),
        (("create", "ci", "--verb", "read"), 2, "--site"),
        (("create", "ci", "--verb", "write", "--site", "west"), 2, 'there is no "write"'),
        (("create", "C I", *READ), 2, "name"),
        (("create", "ci", *READ, "--window", "soon"), 2, "window"),
        (("create", "ci", *READ, "--window", "100000h"), 2, "ten years"),
        (("show", "nobody"), 1, "`grantserver admin-token list` shows what there is"),
        (("revoke", "nobody"), 1, "`grantserver admin-token list` shows what there is"),
    ],
)
def test_what_cannot_be_is_told(cli: Cli, words: tuple[str, ...], code: int, told: str) -> None:
    result = cli.run("admin-token", *words)
    assert result.exit_code == code
    assert told in result.stderr
