import contextlib
import sqlite3
import stat

import pytest

from app.store import schema
from tests.cli.conftest import Cli


def database(cli: Cli) -> sqlite3.Connection:
    return sqlite3.connect(cli.directory / "data" / "grantserver.db")


def test_a_backup_is_a_private_file_that_serves_in_place_of_the_database(west: Cli) -> None:
    told = west.done("db", "backup", "b.db")
    assert "sealing.keys" in told
    path = west.directory / "b.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in west.directory.glob("*b.db*")] == ["b.db"]
    west.done("site", "remove", "west")
    data = west.directory / "data"
    for old in data.glob("grantserver.db*"):
        old.unlink()
    path.rename(data / "grantserver.db")
    assert [site["name"] for site in west.json("site", "list")] == ["west"]
    assert "is sound" in west.done("db", "check")


def test_a_backup_replaces_nothing(west: Cli) -> None:
    (west.directory / "b.db").write_text("mine")
    assert west.run("db", "backup", "b.db").exit_code == 1
    assert (west.directory / "b.db").read_text() == "mine"
    assert west.run("db", "backup", "missing/b.db").exit_code == 2
    assert west.run("db", "backup", "data").exit_code == 2


@pytest.mark.parametrize("words", [["db", "check"], ["db", "backup", "b.db"]])
def test_where_there_is_no_database_none_is_made(cli: Cli, words: list[str]) -> None:
    result = cli.run(*words)
    assert result.exit_code == 1
    assert 'no database "' in result.stderr
    assert list(cli.directory.iterdir()) == []


def test_a_damaged_database_is_a_failure(west: Cli) -> None:
    path = west.directory / "data" / "grantserver.db"
    with contextlib.closing(database(west)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    content = bytearray(path.read_bytes())
    for offset in range(4096, len(content), 4096):
        content[offset : offset + 200] = b"\xff" * 200
    path.write_bytes(content)
    result = west.run("db", "check")
    assert result.exit_code == 1
    assert "is damaged: stop the server and restore a backup" in result.stderr
    assert west.run("db", "backup", "b.db").exit_code != 0
    assert not list(west.directory.glob("*b.db*"))


def test_a_reference_to_nothing_is_damage(west: Cli) -> None:
    with contextlib.closing(database(west)) as connection, connection:
        connection.execute("DELETE FROM authorities WHERE name = 'site-ca'")
    result = west.run("db", "check")
    assert result.exit_code == 1
    assert "error: a row of sites refers to a missing row of authorities" in result.stderr


def test_another_revision_is_told_with_what_mends_it(west: Cli) -> None:
    with contextlib.closing(database(west)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for words in (["db", "check"], ["site", "list"]):
        result = west.run(*words)
        assert result.exit_code == 2
        assert "revision 9999, which this release does not know" in result.stderr
        assert "start the one that made it" in result.stderr
    result = west.run("db", "upgrade")
    assert result.exit_code == 2
    assert "another release" in result.stderr


def test_an_older_revision_is_told_with_the_command_that_mends_it(west: Cli) -> None:
    with contextlib.closing(database(west)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    result = west.run("site", "list")
    assert result.exit_code == 2
    assert "grantserver db upgrade" in result.stderr


def test_an_upgrade_makes_brings_or_leaves(cli: Cli) -> None:
    assert "A new database is made" in cli.done("db", "upgrade")
    assert "nothing was changed" in cli.done("db", "upgrade")
    path = cli.directory / "data" / "grantserver.db"
    path.unlink()
    path.touch(mode=0o600)
    assert f"from revision none to {schema.REVISION}" in cli.done("db", "upgrade")
