"""Copying a whole database file while others go on using it."""

import contextlib
import sqlite3
from collections.abc import Iterator

from app.errors import Invalid, Unavailable
from app.store.engine import Database
from app.store.sqlite import Sqlite


def check_possible(database: Database) -> None:
    """Raise Invalid unless the database is one that we can copy."""
    if not isinstance(database.backend, Sqlite):
        raise Invalid(
            "database",
            f"{database.name} is backed up with PostgreSQL's own tools, which see one state of it "
            "while others go on: pg_dump --format=custom --file=FILE, with the same URL; keep the "
            "sealing keys too, in another place",
        )


def copy(database: Database, path: str) -> None:
    """Copy one state of the database into the file at `path`. Raises Unavailable."""
    with (
        _translated(),
        contextlib.closing(database.sqlite.take_connection()) as source,
        contextlib.closing(sqlite3.connect(path)) as target,
    ):
        source.backup(target)
    make_whole(path)


def make_whole(path: str) -> None:
    """Let a copy be one file: it says of itself that it has a log beside it, as the original does.

    Opening it as a database of ours says so again. Raises Unavailable.
    """
    with _translated(), contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE").close()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(f"the database cannot be copied: {error}") from error
