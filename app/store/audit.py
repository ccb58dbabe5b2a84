"""Rows of the audit log: written in the transaction of the act itself, never changed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, bindparam, func, insert, select

from app.domain.audit import Act, Entry
from app.store.schema import BESIDES_REDEMPTIONS, audit

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries are wanted: those for which all that is given here holds.

    `act` is a whole act (`grant.redeemed`) or its noun (`grant`); `actor` is a whole actor or the
    beginning of one that ends with a colon (`cli:`); `since` and `until` are UTC seconds, both
    inclusive.
    """

    target: str | None = None
    act: str | None = None
    actor: str | None = None
    since: int | None = None
    until: int | None = None

    def conditions(self) -> Sequence[ColumnElement[bool]]:
        """The same as conditions on rows."""
        made = []
        if self.target is not None:
            made.append(audit.c.target == self.target)
        if self.act is not None:
            whole = "." in self.act
            made.append(
                audit.c.act == self.act
                if whole
                else audit.c.act.startswith(f"{self.act}.", autoescape=True)
            )
        if self.actor is not None:
            several = self.actor.endswith(":")
            made.append(
                audit.c.actor.startswith(self.actor, autoescape=True)
                if several
                else audit.c.actor == self.actor
            )
        if self.since is not None:
            made.append(audit.c.at >= self.since)
        if self.until is not None:
            made.append(audit.c.at <= self.until)
        return made


EVERY: Final = Filter()


def page(
    connection: Connection, limit: int, wanted: Filter, *, before: int | None
) -> Sequence[tuple[int, Entry]]:
    """At most `limit` entries with their numbers, the newest first; below `before` if given."""
    query = select(audit).where(*wanted.conditions()).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    return [(row.id, _entry(row)) for row in connection.execute(query)]


def latest(connection: Connection, limit: int, wanted: Filter = EVERY) -> Sequence[Entry]:
    """The newest `limit` entries that are wanted, the oldest of them first."""
    query = select(audit).where(*wanted.conditions()).order_by(audit.c.id.desc()).limit(limit)
    return [_entry(row) for row in reversed(connection.execute(query).all())]


def besides_redemptions(connection: Connection, target: str, limit: int) -> Sequence[Entry]:
    """What happened to one thing but for redemptions: the newest `limit`, the oldest of them first.

    Found by an index, however long the log is.
    """
    query = _BESIDES.order_by(audit.c.id.desc()).limit(limit)
    rows = connection.execute(query, {"of_target": target}).all()
    return [_entry(row) for row in reversed(rows)]


def count_besides_redemptions(connection: Connection, target: str) -> int:
    """How many entries there are of one thing but for redemptions."""
    query = _BESIDES.with_only_columns(func.count())
    return int(connection.scalars(query, {"of_target": target}).one())


_BESIDES: Final = select(audit).where(audit.c.target == bindparam("of_target"), BESIDES_REDEMPTIONS)


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        at=row.at,
        act=Act(row.act),
        actor=row.actor,
        target=row.target,
        details=json.loads(row.details),
    )
