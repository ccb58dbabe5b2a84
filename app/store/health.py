"""What the readiness check and the doctor ask of the database itself."""

from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, func, inspect, or_, select, update

from app.store.engine import Database
from app.store.schema import access_grants, grants, heartbeat, redemptions

_MOST_SHOWN: Final = 20


def beat(connection: Connection, now: int) -> None:
    """Write one row: with the commit after it, this proves that the database takes writes."""
    connection.execute(update(heartbeat).values(at=now))


def integrity_problems(database: Database, now: int) -> list[str]:
    """What the database finds wrong with itself, and where the books do not agree.

    Empty when all is well. Takes as long as reading it all. Raises Unavailable.
    """
    with database.reading("examining") as connection:
        # Where the file itself is damaged, what is read from it says nothing.
        damages, tables = database.damages(connection), inspect(connection)
        if damages or not tables.has_table(redemptions.name):
            return damages
        adopts = tables.has_table(access_grants.name)  # a database may wait for its upgrade
        return _wrong_counts(connection, now, adopts=adopts)


def _wrong_counts(connection: Connection, now: int, *, adopts: bool) -> list[str]:
    """Grants that have given more or less than is written down, twenty at most.

    Less is fine once the window has ended: then redemptions are forgotten, some at a time. What
    was spent before a grant came to us is written down elsewhere, or nowhere any more.
    """
    rows, last = func.count(redemptions.c.id), func.max(redemptions.c.ordinal)
    source = grants.outerjoin(redemptions, redemptions.c.grant_id == grants.c.id)
    spent: ColumnElement[int] = grants.c.spent
    if adopts:
        source = source.outerjoin(access_grants, access_grants.c.grant_id == grants.c.id)
        spent = grants.c.spent - func.coalesce(func.max(access_grants.c.spent_before), 0)
    query = (
        select(grants.c.id, spent, rows)
        .select_from(source)
        .group_by(grants.c.id, grants.c.spent, grants.c.expires_at)
        .having(
            or_(
                rows > spent,
                last > grants.c.spent,
                and_(grants.c.expires_at > now, rows < spent),
            )
        )
        .order_by(grants.c.id)
        .limit(_MOST_SHOWN)
    )
    return [
        f"grant {grant_id} has {spent} redemptions spent, and {written} written down"
        for grant_id, spent, written in connection.execute(query)
    ]
