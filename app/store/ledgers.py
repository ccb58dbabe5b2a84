"""Opening the ledger that belongs to a database."""

from collections.abc import Callable

from app.errors import Broken
from app.store.engine import Database
from app.store.ledger import Ledger
from app.store.sqlite import Sqlite
from app.store.sqlite_ledger import SqliteLedger


def open_ledger(
    database: Database, *, spacing_seconds: float, on_batch: Callable[[int], None]
) -> Ledger:
    """Open the ledger; it is used from one event loop, and closed by the caller.

    `spacing_seconds` is the least time between the beginnings of two commits. `on_batch` is told
    how many redemptions each commit carried.
    """
    if isinstance(database.backend, Sqlite):
        return SqliteLedger(database, spacing_seconds=spacing_seconds, on_batch=on_batch)
    # Imported here, for the reason that the engine has.
    from app.store.postgres_ledger import PostgresLedger  # noqa: PLC0415
    from app.store.postgresql import Postgresql  # noqa: PLC0415

    if isinstance(database.backend, Postgresql):
        return PostgresLedger(database.backend, spacing_seconds=spacing_seconds, on_batch=on_batch)
    raise Broken("there is no ledger for this database")
