"""How we are reached: the CA that tokens carry, and the certificate of the HTTPS listener."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.crypto import keys, server_certificates
from app.crypto.facts import facts
from app.crypto.leaves import SERIAL_BYTES
from app.crypto.sealing import NONCE_BYTES, Keyring
from app.domain.audit import Act, Entry
from app.domain.authorities import Authority, ServerCertificate
from app.domain.certificates import KeyType
from app.domain.reach import Reach
from app.errors import Missing
from app.services.authorities import SERVER_AUTHORITY, open_issuer
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store.engine import Database

LIFETIME_SECONDS: Final = 365 * 24 * 3600
RENEWED_BEFORE_SECONDS: Final = LIFETIME_SECONDS // 3  # two thirds of its life have passed


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMaterial:
    """The HTTPS listener's certificate and key, PEM."""

    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    not_after: int


def current(database: Database, base_url: str) -> Reach:
    """What a token has to carry to reach us at `base_url`."""
    with database.reading() as connection:
        authority = authority_rows.of_server(connection)
    if authority is None:
        raise Missing("authority", SERVER_AUTHORITY)
    return Reach(url=base_url, ca_pem=authority.certificate_pem)


def server_material(
    database: Database,
    keyring: Keyring,
    *,
    hosts: Sequence[str],
    now: int,
    random_bytes: Callable[[int], bytes],
) -> ServerMaterial:
    """The listener's certificate for all of `hosts`: the kept one while it serves, else a new one.

    A new one is made when there is none, when a host is not in it, or when two thirds of its
    life have passed. Raises Unready(ISSUER) when the server's own CA cannot sign.
    """
    with database.reading() as connection:
        kept = authority_rows.current_server_certificate(connection)
        authority = authority_rows.of_server(connection)
    if kept is not None and _serves(kept, hosts, now):
        key_pem = open_server_key(kept, keyring)
        return ServerMaterial(
            certificate_pem=kept.certificate_pem.encode(),
            key_pem=key_pem,
            not_after=kept.not_after,
        )
    if authority is None:
        raise Missing("authority", SERVER_AUTHORITY)
    return _issue(database, keyring, authority, hosts=hosts, now=now, random_bytes=random_bytes)


def open_server_key(certificate: ServerCertificate, keyring: Keyring) -> bytes:
    """The private key (PEM) of a listener's certificate.

    Raises Misconfigured when the key file lacks the key that it is sealed under, Broken when what
    is sealed was altered.
    """
    return keyring.open(certificate.sealed_key, purpose=_purpose(certificate.fingerprint))


def _serves(kept: ServerCertificate, hosts: Sequence[str], now: int) -> bool:
    missing = server_certificates.missing_hosts(kept.certificate_pem.encode(), hosts)
    return not missing and kept.not_after - now > RENEWED_BEFORE_SECONDS


def _issue(
    database: Database,
    keyring: Keyring,
    authority: Authority,
    *,
    hosts: Sequence[str],
    now: int,
    random_bytes: Callable[[int], bytes],
) -> ServerMaterial:
    key = keys.generate(KeyType.P256)
    certificate_pem = server_certificates.create_server_certificate(
        open_issuer(authority, keyring),
        hosts=hosts,
        key=key,
        serial_random=random_bytes(SERIAL_BYTES),
        now=now,
        lifetime_seconds=LIFETIME_SECONDS,
    )
    key_pem = keys.to_pem(key)
    made = facts(certificate_pem)
    certificate = ServerCertificate(
        certificate_pem=certificate_pem.decode(),
        sealed_key=keyring.seal(
            key_pem, purpose=_purpose(made.fingerprint), random=random_bytes(NONCE_BYTES)
        ),
        fingerprint=made.fingerprint,
        not_after=made.not_after,
        created_at=now,
    )
    with database.writing() as connection:
        authority_rows.add_server_certificate(connection, certificate, authority.id)
        audit_rows.add(
            connection,
            Entry(
                at=now,
                act=Act.SERVER_CERTIFICATE_ISSUED,
                actor="server",
                target="server/certificate",
                details={
                    "hosts": ", ".join(hosts),
                    "fingerprint": made.fingerprint,
                    "not_after": made.not_after,
                },
            ),
        )
    return ServerMaterial(
        certificate_pem=certificate_pem, key_pem=key_pem, not_after=made.not_after
    )


def _purpose(fingerprint: str) -> str:
    return f"server-key/{fingerprint}"
