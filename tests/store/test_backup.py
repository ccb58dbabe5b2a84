import contextlib
import sqlite3
from pathlib import Path

import pytest

from app.errors import Invalid, Unavailable
from app.store import backup
from app.store.engine import Database
from app.store.schema import REVISION


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    return sqlite_database


def test_a_copy_is_one_file_that_opens_as_a_database(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "copy.db"
    with database.writing():  # somebody else is at work meanwhile
        backup.copy(database, str(path))
    assert sorted(tmp_path.glob("copy.db*")) == [path]
    with contextlib.closing(sqlite3.connect(path)) as copy:
        assert copy.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert copy.execute("SELECT version_num FROM alembic_version").fetchone() == (REVISION,)


def test_what_is_no_database_cannot_be_made_whole(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database at all, but long enough to be looked at as one" * 100)
    with pytest.raises(Unavailable, match="cannot be copied"):
        backup.make_whole(str(path))


def test_a_folder_that_takes_no_file_is_unavailable(database: Database, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be copied"):
        backup.copy(database, str(tmp_path / "missing" / "copy.db"))


def test_of_postgresql_it_is_told_what_makes_a_backup(postgres_database: Database) -> None:
    with pytest.raises(Invalid, match="pg_dump") as refused:
        backup.check_possible(postgres_database)
    assert "Hunter2" not in str(refused.value)
