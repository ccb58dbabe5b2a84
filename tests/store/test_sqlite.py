import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text

from app.errors import Broken, Invalid, Misconfigured, Unavailable
from app.store import schema, sqlite
from app.store.engine import Database, open_database
from tests.builders import NOW, a_database


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    return sqlite_database


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_a_new_database_is_private_whatever_the_umask(tmp_path: Path) -> None:
    database = a_database(tmp_path)
    with database.reading() as connection:
        connection.execute(select(schema.sites))
        files = sorted(path.name for path in tmp_path.iterdir())
        assert files == ["grantserver.db", "grantserver.db-shm", "grantserver.db-wal"]
        assert {mode(path) for path in tmp_path.iterdir()} == {0o600}
    database.close()


def test_every_connection_is_set_up_for_durability(database: Database) -> None:
    with database.reading() as one, database.reading() as other:
        for connection in (one, other):
            for name, value in (
                ("journal_mode", "wal"),
                ("synchronous", 2),
                ("foreign_keys", 1),
                ("busy_timeout", 5000),
            ):
                assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value


def test_a_connection_that_is_handed_over_is_set_up_alike_and_stays_open(
    database: Database,
) -> None:
    with contextlib.closing(database.sqlite.take_connection()) as connection:
        database.close()
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "synchronous") == 2
        assert pragma(connection, "foreign_keys") == 1
        assert connection.isolation_level is None


def test_a_second_opening_in_one_process_leaves_the_locks_of_the_first_alone(
    database: Database,
) -> None:
    """POSIX drops all locks that a process has on a file as soon as it closes the file once."""
    with contextlib.closing(database.sqlite.take_connection()) as connection:
        connection.execute("SELECT * FROM heartbeat").fetchall()
        again = open_database(f"sqlite:///{database.sqlite.path}")
        again.close()
        # Another process that closes the file as the last one deletes its log.
        program = f"import sqlite3; c = sqlite3.connect({str(database.sqlite.path)!r}); "
        program += "c.execute('SELECT * FROM heartbeat').fetchall(); c.close()"
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
        assert Path(f"{database.sqlite.path}-wal").exists()


@pytest.mark.parametrize(
    "use", [Database.revision, lambda database: database.sqlite.take_connection()]
)
def test_a_file_that_is_no_database_is_told_from_one_that_is_away(
    tmp_path: Path, use: Callable[[Database], object]
) -> None:
    path = tmp_path / "grantserver.db"
    path.write_bytes(b"this is no database, and it is long enough to be seen as none" * 100)
    database = Database(f"sqlite:///{path}")
    with pytest.raises((Misconfigured, Unavailable), match="not a database"):
        use(database)
    database.close()


def test_a_file_that_was_removed_or_replaced_is_noticed(tmp_path: Path) -> None:
    database = a_database(tmp_path)
    database.check_in_place()
    away = database.sqlite.path.with_suffix(".away")
    database.sqlite.path.rename(away)
    with pytest.raises(Unavailable, match="removed or replaced"):
        database.check_in_place()
    database.sqlite.path.write_bytes(b"")
    with pytest.raises(Unavailable, match="removed or replaced"):
        database.check_in_place()
    away.rename(database.sqlite.path)
    database.check_in_place()
    database.close()


def test_what_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="unable to open"):
        open_database(f"sqlite:///{tmp_path}")
    with pytest.raises(Unavailable, match="No such file"):
        open_database(f"sqlite:///{tmp_path / 'missing' / 'grantserver.db'}")
    with pytest.raises(Invalid):
        Database("sqlite://")


def test_a_writer_takes_the_lock_before_it_reads(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_MILLISECONDS", 20)
    other = Database(f"sqlite:///{database.sqlite.path}")
    with database.writing():
        with pytest.raises(Unavailable, match="locked"), other.writing():
            pytest.fail("two writers at once")
        with other.reading() as connection:
            assert connection.execute(select(schema.heartbeat.c.at)).scalar() == 0
    with other.writing() as connection:
        connection.execute(text("UPDATE heartbeat SET at = 5"))
    other.close()


def test_a_full_disk_is_unavailable_and_passes(database: Database) -> None:
    def fill(connection: Connection, pages: int) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        row = {"at": NOW, "act": "x", "actor": "x", "target": "x", "details": "x" * 100_000}
        connection.execute(insert(schema.audit).values(row))

    with pytest.raises(Unavailable, match="full"), database.writing() as connection:
        fill(connection, 1)
    with database.writing() as connection:
        fill(connection, 1_000_000)


def test_another_driver_is_broken(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "Connection", str)
    with pytest.raises(Broken):
        database.sqlite.take_connection()
