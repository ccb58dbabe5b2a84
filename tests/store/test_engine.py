import asyncio
import contextlib
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, inspect, select, text, update
from sqlalchemy.exc import OperationalError

from app.domain.grants import Redemption
from app.errors import Conflict, GrantServerError, Invalid, Misconfigured, Unavailable
from app.store import audit, engine, grants, schema
from app.store import sites as site_rows
from app.store.engine import Database, open_database
from app.store.ledger import Kept
from app.store.sqlite import Sqlite
from tests.builders import GRANT_ID, NOW, a_grant, an_entry
from tests.store.spending import CLAIM_KEY, furnish, opened, wish

TABLES = {*schema.metadata.tables, "alembic_version"}


def tables(database: Database) -> set[str]:
    with database.reading() as connection:
        return set(inspect(connection).get_table_names())


def set_revision(database: Database, revision: str, *, oldest: str | None = None) -> None:
    """Say of a database that a release made it, and which is the oldest that it serves."""
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
        connection.execute(update(schema.compatibility).values(oldest_revision=oldest or revision))


def test_a_new_database_has_all_tables_and_our_revision(empty_url: str) -> None:
    database = open_database(empty_url)
    assert database.revision() == schema.REVISION
    assert tables(database) == TABLES
    database.close()


def test_opening_it_again_changes_nothing(database: Database, url: str) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE heartbeat SET at = 7"))
    again = open_database(url)
    with again.reading() as connection:
        assert connection.execute(select(schema.heartbeat.c.at)).scalar() == 7
    again.upgrade()
    again.close()


@pytest.mark.parametrize(
    ("revision", "remedy"),
    [
        ("0000", f"this release needs {schema.REVISION}: run `grantserver db upgrade`"),
        ("9999", "start the one that made it"),
        ("deadbeef", "start the one that made it"),
    ],
)
def test_a_wrong_revision_is_refused_with_what_mends_it(
    database: Database, url: str, revision: str, remedy: str
) -> None:
    set_revision(database, revision)
    with pytest.raises(Misconfigured, match=remedy) as refused:
        open_database(url)
    assert revision in str(refused.value)
    assert len(refused.value.problems) == 1


def test_a_database_of_another_release_is_not_upgraded(database: Database) -> None:
    set_revision(database, "9999")
    with pytest.raises(Misconfigured, match="another release"):
        database.upgrade()
    assert database.revision() == "9999"


@pytest.mark.parametrize(
    ("revision", "oldest", "served"),
    [
        ("9999", "0001", True),
        ("9999", schema.REVISION, True),
        ("9999", f"{int(schema.REVISION) + 1:04}", False),
        ("9999", "9999", False),
        ("deadbeef", "0001", False),
        ("0000", "0000", False),
    ],
)
def test_a_newer_database_is_used_when_it_says_that_it_serves_this_release(
    database: Database, url: str, revision: str, oldest: str, served: bool
) -> None:
    set_revision(database, revision, oldest=oldest)
    if served:
        open_database(url).close()
        database.upgrade()
    else:
        with pytest.raises(Misconfigured):
            open_database(url)
    assert database.revision() == revision


NEXT_MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "9001"
down_revision = "{}"


def upgrade():
    op.add_column("grants", sa.Column("remark", sa.Text(), nullable=True))
    kind = sa.Column("kind", sa.Integer(), nullable=False, server_default="1")
    op.add_column("redemptions", kind)
    op.add_column("answers", sa.Column("form", sa.Text(), nullable=True))
    op.create_table("novelties", sa.Column("id", sa.Integer(), primary_key=True))
    op.create_index("ix_grants_remark", "grants", ["remark"])
    op.execute("UPDATE compatibility SET oldest_revision = '{}'")
"""


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Be a release whose migrations add to ours."""
    directory = tmp_path / "migrations"
    shutil.copytree(engine._MIGRATIONS, directory, ignore=shutil.ignore_patterns("__pycache__"))
    text_ = NEXT_MIGRATION.format(schema.REVISION, schema.REVISION)
    (directory / "versions" / "9001_next.py").write_text(text_)
    with monkeypatch.context() as changes:
        changes.setattr(engine, "_MIGRATIONS", directory)
        yield changes


def test_this_release_runs_on_tables_to_which_the_next_one_has_added(
    empty_url: str, next_release: pytest.MonkeyPatch
) -> None:
    database = Database(empty_url)
    database.upgrade()
    with database.writing() as connection:
        engine._migrate(connection)
    furnish(database)
    assert database.revision() == "9001"
    assert "novelties" in tables(database)
    next_release.undo()

    database.close()
    ours = open_database(empty_url)
    with ours.writing() as connection:
        grants.add(connection, a_grant(id="4" * 36, name="third"))
        audit.add(connection, an_entry())

    async def main() -> list[Redemption | Kept | Any]:
        async with opened(ours) as ledger:
            first = await ledger.spend(wish())
            again = await ledger.find_kept(CLAIM_KEY, NOW)
            found = await ledger.find(GRANT_ID)
            assert found is not None
            return [first.ordinal, again, found.grant.spent]

    assert asyncio.run(main()) == [1, Kept(sealed=b"sealed", ordinal=1), 1]
    with ours.reading() as connection:
        (known,) = grants.redemptions_of(connection, GRANT_ID)
        assert known.ordinal == 1
        assert len(grants.matching(connection)) == 3
    ours.upgrade()
    assert ours.revision() == "9001"
    ours.close()


def test_a_database_without_a_revision_says_so(empty_url: str) -> None:
    database = Database(empty_url)
    assert database.revision() is None
    with pytest.raises(Misconfigured, match="revision none"):
        database.check_revision()
    database.upgrade()
    database.check_revision()
    with database.writing() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
    assert database.revision() is None
    database.close()


def test_a_database_of_another_program_is_left_alone(empty_url: str) -> None:
    database = Database(empty_url)
    with database.writing() as connection:
        connection.execute(text("CREATE TABLE redemptions (id INTEGER)"))
    with pytest.raises(Misconfigured, match="a database of its own"):
        open_database(empty_url)
    assert tables(database) == {"redemptions"}
    database.close()


def test_threads_that_open_a_new_database_at_once_all_succeed(empty_url: str) -> None:
    together = threading.Barrier(6)

    def open_it(_: int) -> str | None:
        together.wait()
        database = open_database(empty_url)
        revision = database.revision()
        database.close()
        return revision

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(open_it, range(6))) == [schema.REVISION] * 6


def test_processes_that_open_a_new_database_at_once_all_succeed(empty_url: str) -> None:
    program = (
        "import sys; from app.store.engine import open_database; print('ready', flush=True); "
        f"sys.stdin.readline(); print(open_database({empty_url!r}).revision())"
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
    assert "sqlite3" in shown or "psycopg" in shown
    assert SECRET not in shown
    assert SECRET not in repr(caught.value)


def test_a_text_that_is_no_unicode_is_invalid(database: Database) -> None:
    with pytest.raises(Invalid), database.reading() as connection:
        site_rows.by_name(connection, "west\udcff")


def test_whoever_observes_is_told_of_connections_in_use_and_of_trouble(database: Database) -> None:
    used: list[int] = []
    errors: list[None] = []
    database.observe(on_error=lambda: errors.append(None), on_use=used.append)
    with database.reading():
        assert sum(used) == 1
    assert sum(used) == 0
    with pytest.raises(Unavailable), database.reading():
        raise OperationalError("SELECT 1", {}, Exception("away"))
    assert len(errors) == 1


def test_a_connection_that_is_taken_for_good_is_not_in_use_any_more(database: Database) -> None:
    if not isinstance(database.backend, Sqlite):
        return  # where the ledger's connections are none of the pool
    used: list[int] = []
    database.observe(on_error=lambda: None, on_use=used.append)
    connection = database.sqlite.take_connection()
    assert sum(used) == 0
    connection.close()
