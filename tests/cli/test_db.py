import contextlib
import os
import sqlite3
import stat

import psycopg
import pytest

from app.crypto.sealing import generate_line
from app.store import schema
from tests.cli.conftest import Cli
from tests.postgresql import PASSWORD, Cluster


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


def test_what_need_not_be_kept_is_counted_and_deleted(west: Cli) -> None:
    west.done("grant", "create", "old")
    west.done("grant", "create", "new")
    with contextlib.closing(database(west)) as connection, connection:
        connection.execute("UPDATE grants SET created_at = 1, expires_at = 2 WHERE name = 'old'")
        connection.execute(
            "UPDATE audit SET at = 1 WHERE id <= (SELECT max(id) FROM audit WHERE act = 'site.set')"
        )
    counted = west.done("db", "prune", "--dry-run")
    assert counted.startswith("Would be deleted:\n")
    assert [line.split(maxsplit=1)[0] for line in counted.splitlines()[1:]] == list("010300")
    assert [grant["name"] for grant in west.json("grant", "list")] == ["old", "new"]
    assert west.done("db", "prune") == counted.replace("Would be deleted:", "Deleted:")
    assert [grant["name"] for grant in west.json("grant", "list")] == ["new"]
    assert "site.set" not in west.done("audit", "list")
    assert "  1 " not in west.done("db", "prune")


@pytest.mark.parametrize("words", [["db", "check"], ["db", "prune"], ["db", "backup", "b.db"]])
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
        connection.execute("UPDATE compatibility SET oldest_revision = '9999'")
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


def test_on_postgresql_one_setting_is_enough(cli: Cli, cluster: Cluster) -> None:
    url = cluster.create(template="template0")
    name = f"postgresql://127.0.0.1:{cluster.port}/{url.rpartition('/')[2]}"
    cli.environment["GRANTSERVER_DATABASE_URL"] = url
    check = cli.run("db", "check")
    assert (check.exit_code, "run `grantserver db upgrade`" in check.stderr) == (2, True)
    assert f"from revision none to {schema.REVISION}" in cli.done("db", "upgrade")
    assert "nothing was changed" in cli.done("db", "upgrade")
    cli.set_west()
    assert [site["name"] for site in cli.json("site", "list")] == ["west"]
    assert f"{name} is sound" in cli.done("db", "check")
    backup = cli.run("db", "backup", "b.db")
    assert (backup.exit_code, "pg_dump" in backup.stderr) == (2, True)
    assert not list(cli.directory.glob("*b.db*"))
    found = {one["check"]: one for one in cli.json("doctor")}
    assert found["database"]["verdict"] == "ok"
    cli.done("grant", "create", "g")
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE grants SET spent = 1")
    check = cli.run("db", "check")
    assert check.exit_code == 1
    assert f"{name} is damaged" in check.stderr
    assert "has 1 redemptions spent, and 0 written down" in check.stderr
    cluster.drop(url)
    check = cli.run("db", "check")
    assert (check.exit_code, "does not exist" in check.stderr) == (2, True)
    assert PASSWORD not in check.stderr


def test_a_check_tries_the_sealing_keys(west: Cli) -> None:
    path = west.directory / "data" / "sealing.keys"
    assert f"open with {path}" in west.done("db", "check")
    mine = path.read_text()
    path.unlink()
    result = west.run("db", "check")
    assert (result.exit_code, path.exists()) == (1, False)
    assert f"the sealing key file {path} is missing" in result.stderr
    another = generate_line(os.urandom)  # noqa: TID251
    path.write_text(f"{another}\n")
    path.chmod(0o600)
    result = west.run("db", "check")
    assert result.exit_code == 1
    assert "is sound, and cannot be opened" in result.stderr
    assert f"which is not in {path}" in result.stderr
    path.write_text("nonsense\n")
    assert "no sealing key" in west.run("db", "check").stderr
    path.write_text(f"{another}\n{mine}")
    west.done("admin-token", "create", "ci", "--verb", "read", "--site", "west")
    assert "is sound, and at" in west.done("db", "check")
    path.write_text(mine)
    assert "the admin token ci needs the sealing key" in west.run("db", "check").stderr
    path.write_text(f"{another}\n{mine}")
    west.done("grant", "create", "g")
    with contextlib.closing(database(west)) as connection, connection:
        connection.execute("UPDATE authorities SET fingerprint = 'f' WHERE name = 'site-ca'")
        connection.execute(
            "INSERT INTO server_certificates (certificate_pem, sealed_key, fingerprint, not_after, "
            "created_at) VALUES ('', x'01', 's', 1, 1)"
        )
        (grant,) = connection.execute("SELECT id FROM grants").fetchone()
        connection.execute(
            "INSERT INTO access_grants VALUES (?, 'west', 'g', x'01', 60, 0)", (grant,)
        )
    result = west.run("db", "check")
    assert (result.exit_code, "was altered, or belongs elsewhere" in result.stderr) == (1, True)
    assert "the sealed server-key/s is cut off" in result.stderr
    assert f"the sealed code of grant {grant} is cut off" in result.stderr
