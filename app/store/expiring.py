"""Certificates that end soon, and of which of them it was told. The caller holds the transaction.

There is no index on the ends of certificates, which would cost each redemption a page: they are
looked through by their numbers, some at a time.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from sqlalchemy import Connection, Subquery, delete, exists, func, insert, select

from app.domain.renewals import Given
from app.store import renewals as renewal_rows
from app.store.schema import expiry_notices, redemptions, renewals


class Kind(Enum):
    """How a certificate was given."""

    REDEEMED = redemptions
    RENEWED = renewals


class Stretch(NamedTuple):
    """Certificates that follow each other: how many there are, and the number of the last."""

    rows: int
    last: int


def look(connection: Connection, kind: Kind, *, after: int, limit: int) -> Stretch:
    """Look at the next `limit` behind number `after`."""
    page = _page(kind, after, limit)
    rows, last = connection.execute(select(func.count(), func.max(page.c.id))).one()
    return Stretch(rows, last or after)


def ending(
    connection: Connection, kind: Kind, *, after: int, limit: int, now: int, until: int
) -> Sequence[Given]:
    """Among the next `limit`: those that end by `until`, count still, and nobody was told of."""
    page = _page(kind, after, limit)
    table = kind.value
    query = renewal_rows.first() if kind is Kind.REDEEMED else renewal_rows.followers()
    found = connection.execute(
        query.join(page, page.c.id == table.c.id).where(
            table.c.not_after > now,
            table.c.not_after <= until,
            table.c.superseded_at.is_(None),
            ~exists().where(expiry_notices.c.serial == table.c.serial),
        )
    )
    given = [renewal_rows.given(row) for row in found]
    return [one for one in given if one.revoked_at is None]


def note(connection: Connection, told: Sequence[Given]) -> None:
    """Write down that it was told of some."""
    if told:
        connection.execute(
            insert(expiry_notices),
            [{"serial": one.serial, "not_after": one.not_after} for one in told],
        )


def has_ended(connection: Connection, *, until: int) -> bool:
    """Tell whether there are notes of certificates that ended by `until` (UTC seconds)."""
    query = select(expiry_notices.c.serial).where(expiry_notices.c.not_after <= until).limit(1)
    return connection.execute(query).first() is not None


def forget(connection: Connection, *, until: int, limit: int) -> int:
    """Delete up to `limit` notes of certificates that ended by `until`; tells how many."""
    over = select(expiry_notices.c.serial).where(expiry_notices.c.not_after <= until).limit(limit)
    return connection.execute(
        delete(expiry_notices).where(expiry_notices.c.serial.in_(over))
    ).rowcount


def _page(kind: Kind, after: int, limit: int) -> Subquery:
    table = kind.value
    return select(table.c.id).where(table.c.id > after).order_by(table.c.id).limit(limit).subquery()
