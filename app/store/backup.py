"""Copying a whole database file while others go on using it."""

import contextlib
import sqlite3
from collections.abc import Iterator

from app.errors import Unavailable
from app.store.engine import Database


def copy(database: Database, path: str) -> None:
    """Copy one state of the database into the file at `path`. Raises Unavailable."""
    with (
        _translated(),
        contextlib.closing(database.take_connection()) as source,
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
