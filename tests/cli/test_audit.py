import re
import sqlite3
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


def test_what_happened_is_listed_with_times_as_everywhere(west: Cli) -> None:
    west.done("grant", "create", "lab")
    entries = west.json("audit", "list")
    assert [entry["act"] for entry in entries][-2:] == ["site.set", "grant.created"]
    details = entries[-1]["details"]
    assert details["name"] == "lab"
    assert details["expiresAt"].endswith("Z")
    assert details["allowed"] == 1
    assert entries[0]["details"]["notAfter"].endswith("Z")
    lines = west.done("audit", "list").splitlines()
    assert lines[0].split() == ["TIME", "ACT", "ACTOR", "TARGET", "DETAILS"]
    assert "expiresAt=20" in lines[-1]


def test_the_list_is_bounded_and_may_be_about_one_thing(west: Cli) -> None:
    assert len(west.json("audit", "list", "-n", "2")) == 2
    assert len(west.json("audit", "list", "--limit", "1", "--target", "site/west")) == 1
    assert west.run("audit", "list", "-n", "0").exit_code == 2
    nothing = west.run("audit", "list", "--target", "west")
    assert nothing.exit_code == 0
    assert "is it kind/name?" in nothing.stderr


def test_the_log_is_verified_and_the_first_wrong_entry_named(west: Cli) -> None:
    west.done("grant", "create", "lab")
    told = west.run("audit", "verify")
    assert told.exit_code == 0
    assert "There is nothing that was sealed." in told.stdout
    assert "not sealed yet" in told.stderr
    west.done("db", "prune")  # which seals, as a server does
    lines = west.done("audit", "verify").splitlines()
    assert re.fullmatch(r"Entries 1 to \d+ are as they were sealed\.", lines[0])
    head = lines[-1].strip()
    west.done("audit", "verify", "--head", head)
    with sqlite3.connect(west.directory / "data" / "grantserver.db") as database:
        database.execute("UPDATE audit SET actor = 'cli:nobody' WHERE id = 2")
    database.close()
    wrong = west.run("audit", "verify")
    assert wrong.exit_code == 1
    assert "entry 2 (row 2)" in wrong.stderr


def test_an_export_is_verified_elsewhere(west: Cli, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(west.done("audit", "keys"))
    assert "lines are in" in west.done("audit", "export", str(tmp_path / "audit.jsonl"))
    words = ["audit", "verify", str(tmp_path / "audit.jsonl")]
    assert "as they were sealed" in west.done(*words)
    keys = ["--public-keys", str(tmp_path / "keys.json")]
    assert "as they were sealed" in west.done(*words, *keys)
    assert west.done("audit", "export", "-") == (tmp_path / "audit.jsonl").read_text()
    text = (tmp_path / "audit.jsonl").read_text().replace("site.set", "site.sat")
    (tmp_path / "audit.jsonl").write_text(text)
    assert west.run(*words, *keys).exit_code == 1
    assert west.run("audit", "export", str(tmp_path / "audit.jsonl")).exit_code == 1  # is there


@pytest.mark.parametrize(
    "words",
    [
        ("--head", "x"),
        ("--head", "0:" + "0" * 64),
        ("--public-keys", "keys.json"),
        ("missing.jsonl",),
        ("bad.jsonl",),
        ("bad.jsonl", "--public-keys", "bad.jsonl"),
        ("bad.jsonl", "--public-keys", "missing.json"),
    ],
)
def test_a_wrong_use_of_verify_is_told(west: Cli, words: tuple[str, ...]) -> None:
    (west.directory / "bad.jsonl").write_text("[]")
    assert west.run("audit", "verify", *words).exit_code == 2
