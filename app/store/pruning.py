"""Finding and deleting rows that nobody needs any more, a bounded number of them at a time.

Which rows those are is the caller's decision, who holds the transaction too. Nothing here reads a
table from end to end, and any number of processes may do the same at once: rows that another one
is deleting are left to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    String,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from app.store.schema import (
    access_grants,
    answers,
    authorities,
    creations,
    grants,
    redemptions,
    renewals,
    server_certificates,
    sites,
    suspicions,
)


class Aging(NamedTuple):
    """A table whose rows are numbered in about the order of the times in `moment`.

    There is no index on these times on purpose: it would cost each redemption a page. Old rows
    are found from the lowest number upwards.
    """

    table: Table
    moment: Column[int]


ANSWERS: Final = Aging(answers, answers.c.expires_at)
CREATIONS: Final = Aging(creations, creations.c.expires_at)
RENEWALS: Final = Aging(renewals, renewals.c.not_after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Rows that follow each other, from number `first` to `last`; `old` of the `rows` may go."""

    first: int
    last: int
    rows: int
    old: int


def look(
    connection: Connection, aging: Aging, *, after: int, until: int, limit: int
) -> Stretch | None:
    """Look at the next `limit` rows behind number `after`; None when there are none.

    Rows are old when their time is `until` (UTC seconds) or earlier.
    """
    table = aging.table
    page = (
        select(table.c.id, aging.moment.label("moment"))
        .where(table.c.id > after)
        .order_by(table.c.id)
        .limit(limit)
        .subquery()
    )
    old = func.sum(case((page.c.moment <= until, 1), else_=0))
    row = connection.execute(
        select(func.min(page.c.id), func.max(page.c.id), func.count(), old).select_from(page)
    ).one()
    if not row[2]:
        return None
    return Stretch(first=row[0], last=row[1], rows=row[2], old=int(row[3]))


def forget(connection: Connection, aging: Aging, stretch: Stretch, *, until: int) -> int:
    """Delete the old rows of a stretch, and tell how many they were."""
    table = aging.table
    old = (
        select(table.c.id)
        .where(table.c.id.between(stretch.first, stretch.last), aging.moment <= until)
        .with_for_update(skip_locked=True)
    )
    return connection.execute(delete(table).where(table.c.id.in_(old))).rowcount


class Place(NamedTuple):
    """A place among all grants in the order in which their windows end."""

    expires_at: int
    grant_id: str


BEGINNING: Final = Place(-1, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Grants whose windows ended one after the other: how many, the last, and which may go."""

    rows: int
    last: Place
    over: Sequence[str]


def look_at_grants(
    connection: Connection, *, after: Place, until: int, now: int, limit: int
) -> Ended | None:
    """Look at the next `limit` grants whose windows have ended; None when there are none.

    A grant may go when its window ended and it was revoked (if it was) at `until` or earlier,
    when the AccessGrant that it stands for (if it does) is gone, and when every certificate that
    was issued with it has ended by `now`: until then, its redemptions are the record of what
    could have to be revoked.
    """
    latest = (
        select(redemptions.c.not_after)
        .where(redemptions.c.grant_id == grants.c.id)
        .order_by(redemptions.c.ordinal.desc())
        .limit(1)
        .scalar_subquery()
    )
    # Of a million certificates the latest is most likely to be valid still, so it is asked first.
    valid = case(
        (latest > now, 1),
        (exists().where(redemptions.c.grant_id == grants.c.id, redemptions.c.not_after > now), 1),
        (exists().where(redemptions.c.grant_id == grants.c.id, _renewed(now)), 1),
        else_=0,
    )
    behind = tuple_(grants.c.expires_at, grants.c.id) > tuple_(
        literal(after.expires_at, BigInteger), literal(after.grant_id, String)
    )
    stays = case((_ended(until), valid), else_=1).label("stays")
    rows = connection.execute(
        select(grants.c.id, grants.c.expires_at, stays)
        .where(grants.c.expires_at <= until, behind)
        .order_by(grants.c.expires_at, grants.c.id)
        .limit(limit)
    ).all()
    if not rows:
        return None
    return Ended(
        rows=len(rows),
        last=Place(rows[-1].expires_at, rows[-1].id),
        over=[row.id for row in rows if not row.stays],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was deleted; until `complete`, the same grants have more rows than were allowed."""

    grants: int
    redemptions: int
    complete: bool
    renewals: int = 0


def forget_grants(
    connection: Connection, grant_ids: Sequence[str], *, until: int, now: int, limit: int
) -> Forgotten:
    """Delete grants that may go, with all that belongs to them: up to `limit` such rows at first.

    A grant may have a million redemptions, so it goes itself when few are left.
    """
    # Locked here, they are ours until the transaction ends. Since they were looked at, somebody
    # may have revoked one of them, or redeemed it: a claim that came in time is spent later.
    held = connection.scalars(
        select(grants.c.id)
        .where(grants.c.id.in_(grant_ids), _ended(until))
        .with_for_update(skip_locked=True)
    ).all()
    certified = select(redemptions.c.grant_id).where(
        redemptions.c.grant_id.in_(held), or_(redemptions.c.not_after > now, _renewed(now))
    )
    valid = set(connection.scalars(certified.distinct()))
    held = [one for one in held if one not in valid]
    # A redemption takes its renewals along, and may have had many.
    renewed = _forget_renewals(connection, held, limit)
    if renewed >= limit:
        return Forgotten(grants=0, redemptions=0, complete=False, renewals=renewed)
    limit -= renewed
    # The first redemption first: where it is there, all of them are.
    gone = _forget_some(connection, redemptions, redemptions.c.ordinal, held, limit)
    if gone < limit:
        others = _forget_some(connection, suspicions, suspicions.c.id, held, limit - gone)
        if gone + others < limit:
            done = connection.execute(delete(grants).where(grants.c.id.in_(held))).rowcount
            return Forgotten(grants=done, redemptions=gone, complete=True, renewals=renewed)
    return Forgotten(grants=0, redemptions=gone, complete=False, renewals=renewed)


def forget_authorities(connection: Connection, *, now: int, limit: int, dry: bool) -> int:
    """Delete authorities of issuer Secrets that are needed no more; tells how many.

    Their keys were deleted a while ago. The newest one stays: on SQLite its number would be given
    to another, and what processes keep in memory is kept under it. When `dry`, they are counted.
    """
    generation = authorities.alias("generation")
    over = (
        select(authorities.c.id)
        .where(authorities.c.origin.is_not(None), authorities.c.fingerprint != "")
        .where(func.length(authorities.c.sealed_key) == 0, authorities.c.due_at <= now)
        .where(authorities.c.id < select(func.max(generation.c.id)).scalar_subquery())
        .where(
            ~exists().where(sites.c.issuer_id == authorities.c.id),
            ~exists().where(grants.c.issuer_id == authorities.c.id),
            ~exists().where(server_certificates.c.authority_id == authorities.c.id),
            ~exists().where(generation.c.family == authorities.c.id),
        )
        .order_by(authorities.c.id)
        .limit(limit)
    )
    if dry:
        return len(connection.execute(over).all())
    gone = list(connection.scalars(over.with_for_update(skip_locked=True)))
    return connection.execute(delete(authorities).where(authorities.c.id.in_(gone))).rowcount


def count_redemptions(connection: Connection, grant_ids: Sequence[str]) -> int:
    """Count the redemptions of some grants."""
    query = select(func.count()).where(redemptions.c.grant_id.in_(grant_ids))
    return connection.execute(query).scalar_one()


def _forget_some(
    connection: Connection,
    table: Table,
    order: Column[int],
    grant_ids: Sequence[str],
    limit: int,
) -> int:
    some = (
        select(table.c.id)
        .where(table.c.grant_id.in_(grant_ids))
        .order_by(table.c.grant_id, order)
        .limit(limit)
    )
    return connection.execute(delete(table).where(table.c.id.in_(some))).rowcount


def _renewed(now: int) -> ColumnElement[bool]:
    """Say that a certificate that follows the redemption's own has not ended."""
    return exists().where(renewals.c.redemption_id == redemptions.c.id, renewals.c.not_after > now)


def _forget_renewals(connection: Connection, grant_ids: Sequence[str], limit: int) -> int:
    some = (
        select(renewals.c.id)
        .join(redemptions, renewals.c.redemption_id == redemptions.c.id)
        .where(redemptions.c.grant_id.in_(grant_ids))
        .limit(limit)
    )
    return connection.execute(delete(renewals).where(renewals.c.id.in_(some))).rowcount


def _ended(until: int) -> ColumnElement[Any]:
    # Of a resource that is still there the grant stays, or it would be made again at once.
    has_resource = exists().where(
        access_grants.c.grant_id == grants.c.id, func.length(access_grants.c.sealed_code) > 0
    )
    return and_(
        grants.c.expires_at <= until,
        or_(grants.c.revoked_at.is_(None), grants.c.revoked_at <= until),
        ~has_resource,
    )
