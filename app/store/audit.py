"""Rows of the audit log: written in the transaction of the act itself, never changed."""

import json
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, insert, select

from app.domain.audit import Act, Entry
from app.store.schema import audit

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_ADD: Final = insert(audit)


def add(connection: Connection, entry: Entry) -> None:
    """Append an entry."""
    connection.execute(_ADD, values(entry))


def values(entry: Entry) -> dict[str, object]:
    """Lay an entry out as the columns of a row; the ledger appends many at once."""
    return {
        "at": entry.at,
        "act": entry.act.value,
        "actor": entry.actor,
        "target": entry.target,
        "details": _encode(entry.details),
    }


def latest(connection: Connection, limit: int, target: str | None = None) -> Sequence[Entry]:
    """The newest `limit` entries, oldest of them first; of one target, if given."""
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if target is not None:
        query = query.where(audit.c.target == target)
    return [
        Entry(
            at=row.at,
            act=Act(row.act),
            actor=row.actor,
            target=row.target,
            details=json.loads(row.details),
        )
        for row in reversed(connection.execute(query).all())
    ]
