"""Opening the database: connections set up for durability, transactions, and the revision check."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DatabaseError, IntegrityError, SQLAlchemyError

from app.errors import Broken, Conflict, Invalid, Misconfigured, Unavailable
from app.store import schema

__all__ = ["Connection", "Database", "open_database"]

_BUSY_MILLISECONDS: Final = 5000  # how long a writer waits for another process's transaction
_NO_DATABASE: Final = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_MIGRATIONS: Final = Path(__file__).parent.parent.parent / "migrations"


class Database:
    """A SQLite database, opened for durability; every transaction is begun and ended here."""

    def __init__(self, url: str) -> None:
        """Prepare to open `sqlite:///PATH`; a new file is created with mode 0600.

        Raises Unavailable when the file cannot be created.
        """
        path = make_url(url).database
        if not path:
            raise Invalid("database", f"{url} names no file")
        self.path: Final = Path(path)
        try:
            # SQLite would create it with the umask's mode; its -wal and -shm files copy the mode.
            # O_EXCL: closing a file that SQLite has open in this process would drop its locks.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise Unavailable(f"database {path}: {error.strerror}") from error
        self._identity = _identity(self.path)
        # isolation_level None: every transaction is begun by _begin. hide_parameters: what was
        # to be stored must not appear in the text of an error.
        self._engine = create_engine(
            url, connect_args={"isolation_level": None}, hide_parameters=True
        )
        event.listen(self._engine, "connect", _set_up)
        event.listen(self._engine, "begin", _begin)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that sees one state of the database and is always rolled back.

        Raises Unavailable when the database does not serve us.
        """
        with _translated(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open the one write transaction of a use case; committed when the block ends well.

        Raises Conflict when a constraint says no, Unavailable when the database does not
        serve us.
        """
        with _translated(), self._engine.connect() as plain:
            connection = plain.execution_options(begin="IMMEDIATE")
            with connection.begin():
                yield connection

    def take_connection(self) -> sqlite3.Connection:
        """Hand over a driver's connection, set up like all others; the caller closes it."""
        with _translated():
            pooled = self._engine.raw_connection()
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

    def revision(self) -> str | None:
        """Tell which migration the database is at; None when it holds no tables of ours."""
        with self.reading() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
            return None if row is None else str(row[0])

    def check_revision(self) -> None:
        """Raise Misconfigured, with the command that mends it, unless the revision is ours."""
        revision = self.revision()
        if revision == schema.REVISION:
            return
        found = f"the database is at revision {revision or 'none'}"
        if revision is not None and revision > schema.REVISION:  # revisions are numbered
            problem = f"{found}, which this release does not know: start the one that made it"
        else:
            problem = f"{found}, this release needs {schema.REVISION}: run `grantserver db upgrade`"
        raise Misconfigured([problem])

    def upgrade(self) -> None:
        """Bring the database to our revision in one transaction; nothing happens if it is there.

        Raises Misconfigured when the database was made by another release, or by another program.
        """
        # Imported here: it costs a fifth of a second, and a database is rarely new.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415
        from alembic.util.exc import CommandError  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        try:
            with self.writing() as connection:
                tables = inspect(connection).get_table_names()
                if tables and "alembic_version" not in tables:
                    raise Misconfigured(
                        [f"{self.path} holds tables but no revision: restore it from a backup"]
                    )
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError as error:
            raise Misconfigured(
                [f"the database was made by another release ({error}): start that one, or restore"]
            ) from error

    def close(self) -> None:
        """Close all pooled connections."""
        self._engine.dispose()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def open_database(url: str) -> Database:
    """Open the database; a new one is created and migrated without asking.

    Raises Misconfigured for a wrong revision, Unavailable when it cannot be opened.
    """
    database = Database(url)
    with contextlib.ExitStack() as undo:
        undo.callback(database.close)
        if database.revision() is None:
            database.upgrade()
        database.check_revision()
        undo.pop_all()
    return database


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in (
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = FULL",  # a commit that was answered survives the loss of power
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    # A transaction that will write takes the lock first: one that reads and then wants to write
    # fails at once when another has written in between.
    mode = connection.get_execution_options().get("begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn the library's exceptions into ours; they carry no values, so no secret either."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict(f"the database refused it: {error.orig}") from error
    except DatabaseError as error:
        if getattr(error.orig, "sqlite_errorcode", None) in _NO_DATABASE:
            raise Misconfigured(
                [f"the database cannot be used ({error.orig}): restore it from a backup"]
            ) from error
        raise Unavailable(f"database: {error.orig}") from error
    except SQLAlchemyError as error:
        raise Unavailable(
            f"database: {getattr(error, 'orig', None) or type(error).__name__}"
        ) from error
    except sqlite3.Error as error:  # the pool's own connections come without the library's wrapping
        raise Unavailable(f"database: {error}") from error
    except UnicodeEncodeError as error:  # an argument or header that was no UTF-8
        raise Invalid("text", "it is not valid Unicode") from error
