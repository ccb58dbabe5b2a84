"""Rows of kept answers of creations. The caller holds the transaction."""

from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, insert, select

from app.store.schema import creations


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An answer, sealed, under the hash of who asked for what; it is over at `expires_at`."""

    asked: bytes
    body: bytes
    sealed: bytes = field(repr=False)
    expires_at: int


def find(connection: Connection, asked: bytes) -> Row | None:
    """The row of what was asked."""
    row = connection.execute(select(creations).where(creations.c.asked == asked)).first()
    if row is None:
        return None
    return Row(asked=row.asked, body=row.body, sealed=row.sealed, expires_at=row.expires_at)


def keep(connection: Connection, row: Row, *, now: int) -> None:
    """Insert a row in the place of one that is over; conflicts with one that is not."""
    connection.execute(
        delete(creations).where(creations.c.asked == row.asked, creations.c.expires_at <= now)
    )
    connection.execute(
        insert(creations).values(
            asked=row.asked, body=row.body, sealed=row.sealed, expires_at=row.expires_at
        )
    )
