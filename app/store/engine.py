"""Opening the database: which one it is, transactions, and the revision check."""

import contextlib
import copy
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Engine, Inspector, event, inspect, select, text

from app.errors import Broken, GrantServerError, Invalid, Misconfigured, Unavailable
from app.store import leadership, schema
from app.store.sqlite import Purpose, Sqlite

__all__ = ["Connection", "Database", "open_database"]

_TURN_SECONDS: Final = 5.0  # as long as one waits for the writer of another process
CONNECTIONS: Final = 5  # of a pool, when nothing else is said
_MIGRATIONS: Final = Path(__file__).parent.parent.parent / "migrations"
_FOREIGN: Final = "restore it from a backup, or give this program a database of its own"
_NUMBERED: Final = re.compile(r"[0-9]{4}")


class Backend(Protocol):
    """What differs between the databases.

    `name` is shown to operators: it holds no password.
    """

    name: str
    engine: Engine

    def options(self, purpose: Purpose) -> Mapping[str, Any]:
        """Say how a transaction for this purpose is begun."""

    def private_paths(self) -> Sequence[Path]:
        """Name the files that nobody else may read."""

    def check_in_place(self) -> None:
        """Raise Unavailable when what was opened is not what is there now."""

    def explained(self, error: Exception) -> GrantServerError | None:
        """Turn an error of the library or the driver into ours, with its cause; None for others."""

    def damages(self, connection: Connection) -> list[str]:
        """What the database finds wrong with itself."""

    def abandon(self) -> None:
        """Have whatever waits for the database fail, and what is begun later as well."""


class Database:
    """A database, opened for durability; every transaction is begun and ended here."""

    def __init__(self, url: str, *, connections: int = CONNECTIONS, make: bool = True) -> None:
        """Prepare to open `sqlite:///PATH` (a new file gets mode 0600) or `postgresql://…`.

        `connections` bounds how many this process has open, where a connection is something to
        be sparing with. Raises Unavailable when a file cannot be created, Missing when there is
        none and it is not to be made.
        """
        self.backend: Final = _backend(url, connections, make=make)
        self.name: Final = self.backend.name
        self._engine = self.backend.engine
        # Whoever finds SQLite locked sleeps a while before it looks again. Threads of one process
        # need not: they take turns, and the next one begins at once.
        self._turn = threading.Lock()
        self._on_error: Callable[[], None] = lambda: None
        self.term: int | None = None  # of who leads, when nobody else is to write; see `led`

    def led(self, now: int) -> "Database":
        """Begin to lead, and give the same database for that: until another begins to.

        From then on its `writing` raises Unavailable, before anything is done. `now` are UTC
        seconds. Raises Unavailable.
        """
        with self.writing() as connection:
            term = leadership.begin(connection, now)
        led = copy.copy(self)  # with the same connections, and the same turns
        led.term = term
        return led

    def is_overtaken(self) -> bool:
        """Tell whether somebody has begun to lead since we did. Raises Unavailable."""
        with self.reading() as connection:
            return self.term is not None and leadership.is_overtaken(connection, self.term)

    @property
    def sqlite(self) -> Sqlite:
        """What there is on SQLite alone. Raises Broken where it is another database."""
        if not isinstance(self.backend, Sqlite):
            raise Broken("the database is not SQLite")
        return self.backend

    @contextlib.contextmanager
    def reading(self, purpose: Purpose = "reading") -> Iterator[Connection]:
        """Open a transaction that sees one state of the database and is always rolled back.

        One for "examining" may read for as long as it takes. Raises Unavailable when the
        database does not serve us.
        """
        with self._translated(), self._engine.connect() as connection:
            yield connection.execution_options(**self.backend.options(purpose))

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open the one write transaction of a use case; committed when the block ends well.

        There is one at a time: nothing changes between what is read in it and what is written,
        but for what the ledger does. Raises Conflict when a constraint says no, Unavailable when
        the database does not serve us, or was given for leading (see `led`), and another leads.
        """
        with self._its_turn(), self._changing("writing") as connection:
            if self.term is not None:
                leadership.check(connection, self.term)
            yield connection

    def observe(self, *, on_error: Callable[[], None], on_use: Callable[[int], None]) -> None:
        """Have it told when the database does not serve us, and when connections come into use.

        `on_use` gets 1 for one that does, and -1 for one that is free again.
        """
        self._on_error = on_error
        used = set[int]()

        def taken(_: object, record: object, __: object) -> None:
            used.add(id(record))
            on_use(1)

        def given_back(_: object, record: object) -> None:
            # One that could not be had comes back as well, without ever having been taken.
            if id(record) in used:
                used.discard(id(record))
                on_use(-1)

        event.listen(self._engine, "checkout", taken)
        event.listen(self._engine, "checkin", given_back)
        # One that somebody has taken for good, as the ledger does, is no longer one of these.
        event.listen(self._engine, "detach", given_back)

    def check_in_place(self) -> None:
        """Raise Unavailable when what was opened is not what is there now."""
        self.backend.check_in_place()

    def private_paths(self) -> Sequence[Path]:
        """Name the files that nobody else may read."""
        return self.backend.private_paths()

    def damages(self, connection: Connection) -> list[str]:
        """What the database finds wrong with itself; empty when all is well."""
        return self.backend.damages(connection)

    def revision(self) -> str | None:
        """Tell which migration the database is at; None when it holds no tables of ours."""
        with self.reading() as connection:
            return _revision(connection, inspect(connection))

    def check_revision(self) -> None:
        """Raise Misconfigured, with the command that mends it, unless this release can use it.

        It can when the revision is ours, or a newer one that says it keeps to what we know.
        """
        with self.reading() as connection:
            revision = _revision(connection, inspect(connection))
            if revision == schema.REVISION or _serves_us(connection, revision):
                return
        found = f"the database is at revision {revision or 'none'}"
        if revision is not None and revision > schema.REVISION:  # revisions are numbered
            problem = f"{found}, which this release does not know: start the one that made it"
        else:
            problem = f"{found}, this release needs {schema.REVISION}: run `grantserver db upgrade`"
        raise Misconfigured([problem])

    def upgrade(self) -> None:
        """Bring the database to our revision in one transaction; nothing happens if it is there.

        One without any table gets all of them at once, as the migrations would leave them.

        Processes that do so at the same moment do it one after the other. Raises Misconfigured
        when the database was made by another release, or by another program.
        """
        with self._changing("upgrading") as connection:
            tables = inspect(connection)
            if not tables.get_table_names():
                schema.create(connection)
                return
            if not tables.has_table("alembic_version"):
                raise Misconfigured([f"{self.name} holds tables but no revision: {_FOREIGN}"])
            revision = _revision(connection, tables)
            if revision != schema.REVISION and not _serves_us(connection, revision):
                _migrate(connection)

    def abandon(self) -> None:
        """Have whatever waits for the database fail, in any thread, and what is begun later too.

        For the end of a process, which must not depend on a database that does not answer. A
        transaction that is cut off is rolled back, or committed if it had got so far.
        """
        self.backend.abandon()

    def close(self) -> None:
        """Close all pooled connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _changing(self, purpose: Purpose) -> Iterator[Connection]:
        with self._translated(), self._engine.connect() as plain:
            connection = plain.execution_options(**self.backend.options(purpose))
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def _its_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=_TURN_SECONDS):
            raise Unavailable("the database is busy with other writes of this process")
        try:
            yield
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the library's exceptions into ours; they carry no values, so no secret either."""
        try:
            yield
        except UnicodeEncodeError as error:  # an argument or header that was no UTF-8
            raise Invalid("text", "it is not valid Unicode") from error
        except Exception as error:
            told = self.backend.explained(error)
            if told is None:
                raise
            if isinstance(told, Unavailable):
                self._on_error()
            raise told from told.__cause__


def open_database(url: str, *, connections: int = CONNECTIONS) -> Database:
    """Open the database; a new one is created and migrated without asking.

    Raises Misconfigured for a wrong revision, Unavailable when it cannot be opened.
    """
    database = Database(url, connections=connections)
    with contextlib.ExitStack() as undo:
        undo.callback(database.close)
        if database.revision() is None:
            database.upgrade()
        database.check_revision()
        undo.pop_all()
    return database


def _migrate(connection: Connection) -> None:
    # Imported here: it costs a fifth of a second and 10 MB, and is rarely needed.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util.exc import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Misconfigured(
            [f"the database was made by another release ({error}): start that one, or restore"]
        ) from error


def _backend(url: str, connections: int, *, make: bool) -> Backend:
    if not url.startswith(("postgresql://", "postgres://")):
        return Sqlite(url, make=make)
    # Imported here: it costs a tenth of a second and some memory, which SQLite's users keep.
    from app.store.postgresql import Postgresql  # noqa: PLC0415

    return Postgresql(url, connections)


def _revision(connection: Connection, tables: Inspector) -> str | None:
    if not tables.has_table("alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


def _serves_us(connection: Connection, revision: str | None) -> bool:
    """Tell whether a revision that we do not know still serves our release, as it says itself."""
    if revision is None or not _NUMBERED.fullmatch(revision) or revision <= schema.REVISION:
        return False
    oldest = connection.execute(select(schema.compatibility.c.oldest_revision)).scalar()
    return oldest is not None and oldest <= schema.REVISION
