"""Rows of deliveries: events on their way to a webhook, and those that were given up.

What has arrived has no row. The caller holds the transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, select, update

from app.domain.webhooks import Delivery, Failure
from app.store.schema import deliveries, webhooks


def add(connection: Connection, new: Sequence[Delivery]) -> None:
    """Insert deliveries that nobody has tried yet."""
    if new:
        connection.execute(
            insert(deliveries),
            [
                {
                    "webhook_id": one.webhook_id,
                    "position": one.position,
                    "event_id": one.event_id,
                    "body": one.body,
                    "attempts": one.attempts,
                    "next_at": one.next_at,
                }
                for one in new
            ],
        )


def count_pending(connection: Connection) -> Mapping[str, int]:
    """Count what is on its way, by webhook; one that waits for nothing is left out."""
    return _counted(connection, deliveries.c.dead_at.is_(None))


def count_dead(connection: Connection) -> Mapping[str, int]:
    """Count what was given up, by webhook."""
    return _counted(connection, deliveries.c.dead_at.is_not(None))


def is_due(connection: Connection, now: int) -> bool:
    """Tell whether anything is due, of a webhook that is enabled."""
    query = (
        select(deliveries.c.position)
        .join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
        .where(webhooks.c.enabled == 1, deliveries.c.dead_at.is_(None), deliveries.c.next_at <= now)
        .limit(1)
    )
    return connection.execute(query).first() is not None


def due(connection: Connection, webhook_id: str, *, now: int, limit: int) -> Sequence[Delivery]:
    """The first of what is due, what has waited longest before all else."""
    query = (
        select(deliveries)
        .where(
            deliveries.c.webhook_id == webhook_id,
            deliveries.c.dead_at.is_(None),
            deliveries.c.next_at <= now,
        )
        .order_by(deliveries.c.next_at, deliveries.c.position)
        .limit(limit)
    )
    return [_delivery(row) for row in connection.execute(query)]


def claim(connection: Connection, one: Delivery, *, until: int) -> bool:
    """Begin an attempt, which nobody else begins before `until` (UTC seconds); False: too late."""
    begun = connection.execute(
        update(deliveries)
        .where(_as_seen(one), deliveries.c.next_at == one.next_at)
        .values(attempts=one.attempts + 1, next_at=until)
    )
    return begun.rowcount > 0


def arrived(connection: Connection, one: Delivery) -> None:
    """Forget what has arrived."""
    connection.execute(delete(deliveries).where(_is(one)))


def failed(
    connection: Connection,
    one: Delivery,
    *,
    status: int | None,
    failure: Failure,
    next_at: int,
    dead_at: int | None,
) -> bool:
    """Write down that an attempt failed, and when the next one is due, or that there is none.

    False where another attempt has been begun since, whose outcome counts.
    """
    noted = connection.execute(
        update(deliveries)
        .where(_as_seen(one))
        .values(status=status, failure=failure.value, next_at=next_at, dead_at=dead_at)
    )
    return noted.rowcount > 0


def dead(connection: Connection, webhook_id: str, limit: int) -> Sequence[Delivery]:
    """The first `limit` that were given up, in the order of the events."""
    query = (
        select(deliveries)
        .where(deliveries.c.webhook_id == webhook_id, deliveries.c.dead_at.is_not(None))
        .order_by(deliveries.c.position)
        .limit(limit)
    )
    return [_delivery(row) for row in connection.execute(query)]


def dead_event(connection: Connection, webhook_id: str, position: int) -> str | None:
    """The id of the event that was given up at this position; None where none was."""
    query = select(deliveries.c.event_id).where(
        deliveries.c.webhook_id == webhook_id,
        deliveries.c.position == position,
        deliveries.c.dead_at.is_not(None),
    )
    return connection.scalar(query)


def send_anew(connection: Connection, webhook_id: str, *, position: int | None, now: int) -> int:
    """Have what was given up tried again, as if for the first time: one, or all of a webhook.

    Tells how many they are.
    """
    which = and_(deliveries.c.webhook_id == webhook_id, deliveries.c.dead_at.is_not(None))
    if position is not None:
        which &= deliveries.c.position == position
    return connection.execute(
        update(deliveries).where(which).values(attempts=0, next_at=now, dead_at=None)
    ).rowcount


def count_forgettable(connection: Connection, *, until: int) -> int:
    """Count what was given up at `until` (UTC seconds) or earlier."""
    query = select(func.count()).select_from(deliveries).where(deliveries.c.dead_at <= until)
    return connection.execute(query).scalar_one()


def forget(connection: Connection, *, until: int, limit: int) -> int:
    """Delete up to `limit` that were given up at `until` or earlier; tells how many."""
    old = (
        select(deliveries.c.webhook_id, deliveries.c.position)
        .where(deliveries.c.dead_at <= until)
        .order_by(deliveries.c.dead_at)
        .limit(limit)
    )
    gone = 0
    for row in connection.execute(old).all():
        gone += connection.execute(
            delete(deliveries).where(
                deliveries.c.webhook_id == row.webhook_id, deliveries.c.position == row.position
            )
        ).rowcount
    return gone


def _counted(connection: Connection, which: ColumnElement[bool]) -> Mapping[str, int]:
    query = (
        select(deliveries.c.webhook_id, func.count().label("number"))
        .where(which)
        .group_by(deliveries.c.webhook_id)
    )
    return {row.webhook_id: row.number for row in connection.execute(query)}


def _is(one: Delivery) -> ColumnElement[bool]:
    return and_(deliveries.c.webhook_id == one.webhook_id, deliveries.c.position == one.position)


def _as_seen(one: Delivery) -> ColumnElement[bool]:
    """Say that nobody has begun another attempt, or given it up, meanwhile."""
    return and_(_is(one), deliveries.c.attempts == one.attempts, deliveries.c.dead_at.is_(None))


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        webhook_id=row.webhook_id,
        position=row.position,
        event_id=row.event_id,
        body=row.body,
        attempts=row.attempts,
        next_at=row.next_at,
        status=row.status,
        failure=None if row.failure is None else Failure(row.failure),
        dead_at=row.dead_at,
    )
