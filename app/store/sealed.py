"""Everything that is sealed under the sealing keys, for whoever tries whether they open it."""

from collections.abc import Sequence

from sqlalchemy import Column, Connection, func, select

from app.store import schema
from app.store.schema import access_grants, authorities, server_certificates, webhooks

Sealed = Sequence[tuple[str, bytes]]
"""Each after what it belongs to."""


def authority_keys(connection: Connection) -> Sealed:
    """Give the keys of authorities by fingerprint, without those that were erased."""
    return _sealed(connection, authorities.c.fingerprint, authorities.c.sealed_key)


def server_keys(connection: Connection) -> Sealed:
    """Give the keys of the listener's certificates by fingerprint."""
    kept = server_certificates.c
    return _sealed(connection, kept.fingerprint, kept.sealed_key)


def codes(connection: Connection) -> Sealed:
    """Give the codes of AccessGrants by the id of the grant."""
    return _sealed(connection, access_grants.c.grant_id, access_grants.c.sealed_code)


def creations(connection: Connection) -> Sealed:
    """Give the kept answers of creations by the hash of what was asked, in hexadecimal."""
    kept = schema.creations.c
    query = select(kept.asked, kept.sealed).order_by(kept.id)
    return [(asked.hex(), found) for asked, found in connection.execute(query)]


def webhook_secrets(connection: Connection) -> Sealed:
    """Give the secrets of webhooks by the id of the webhook."""
    return _sealed(connection, webhooks.c.id, webhooks.c.sealed_secret)


def _sealed(connection: Connection, of: Column[str], value: Column[bytes]) -> Sealed:
    query = select(of, value).where(func.length(value) > 0).order_by(of)
    return [(owner, found) for owner, found in connection.execute(query)]
