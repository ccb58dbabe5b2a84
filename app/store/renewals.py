"""Rows of certificates that were given out: renewed, superseded, revoked, listed as revoked.

The first of a redemption is in the redemption's own row. The caller holds the transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    union_all,
    update,
)

from app.domain.renewals import Follower, Given
from app.store.schema import access_grants, grants, redemptions, renewals, sites


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """What was issued already for the same certificate and the same new key."""

    given: Given
    certificate_pem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A certificate that a revocation list has to name, since when (UTC seconds), and why."""

    serial: str
    at: int
    superseded: bool


def by_serial(connection: Connection, serial: str) -> Given | None:
    """The certificate of this serial, whether a redemption or a renewal gave it."""
    for query in (_FIRST_BY_SERIAL, _FOLLOWER_BY_SERIAL):
        row = connection.execute(query, {"of_serial": serial}).first()
        if row is not None:
            return given(row)
    return None


def issued_already(connection: Connection, replaces: str, key_hash: bytes) -> Repeat | None:
    """What has taken the place of the certificate of this serial for this very key."""
    row = connection.execute(_ALREADY, {"of_serial": replaces, "of_key": key_hash}).first()
    return None if row is None else Repeat(given=given(row), certificate_pem=row.certificate_pem)


def newest(connection: Connection, redemption_id: int, limit: int) -> Sequence[int]:
    """When the newest renewals of a redemption were made (UTC seconds), the newest first."""
    query = (
        select(renewals.c.issued_at)
        .where(renewals.c.redemption_id == redemption_id)
        .order_by(renewals.c.issued_at.desc())
        .limit(limit)
    )
    return connection.scalars(query).all()


def of_grant(connection: Connection, grant_id: str) -> Sequence[Given]:
    """All certificates of a grant that are kept: by redemption, then as they followed."""
    found = [
        given(row)
        for query in (first(), followers())
        for row in connection.execute(query.where(redemptions.c.grant_id == grant_id))
    ]
    # Within one redemption the first is the one that replaces nothing.
    return sorted(found, key=lambda one: (one.ordinal, one.replaces is not None, one.issued_at))


def add(connection: Connection, follower: Follower, *, until: int) -> None:
    """Insert it; all others of its redemption stop counting at `until` (UTC seconds) at the latest.

    Conflicts when the same was issued already.
    """
    for table, owner in _TABLES:
        connection.execute(
            update(table)
            .where(
                owner == follower.redemption_id,
                table.c.not_after >= follower.issued_at,
                or_(table.c.superseded_at.is_(None), table.c.superseded_at > until),
            )
            .values(superseded_at=until)
        )
    connection.execute(
        insert(renewals).values(
            redemption_id=follower.redemption_id,
            replaces=follower.replaces,
            key_hash=follower.key_hash,
            certificate_pem=follower.certificate_pem,
            serial=follower.serial,
            fingerprint=follower.fingerprint,
            issuer_id=follower.issuer_id,
            issued_at=follower.issued_at,
            not_after=follower.not_after,
        )
    )


def revoke(
    connection: Connection, grant_id: str, now: int, *, ordinal: int | None = None
) -> int | None:
    """Mark the certificates of a grant, or of one of its redemptions, as revoked.

    Tells how many were not marked before; None when there is no such redemption.
    """
    which = redemptions.c.grant_id == grant_id
    if ordinal is not None:
        which &= redemptions.c.ordinal == ordinal
        if connection.execute(select(redemptions.c.id).where(which)).first() is None:
            return None
    of_these = select(redemptions.c.id).where(which)
    marked = 0
    for table, owner in _TABLES:
        marked += connection.execute(
            update(table)
            .where(owner.in_(of_these), table.c.revoked_at.is_(None))
            .values(revoked_at=now)
        ).rowcount
    return marked


def listed(
    connection: Connection, *, issuer_id: int, family: Sequence[int], now: int
) -> Sequence[Listed]:
    """What the revocation list of an authority has to name, in the order of the serials.

    Those that have not ended (until a day ago) and were revoked or superseded by `now`. Of the
    oldest nobody knows which generation of an authority signed them: they are named if the
    `family` signs for their grants.
    """
    signs = func.coalesce(grants.c.issuer_id, sites.c.issuer_id)
    unknown = and_(redemptions.c.issuer_id.is_(None), signs.in_(family))
    parts: list[Select[Any]] = []
    for table in (redemptions, renewals):
        theirs: ColumnElement[bool] = table.c.issuer_id == issuer_id
        columns = (table.c.serial, table.c.revoked_at, table.c.superseded_at)
        base = select(*columns).where(table.c.not_after >= now - _LISTED_ON_SECONDS)
        if table is redemptions:
            theirs = or_(theirs, unknown)
            base = base.join(grants, redemptions.c.grant_id == grants.c.id)
            base = base.join(sites, grants.c.site_id == sites.c.id)
        base = base.where(theirs)
        # One query for each index, so that nothing else is read.
        parts.append(base.where(table.c.revoked_at.is_not(None)))
        parts.append(
            base.where(
                table.c.superseded_at.is_not(None),
                table.c.superseded_at <= now,
                table.c.revoked_at.is_(None),
            )
        )
    found = [
        Listed(
            serial=serial,
            at=superseded_at if revoked_at is None else revoked_at,
            superseded=revoked_at is None,
        )
        for serial, revoked_at, superseded_at in connection.execute(union_all(*parts))
    ]
    return sorted(found, key=lambda one: one.serial)


_LISTED_ON_SECONDS: Final = 24 * 3600
"""What has ended is named once more (RFC 5280, section 3.3), by lists that are good for a day."""

_TABLES: Final = ((redemptions, redemptions.c.id), (renewals, renewals.c.redemption_id))


def _withdrawn(table: Table) -> ColumnElement[Any]:
    """When it was revoked, or its grant was; null while it stands.

    A grant whose AccessGrant is gone is closed as well, and that alone does not end its links.
    """
    tidied_up = func.coalesce(func.length(access_grants.c.sealed_code), 1) == 0
    closed = case((tidied_up, null()), else_=grants.c.revoked_at)
    return func.coalesce(table.c.revoked_at, closed).label("withdrawn_at")


def _certificate(table: Table, *further: ColumnElement[Any]) -> Select[Any]:
    return (
        select(
            redemptions.c.id.label("redemption_id"),
            redemptions.c.grant_id,
            redemptions.c.ordinal,
            redemptions.c.name,
            redemptions.c.subject,
            table.c.serial,
            table.c.fingerprint,
            table.c.not_after,
            table.c.issuer_id,
            table.c.superseded_at,
            _withdrawn(table),
            *further,
        )
        .select_from(redemptions)
        .join(grants, redemptions.c.grant_id == grants.c.id)
        .outerjoin(access_grants, access_grants.c.grant_id == grants.c.id)
    )


def first() -> Select[Any]:
    """Ask for certificates that a redemption gave; `given` reads the rows."""
    nothing = literal(None, redemptions.c.serial.type).label("replaces")
    return _certificate(redemptions, redemptions.c.redeemed_at.label("issued_at"), nothing)


def followers() -> Select[Any]:
    """Ask for certificates that took the place of others, in the same form."""
    columns = (renewals.c.issued_at, renewals.c.replaces, renewals.c.certificate_pem)
    return _certificate(renewals, *columns).join(
        renewals, renewals.c.redemption_id == redemptions.c.id
    )


# Built once: that takes longer than what the database does with them.
_FIRST_BY_SERIAL: Final = first().where(redemptions.c.serial == bindparam("of_serial"))
_FOLLOWER_BY_SERIAL: Final = followers().where(renewals.c.serial == bindparam("of_serial"))
_ALREADY: Final = followers().where(
    renewals.c.replaces == bindparam("of_serial"), renewals.c.key_hash == bindparam("of_key")
)


def given(row: Row[Any]) -> Given:
    """Read a row of `first` or `followers`."""
    return Given(
        redemption_id=row.redemption_id,
        grant_id=row.grant_id,
        ordinal=row.ordinal,
        name=row.name,
        subject=row.subject,
        serial=row.serial,
        fingerprint=row.fingerprint,
        issued_at=row.issued_at,
        not_after=row.not_after,
        issuer_id=row.issuer_id,
        replaces=row.replaces,
        superseded_at=row.superseded_at,
        revoked_at=row.withdrawn_at,
    )
