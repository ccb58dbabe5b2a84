"""Where the cluster lets us be reached: a row that the holder of the Lease keeps for everybody."""

from app.store import addresses as rows
from app.store.addresses import AddressRow
from app.store.engine import Database


def told(database: Database) -> AddressRow:
    """What was written last. Raises Unavailable."""
    with database.reading() as connection:
        return rows.read(connection)


def tell(database: Database, row: AddressRow, *, now: int) -> bool:
    """Write what has changed, and tell whether anything had. Raises Unavailable."""
    if told(database) == row:
        return False  # and no writer is kept waiting
    with database.writing() as connection:
        return rows.write(connection, row, now)
