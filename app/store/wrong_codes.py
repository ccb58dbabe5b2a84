"""Rows of wrong codes: one bucket for each grant, which all replicas fill together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Connection, case, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from app.domain.limits import Allowance
from app.store.schema import grants, wrong_codes

_MOST_AT_ONCE: Final = 500  # grants in one statement; a database bounds its parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A grant's bucket after a merge: all wrong codes ever, and when it will be empty.

    Both moments are milliseconds since 1970; `before` is that of the bucket as it was found.
    """

    grant_id: str
    count: int
    before: int
    empty_at: int


def merge(
    connection: Connection, counts: Mapping[str, int], allowance: Allowance, now: int
) -> Sequence[Filled]:
    """Add wrong codes to the buckets of their grants, as `Allowance.fill` does, and read them back.

    What others have added since is in the answer. Grants that are gone are left out.
    """
    found: list[Filled] = []
    ids = sorted(counts)  # one order for everybody: nobody waits for one who waits for him
    for start in range(0, len(ids), _MOST_AT_ONCE):
        some = {grant_id: counts[grant_id] for grant_id in ids[start : start + _MOST_AT_ONCE]}
        found += _merge(connection, some, allowance, now)
    return found


def count(connection: Connection, grant_id: str) -> int:
    """How many wrong codes were ever tried at a grant, as far as they are merged."""
    query = select(wrong_codes.c.count).where(wrong_codes.c.grant_id == grant_id)
    return connection.scalars(query).first() or 0


def _merge(
    connection: Connection, counts: Mapping[str, int], allowance: Allowance, now: int
) -> Sequence[Filled]:
    before = {
        row.grant_id: row.empty_at
        for row in connection.execute(
            select(wrong_codes.c.grant_id, wrong_codes.c.empty_at)
            .where(wrong_codes.c.grant_id.in_(counts))
            .order_by(wrong_codes.c.grant_id)
            .with_for_update()
        )
    }
    # From the grants and not from values: one that was removed meanwhile must not spoil the rest.
    new = (
        select(
            grants.c.id,
            _by_grant(counts),
            _by_grant({one: allowance.fill(now, now, count) for one, count in counts.items()}),
        )
        .where(grants.c.id.in_(counts))
        .order_by(grants.c.id)
    )
    insert = _insert_of(connection)(wrong_codes).from_select(["grant_id", "count", "empty_at"], new)
    started = _greater(wrong_codes.c.empty_at, _number(now))
    filled = started + insert.excluded.empty_at - _number(now)
    rows = connection.execute(
        insert.on_conflict_do_update(
            index_elements=[wrong_codes.c.grant_id],
            set_={
                "count": wrong_codes.c.count + insert.excluded.count,
                "empty_at": _lesser(filled, _number(now + allowance.burst * allowance.interval)),
            },
        ).returning(wrong_codes.c.grant_id, wrong_codes.c.count, wrong_codes.c.empty_at)
    )
    return [
        Filled(grant_id=grant_id, count=count, before=before.get(grant_id, now), empty_at=empty_at)
        for grant_id, count, empty_at in rows
    ]


def _insert_of(connection: Connection) -> Any:
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert


def _by_grant(values: Mapping[str, int]) -> ColumnElement[int]:
    return case({one: _number(value) for one, value in values.items()}, value=grants.c.id)


def _number(value: int) -> ColumnElement[int]:
    return literal(value, BigInteger)


# least() and greatest() have other names on SQLite.
def _lesser(one: ColumnElement[int], other: ColumnElement[int]) -> ColumnElement[int]:
    return case((one < other, one), else_=other)


def _greater(one: ColumnElement[int], other: ColumnElement[int]) -> ColumnElement[int]:
    return case((one > other, one), else_=other)
