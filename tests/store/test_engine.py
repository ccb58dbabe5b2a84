import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text

from app.errors import Broken, Conflict, GrantServerError, Invalid, Misconfigured, Unavailable
from app.store import engine, schema
from app.store import sites as site_rows
from app.store.engine import Database, open_database
from tests.builders import NOW, a_database

TABLES = {*schema.metadata.tables, "alembic_version"}


def tables(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        return {row[0] for row in rows}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def set_revision(database: Database, revision: str) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})


@pytest.mark.usefixtures("open_umask")
def test_a_new_database_is_private_whatever_the_umask(tmp_path: Path) -> None:
    database = a_database(tmp_path)
    with database.reading() as connection:
        connection.execute(select(schema.sites))
        files = sorted(path.name for path in tmp_path.iterdir())
        assert files == ["grantserver.db", "grantserver.db-shm", "grantserver.db-wal"]
        assert {mode(path) for path in tmp_path.iterdir()} == {0o600}
    database.close()


def test_a_new_database_has_all_tables_and_our_revision(tmp_path: Path) -> None:
    database = a_database(tmp_path)
    assert database.revision() == schema.REVISION
    assert tables(database.path) == TABLES
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
    with contextlib.closing(database.take_connection()) as connection:
        database.close()
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "synchronous") == 2
        assert pragma(connection, "foreign_keys") == 1
        assert connection.isolation_level is None


def test_opening_it_again_changes_nothing(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE heartbeat SET at = 7"))
    again = open_database(f"sqlite:///{database.path}")
    with again.reading() as connection:
        assert connection.execute(select(schema.heartbeat.c.at)).scalar() == 7
    again.upgrade()
    again.close()


def test_a_second_opening_in_one_process_leaves_the_locks_of_the_first_alone(
    database: Database,
) -> None:
    """POSIX drops all locks that a process has on a file as soon as it closes the file once."""
    with contextlib.closing(database.take_connection()) as connection:
        connection.execute("SELECT * FROM heartbeat").fetchall()
        again = open_database(f"sqlite:///{database.path}")
        again.close()
        # Another process that closes the file as the last one deletes its log.
        program = f"import sqlite3; c = sqlite3.connect({str(database.path)!r}); "
        program += "c.execute('SELECT * FROM heartbeat').fetchall(); c.close()"
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
        assert Path(f"{database.path}-wal").exists()


@pytest.mark.parametrize(
    ("revision", "remedy"),
    [
        ("0000", f"this release needs {schema.REVISION}: run `grantserver db upgrade`"),
        ("9999", "start the one that made it"),
        ("deadbeef", "start the one that made it"),
    ],
)
def test_a_wrong_revision_is_refused_with_what_mends_it(
    database: Database, revision: str, remedy: str
) -> None:
    set_revision(database, revision)
    with pytest.raises(Misconfigured, match=remedy) as refused:
        open_database(f"sqlite:///{database.path}")
    assert revision in str(refused.value)
    assert len(refused.value.problems) == 1


def test_a_database_of_another_release_is_not_upgraded(database: Database) -> None:
    set_revision(database, "9999")
    with pytest.raises(Misconfigured, match="another release"):
        database.upgrade()
    assert database.revision() == "9999"


def test_a_database_without_a_revision_says_so(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    assert database.revision() is None
    with pytest.raises(Misconfigured, match="revision none"):
        database.check_revision()
    database.upgrade()
    database.check_revision()
    with database.writing() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
    assert database.revision() is None
    database.close()


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE redemptions (id)")
    with pytest.raises(Misconfigured, match="restore it from a backup"):
        open_database(f"sqlite:///{path}")
    assert tables(path) == {"redemptions"}


def test_threads_that_open_a_new_database_at_once_all_succeed(tmp_path: Path) -> None:
    together = threading.Barrier(6)

    def open_it(_: int) -> str | None:
        together.wait()
        database = a_database(tmp_path)
        revision = database.revision()
        database.close()
        return revision

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(open_it, range(6))) == [schema.REVISION] * 6
    assert tables(tmp_path / "grantserver.db") == TABLES


def test_processes_that_open_a_new_database_at_once_all_succeed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'grantserver.db'}"
    program = (
        "import sys; from app.store.engine import open_database; print('ready', flush=True); "
        f"sys.stdin.readline(); print(open_database({url!r}).revision())"
    )
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(3)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=60)[0] for process in processes]
        codes = [process.returncode for process in processes]
    assert codes == [0, 0, 0]
    assert outputs == [f"{schema.REVISION}\n"] * 3


@pytest.mark.parametrize("use", [Database.revision, Database.take_connection])
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
    away = database.path.with_suffix(".away")
    database.path.rename(away)
    with pytest.raises(Unavailable, match="removed or replaced"):
        database.check_in_place()
    database.path.write_bytes(b"")
    with pytest.raises(Unavailable, match="removed or replaced"):
        database.check_in_place()
    away.rename(database.path)
    database.check_in_place()
    database.close()


def test_what_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="unable to open"):
        open_database(f"sqlite:///{tmp_path}")
    with pytest.raises(Unavailable, match="No such file"):
        open_database(f"sqlite:///{tmp_path / 'missing' / 'grantserver.db'}")
    with pytest.raises(Invalid):
        Database("sqlite://")


def test_a_reading_transaction_sees_one_state_and_is_rolled_back(database: Database) -> None:
    with database.reading() as reading:
        assert reading.execute(select(schema.heartbeat.c.at)).scalar() == 0
        with database.writing() as writing:
            writing.execute(text("UPDATE heartbeat SET at = 5"))
        assert reading.execute(select(schema.heartbeat.c.at)).scalar() == 0
    with database.reading() as reading:
        assert reading.execute(select(schema.heartbeat.c.at)).scalar() == 5
        reading.execute(text("UPDATE heartbeat SET at = 9"))
    with database.reading() as reading:
        assert reading.execute(select(schema.heartbeat.c.at)).scalar() == 5


def write_and_fail(database: Database, error: Exception) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE heartbeat SET at = 5"))
        raise error


@pytest.mark.parametrize("error", [Conflict("no"), KeyError("bug")])
def test_a_writing_transaction_is_all_or_nothing(database: Database, error: Exception) -> None:
    with pytest.raises(type(error)):
        write_and_fail(database, error)
    with database.reading() as connection:
        assert connection.execute(select(schema.heartbeat.c.at)).scalar() == 0


def test_a_writer_takes_the_lock_before_it_reads(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BUSY_MILLISECONDS", 20)
    other = Database(f"sqlite:///{database.path}")
    with database.writing():
        with pytest.raises(Unavailable, match="locked"), other.writing():
            pytest.fail("two writers at once")
        with other.reading() as connection:
            assert connection.execute(select(schema.heartbeat.c.at)).scalar() == 0
    with other.writing() as connection:
        connection.execute(text("UPDATE heartbeat SET at = 5"))
    other.close()


def test_a_writer_waits_for_another_to_be_done(database: Database) -> None:
    locked, waiting = threading.Event(), threading.Event()

    def hold() -> None:
        with database.writing() as connection:
            locked.set()
            waiting.wait(30)
            connection.execute(text("UPDATE heartbeat SET at = at + 1"))

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        assert locked.wait(30)
        waiting.set()
        with database.writing() as connection:
            assert connection.execute(select(schema.heartbeat.c.at)).scalar() == 1
        holding.result()


def test_a_constraint_is_a_conflict(database: Database) -> None:
    with pytest.raises(Conflict, match="heartbeat"), database.writing() as connection:
        connection.execute(insert(schema.heartbeat).values(id=1, at=1))


def test_a_full_disk_is_unavailable_and_passes(database: Database) -> None:
    def fill(connection: Connection, pages: int) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        row = {"at": NOW, "act": "x", "actor": "x", "target": "x", "details": "x" * 100_000}
        connection.execute(insert(schema.audit).values(row))

    with pytest.raises(Unavailable, match="full"), database.writing() as connection:
        fill(connection, 1)
    with database.writing() as connection:
        fill(connection, 1_000_000)


SECRET = "Hunter2Hunter2Hunter2"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO grants (id, name, concealed_code) VALUES ('x', 'y', :secret)",
        "INSERT INTO nowhere VALUES (:secret)",
        "INSERT INTO heartbeat (id, at) VALUES (2, :secret)",
    ],
)
def test_no_value_that_was_to_be_stored_shows_in_an_error(
    database: Database, statement: str
) -> None:
    with pytest.raises(GrantServerError) as caught, database.writing() as connection:
        connection.execute(text(statement), {"secret": SECRET})
    shown = "".join(traceback.format_exception(caught.value))
    assert "sqlite3" in shown
    assert SECRET not in shown
    assert SECRET not in repr(caught.value)


def test_a_text_that_is_no_unicode_is_invalid(database: Database) -> None:
    with pytest.raises(Invalid), database.reading() as connection:
        site_rows.by_name(connection, "west\udcff")


def test_another_driver_is_broken(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "Connection", str)
    with pytest.raises(Broken):
        database.take_connection()
