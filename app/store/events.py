"""Events, read from the audit log in the order of its chain. The caller holds the transaction."""

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, func, select

from app.domain.audit import Act, Entry
from app.domain.events import ACTS, Event, read
from app.store.audit_chain import end
from app.store.schema import audit, audit_links, grants, sites

_AFTER_KIND: Final = len("grant/") + 1  # SQL counts from 1


def newest(connection: Connection) -> int:
    """The position of the newest entry that has one, be it an event or not; 0 at the beginning."""
    return end(connection).position


def between(connection: Connection, after: int, through: int) -> Sequence[Event]:
    """The events behind position `after`, up to `through`, in order."""
    query = _events(after).where(audit_links.c.position <= through)
    return [_event(row) for row in connection.execute(query)]


def after(
    connection: Connection, position: int, *, limit: int, wanted: frozenset[str] | None
) -> Sequence[Event]:
    """The first `limit` events behind `position`, in order: of the sites `wanted`, None: of all."""
    query = _events(position).limit(limit)
    if wanted is not None:
        query = query.where(sites.c.name.in_(sorted(wanted)))
    return [_event(row) for row in connection.execute(query)]


def _events(after: int) -> Select[Any]:
    return (
        select(
            audit_links.c.position,
            audit_links.c.hash,
            audit,
            grants.c.name.label("grant_name"),
            sites.c.name.label("site"),
        )
        .join(audit, audit.c.id == audit_links.c.audit_id)
        .outerjoin(grants, grants.c.id == func.substr(audit.c.target, _AFTER_KIND))
        .outerjoin(sites, sites.c.id == grants.c.site_id)
        .where(audit_links.c.position > after, audit.c.act.in_(list(ACTS)))
        .order_by(audit_links.c.position)
    )


def _event(row: Row[Any]) -> Event:
    entry = Entry(
        at=row.at,
        act=Act(row.act),
        actor=row.actor,
        target=row.target,
        details=json.loads(row.details),
    )
    return read(
        entry,
        position=row.position,
        link=row.hash,
        grant_name=row.grant_name,
        site=row.site,
    )
