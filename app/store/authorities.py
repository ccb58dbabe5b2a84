"""Rows of authorities and of the server's certificates. The caller holds the transaction."""

from collections.abc import Sequence

from sqlalchemy import Connection, Row, func, insert, select

from app.domain.authorities import Authority, Purpose, ServerCertificate
from app.store.schema import authorities, server_certificates


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


def of_server(connection: Connection) -> Authority | None:
    """The one authority that signs our own HTTPS certificate."""
    row = connection.execute(
        select(authorities).where(authorities.c.purpose == Purpose.SERVER.value)
    ).first()
    return None if row is None else _authority(row)


def soonest_expiry(connection: Connection) -> int | None:
    """When the first of the site authorities ends, in UTC seconds; None when there is none.

    One that cannot sign any more does not count.
    """
    return connection.execute(
        select(func.min(authorities.c.not_after)).where(
            authorities.c.purpose == Purpose.SITE.value,
            func.length(authorities.c.sealed_key) > 0,
        )
    ).scalar()


def add_server_certificate(
    connection: Connection, certificate: ServerCertificate, authority_id: int
) -> None:
    """Insert a certificate of the HTTPS listener; the newest one is the current one."""
    connection.execute(
        insert(server_certificates).values(
            authority_id=authority_id,
            certificate_pem=certificate.certificate_pem,
            sealed_key=certificate.sealed_key,
            fingerprint=certificate.fingerprint,
            not_after=certificate.not_after,
            created_at=certificate.created_at,
        )
    )


def current_server_certificate(connection: Connection) -> ServerCertificate | None:
    """The newest certificate of the HTTPS listener."""
    row = connection.execute(
        select(server_certificates).order_by(server_certificates.c.id.desc()).limit(1)
    ).first()
    if row is None:
        return None
    return ServerCertificate(
        certificate_pem=row.certificate_pem,
        sealed_key=row.sealed_key,
        fingerprint=row.fingerprint,
        not_after=row.not_after,
        created_at=row.created_at,
    )


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
    )
