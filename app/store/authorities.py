"""Rows of authorities and of the server's certificates. The caller holds the transaction."""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from app.domain.authorities import Authority, Purpose, ServerCertificate, State
from app.errors import Broken
from app.store.schema import (
    access_grants,
    authorities,
    grants,
    redemptions,
    renewals,
    server_certificates,
    sites,
)

_STALE: Final = ""  # in place of a fingerprint, while a row is on its way out
_CERTIFICATES_KEPT: Final = 100  # of the listener, for what they say of the past


def add(connection: Connection, authority: Authority) -> int:
    """Insert it (its `id` is ignored) and return its id; a taken name or certificate conflicts."""
    added = connection.execute(
        insert(authorities)
        .values(
            name=authority.name,
            purpose=authority.purpose.value,
            certificate_pem=authority.certificate_pem,
            sealed_key=authority.sealed_key,
            fingerprint=authority.fingerprint,
            not_before=authority.not_before,
            not_after=authority.not_after,
            imported=int(authority.imported),
            created_at=authority.created_at,
            origin=authority.origin,
            state=authority.state.value,
            since=authority.since,
            due_at=authority.due_at,
            family=authority.family,
            cross_pem=authority.cross_pem,
            back_pem=authority.back_pem,
        )
        .returning(authorities.c.id)
    )
    return int(added.scalar_one())


def every(connection: Connection) -> Sequence[Authority]:
    """All authorities, in the order of their names, but for the one without a certificate."""
    rows = connection.execute(
        select(authorities).where(authorities.c.fingerprint != "").order_by(authorities.c.name)
    )
    return [_authority(row) for row in rows]


def in_rotation(connection: Connection) -> Sequence[int]:
    """The ids of those authorities whose lives have a next step, in their order."""
    states = (State.PREPARED.value, State.RETIRED.value)
    query = select(authorities.c.id).where(authorities.c.state.in_(states))
    return connection.scalars(query.order_by(authorities.c.id)).all()


def by_name(connection: Connection, name: str) -> Authority | None:
    """The authority of this name; the one without a certificate is nobody's to find."""
    row = connection.execute(
        select(authorities).where(authorities.c.name == name, authorities.c.fingerprint != "")
    ).first()
    return None if row is None else _authority(row)


def by_id(connection: Connection, authority_id: int) -> Authority | None:
    """The authority of this id."""
    row = connection.execute(select(authorities).where(authorities.c.id == authority_id)).first()
    return None if row is None else _authority(row)


def family(connection: Connection, root: int) -> Sequence[Authority]:
    """All generations of an authority, the first one first; `root` is that one's id."""
    rows = connection.execute(
        select(authorities)
        .where(or_(authorities.c.id == root, authorities.c.family == root))
        .order_by(authorities.c.id)
    )
    return [_authority(row) for row in rows]


def of_server(connection: Connection) -> Authority | None:
    """The one authority that signs for our own HTTPS listener now."""
    row = connection.execute(
        select(authorities).where(
            authorities.c.purpose == Purpose.SERVER.value,
            authorities.c.state == State.ACTIVE.value,
        )
    ).first()
    return None if row is None else _authority(row)


def server_family(connection: Connection) -> Sequence[Authority]:
    """All generations of the authority that signs for our own listener, the first one first."""
    rows = connection.execute(
        select(authorities)
        .where(authorities.c.purpose == Purpose.SERVER.value)
        .order_by(authorities.c.id)
    )
    return [_authority(row) for row in rows]


def change(connection: Connection, authority: Authority) -> None:
    """Write what a step of its life changes: name, state and its times, key, cross certificates.

    Conflicts when its name is taken, and when there were two that sign for the server.
    """
    changed = connection.execute(
        update(authorities)
        .where(authorities.c.id == authority.id)
        .values(
            name=authority.name,
            state=authority.state.value,
            since=authority.since,
            due_at=authority.due_at,
            sealed_key=authority.sealed_key,
            cross_pem=authority.cross_pem,
            back_pem=authority.back_pem,
        )
    )
    if changed.rowcount != 1:
        raise Broken("an authority is gone while it is being changed")


def hand_over(connection: Connection, old: int, new: int) -> None:
    """Let all sites and grants that lead to authority `old` lead to `new`."""
    for table in (sites, grants):
        connection.execute(update(table).where(table.c.issuer_id == old).values(issuer_id=new))


def tell_sites(connection: Connection, ids: Sequence[int]) -> None:
    """Have everybody read again what is kept in memory of sites that these authorities sign for.

    Those are the sites that lead to one of them, and those of whose grants one does.
    """
    leading = select(grants.c.site_id).where(grants.c.issuer_id.in_(ids))
    connection.execute(
        update(sites)
        .where(or_(sites.c.issuer_id.in_(ids), sites.c.id.in_(leading)))
        .values(revision=sites.c.revision + 1)
    )


def tokens_may_come(
    connection: Connection, *, made_until: int, now: int, retry_seconds: int
) -> bool:
    """Tell whether anybody may come yet with a token made at `made_until` (UTC seconds) or before.

    That is who could redeem it, and who did in the last `retry_seconds`, and may ask again. One of
    an AccessGrant that is used up counts too, as long as its window lasts: more may be allowed.
    """
    lately = exists().where(
        redemptions.c.grant_id == grants.c.id,
        redemptions.c.ordinal == grants.c.spent,
        redemptions.c.redeemed_at > now - retry_seconds,
    )
    redeemable = (grants.c.expires_at > now) & _may_be_redeemed()
    found = connection.execute(
        select(grants.c.id)
        .where(
            grants.c.expires_at > now - retry_seconds,
            grants.c.created_at <= made_until,
            grants.c.revoked_at.is_(None),
            or_(redeemable, lately),
        )
        .limit(1)
    )
    return found.first() is not None


def last_token_ends(connection: Connection, *, now: int) -> int | None:
    """When the last window ends, in UTC seconds, of the grants that may be redeemed after `now`."""
    return connection.execute(
        select(func.max(grants.c.expires_at)).where(
            grants.c.expires_at > now, grants.c.revoked_at.is_(None), _may_be_redeemed()
        )
    ).scalar()


def _may_be_redeemed() -> ColumnElement[bool]:
    """Within its window: something is left of it, or its AccessGrant may come to allow more."""
    asked_for = exists().where(access_grants.c.grant_id == grants.c.id)
    return or_(grants.c.spent < grants.c.allowed, asked_for)


def last_certificate_ends(connection: Connection, *, made_until: int, now: int) -> int | None:
    """When the last certificate ends, in UTC seconds, of those given out at `made_until` or before.

    Those of redemptions and of renewals. None when all of them have ended at `now`. Whose authority
    signed them is not looked at, since it is not known of the oldest. This reads tables from end to
    end: it is for times when nobody waits for it.
    """
    ends = [
        connection.execute(
            select(func.max(table.c.not_after)).where(
                made_at <= made_until, table.c.not_after >= now
            )
        ).scalar()
        for table, made_at in (
            (redemptions, redemptions.c.redeemed_at),
            (renewals, renewals.c.issued_at),
        )
    ]
    return max((end for end in ends if end is not None), default=None)


def soonest_expiry(connection: Connection) -> int | None:
    """When the first of the site authorities ends, in UTC seconds; None when there is none.

    One that does not sign, or cannot any more, does not count.
    """
    return connection.execute(
        select(func.min(authorities.c.not_after)).where(
            authorities.c.purpose == Purpose.SITE.value,
            authorities.c.state == State.ACTIVE.value,
            func.length(authorities.c.sealed_key) > 0,
        )
    ).scalar()


def add_server_certificate(
    connection: Connection, certificate: ServerCertificate, *, keep: Collection[str] = ()
) -> None:
    """Make it the current certificate of the HTTPS listener, whether it was that before or not.

    Of those before it that have its origin the keys are erased, which nobody needs any more, but
    for those with a fingerprint in `keep`; and in the end the rows. Those of another origin are
    what other replicas serve, while settings are being changed.
    """
    table = server_certificates
    # It may have a row already, which makes way only once there is a newer one: a number that is
    # used again would look as if nothing had changed.
    connection.execute(
        update(table)
        .where(table.c.fingerprint == certificate.fingerprint)
        .values(fingerprint=_STALE)
    )
    added = connection.execute(
        insert(table)
        .values(
            authority_id=certificate.authority_id,
            certificate_pem=certificate.certificate_pem,
            sealed_key=certificate.sealed_key,
            fingerprint=certificate.fingerprint,
            not_after=certificate.not_after,
            created_at=certificate.created_at,
            origin=certificate.origin,
            ca_pem=certificate.ca_pem,
        )
        .returning(table.c.id)
    ).scalar_one()
    connection.execute(
        delete(table).where(
            or_(table.c.fingerprint == _STALE, table.c.id <= added - _CERTIFICATES_KEPT)
        )
    )
    connection.execute(
        update(table)
        .where(
            table.c.id != added,
            table.c.origin == certificate.origin,
            table.c.fingerprint.not_in(keep),
        )
        .values(sealed_key=b"")
    )


def current_server_certificate(
    connection: Connection, origin: str | None = None
) -> ServerCertificate | None:
    """The newest certificate of the HTTPS listener; with an `origin`, of those of that one.

    What has no key any more is not current for anybody.
    """
    newest = latest_server_certificates(connection, 1, origin)
    return next((one for one in newest if one.sealed_key), None)


def latest_server_certificates(
    connection: Connection, limit: int, origin: str | None = None
) -> Sequence[ServerCertificate]:
    """The newest certificates of the listener, the current one first; with an `origin`, of that."""
    query = select(server_certificates).order_by(server_certificates.c.id.desc()).limit(limit)
    if origin is not None:
        query = query.where(server_certificates.c.origin == origin)
    rows = connection.execute(query)
    return [
        ServerCertificate(
            certificate_pem=row.certificate_pem,
            sealed_key=row.sealed_key,
            fingerprint=row.fingerprint,
            not_after=row.not_after,
            created_at=row.created_at,
            origin=row.origin,
            ca_pem=row.ca_pem,
            authority_id=row.authority_id,
        )
        for row in rows
    ]


def _authority(row: Row[tuple[object, ...]]) -> Authority:
    return Authority(
        id=row.id,
        name=row.name,
        purpose=Purpose(row.purpose),
        certificate_pem=row.certificate_pem,
        sealed_key=row.sealed_key,
        fingerprint=row.fingerprint,
        not_before=row.not_before,
        not_after=row.not_after,
        imported=bool(row.imported),
        created_at=row.created_at,
        origin=row.origin,
        state=State(row.state),
        since=row.since,
        due_at=row.due_at,
        family=row.family,
        cross_pem=row.cross_pem,
        back_pem=row.back_pem,
    )
