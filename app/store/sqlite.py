"""What is SQLite's own: the file, how connections are set up, and what its errors mean.

Transactions are opened in `app.store.engine`; the ledger on SQLite is a module of its own.
"""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.exc import DatabaseError, IntegrityError, SQLAlchemyError

from app.errors import (
    Broken,
    Conflict,
    GrantServerError,
    Invalid,
    Misconfigured,
    Missing,
    Unavailable,
)

Purpose = Literal["reading", "examining", "writing", "upgrading"]
"""What a transaction is for; each database begins those of one purpose in its own way."""

_BUSY_MILLISECONDS: Final = 5000  # how long a writer waits for another process's transaction
_NO_DATABASE: Final = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})


class Sqlite:
    """One file. Any number of processes of one machine may have it open."""

    def __init__(self, url: str, *, make: bool = True) -> None:
        """Prepare to open `sqlite:///PATH`; a new file is created with mode 0600.

        Raises Unavailable when the file cannot be created, Missing when it is not to be.
        """
        path = make_url(url).database
        if not path:
            raise Invalid("database", f"{url} names no file")
        self.path: Final = Path(path)
        self.name = path
        if not make and not self.path.is_file():
            raise Missing("database", path)
        if not self.path.exists():
            _make(self.path)
        self._identity = _identity(self.path)
        # isolation_level None: every transaction is begun by _begin. hide_parameters: what was
        # to be stored must not appear in the text of an error.
        self.engine = create_engine(
            url, connect_args={"isolation_level": None}, hide_parameters=True
        )
        event.listen(self.engine, "connect", _set_up)
        event.listen(self.engine, "begin", _begin)

    def options(self, purpose: Purpose) -> Mapping[str, Any]:
        """Say how a transaction for this purpose is begun."""
        # One that will write takes the lock first: one that reads and then wants to write fails
        # at once when another has written in between.
        return {"begin": "IMMEDIATE"} if purpose in {"writing", "upgrading"} else {}

    def private_paths(self) -> Sequence[Path]:
        """Name the files that nobody else may read."""
        return (self.path,)

    def take_connection(self) -> sqlite3.Connection:
        """Hand over a driver's connection, set up like all others; the caller closes it."""
        try:
            pooled = self.engine.raw_connection()
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise _explained(error) from error
        connection = pooled.driver_connection
        if not isinstance(connection, sqlite3.Connection):
            pooled.close()
            raise Broken("the driver is not SQLite's")
        pooled.detach()
        return connection

    def check_in_place(self) -> None:
        """Raise Unavailable when the file that was opened is not the one at its path any more.

        SQLite would go on writing to a file that was removed or replaced, and what is written
        there is lost with the process.
        """
        if _identity(self.path) != self._identity:
            raise Unavailable(f"{self.path} was removed or replaced: start the server again")

    def explained(self, error: Exception) -> GrantServerError | None:
        """Turn an error of the library or the driver into ours; it carries no values."""
        if not isinstance(error, SQLAlchemyError | sqlite3.Error):
            return None
        told = _explained(error)
        told.__cause__ = error
        return told

    def abandon(self) -> None:
        """Do nothing: who waits here waits for seconds, and the file does not go away."""

    def damages(self, connection: Connection) -> list[str]:
        """What SQLite's own check of the file and of all references finds."""
        found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
        return [line for line in found if line != "ok"] + [
            f"a row of {row[0]} refers to a missing row of {row[2]}"
            for row in connection.exec_driver_sql("PRAGMA foreign_key_check")
        ]


def _explained(error: SQLAlchemyError | sqlite3.Error) -> GrantServerError:
    if isinstance(error, IntegrityError):
        return Conflict(f"the database refused it: {error.orig}")
    if isinstance(error, DatabaseError):
        if getattr(error.orig, "sqlite_errorcode", None) in _NO_DATABASE:
            return Misconfigured(
                [f"the database cannot be used ({error.orig}): restore it from a backup"]
            )
        return Unavailable(f"database: {error.orig}")
    if isinstance(error, SQLAlchemyError):
        return Unavailable(f"database: {getattr(error, 'orig', None) or type(error).__name__}")
    # The pool's own connections come without the library's wrapping.
    return Unavailable(f"database: {error}")


def _make(path: Path) -> None:
    """Put an empty database in place, or leave the one that somebody else put there first.

    SQLite would create the file with the umask's mode (its -wal and -shm files copy the mode).
    The file is in WAL mode when it gets its name: the change of mode waits for nobody, so
    processes that opened a new file at once would fail one another. Raises Unavailable when
    there is no room or no right.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
        os.close(descriptor)
        try:
            with contextlib.closing(sqlite3.connect(temporary)) as connection:
                connection.execute("PRAGMA journal_mode = WAL").close()
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            Path(temporary).unlink()
    except OSError as error:
        raise Unavailable(f"database {path}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise Unavailable(f"database {path}: {error}") from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in (
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = FULL",  # a commit that was answered survives the loss of power
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    mode = connection.get_execution_options().get("begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")
