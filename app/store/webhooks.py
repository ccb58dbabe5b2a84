"""Rows of webhooks. The caller holds the transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from app.domain.events import EventType
from app.domain.webhooks import Webhook
from app.store.schema import webhooks


def add(connection: Connection, webhook: Webhook) -> None:
    """Insert one. Raises Conflict, in the end, when there is one of this name."""
    connection.execute(
        insert(webhooks).values(
            id=webhook.id,
            name=webhook.name,
            url=webhook.url,
            events=_written(webhook.events),
            sites=None if webhook.sites is None else _written(webhook.sites),
            sealed_secret=webhook.sealed_secret,
            ca_pem=webhook.ca_pem,
            enabled=int(webhook.enabled),
            created_at=webhook.created_at,
            position=webhook.position,
        )
    )


def count(connection: Connection) -> int:
    """Count them."""
    return connection.execute(select(func.count()).select_from(webhooks)).scalar_one()


def every(connection: Connection) -> Sequence[Webhook]:
    """All of them, by name; there are few."""
    return [_webhook(row) for row in connection.execute(select(webhooks).order_by(webhooks.c.name))]


def by_name(connection: Connection, name: str) -> Webhook | None:
    """The one of this name."""
    row = connection.execute(select(webhooks).where(webhooks.c.name == name)).first()
    return None if row is None else _webhook(row)


def change(connection: Connection, webhook: Webhook) -> None:
    """Replace what of one can change: its events, and whether it is told anything."""
    connection.execute(
        update(webhooks)
        .where(webhooks.c.id == webhook.id)
        .values(events=_written(webhook.events), enabled=int(webhook.enabled))
    )


def disable(connection: Connection, webhook_id: str) -> bool:
    """Tell one nothing any more; tells whether it was told before."""
    changed = connection.execute(
        update(webhooks)
        .where(webhooks.c.id == webhook_id, webhooks.c.enabled == 1)
        .values(enabled=0)
    )
    return changed.rowcount > 0


def move(connection: Connection, webhook_ids: Sequence[str], *, before: int, after: int) -> bool:
    """Move some from one position to the next; False when somebody else has moved one already."""
    moved = connection.execute(
        update(webhooks)
        .where(webhooks.c.id.in_(webhook_ids), webhooks.c.position == before)
        .values(position=after)
    )
    return moved.rowcount == len(webhook_ids)


def remove(connection: Connection, webhook_id: str) -> None:
    """Delete one, with all that is on its way to it."""
    connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))


def _written(names: frozenset[EventType] | frozenset[str]) -> str:
    return ",".join(sorted(map(str, names)))


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(
        id=row.id,
        name=row.name,
        url=row.url,
        events=frozenset(EventType(name) for name in row.events.split(",")),
        sites=None if row.sites is None else frozenset(row.sites.split(",")),
        sealed_secret=row.sealed_secret,
        ca_pem=row.ca_pem,
        enabled=bool(row.enabled),
        created_at=row.created_at,
        position=row.position,
    )
