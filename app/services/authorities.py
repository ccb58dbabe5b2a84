"""Authorities that we keep: made, imported, opened for signing, shown, exported.

One generation of each; how another takes its place is `rotation`'s.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from app.crypto import issuers, keys
from app.crypto.facts import facts
from app.crypto.issuers import Issuer
from app.crypto.leaves import SERIAL_BYTES, serial_number
from app.crypto.sealing import NONCE_BYTES, Keyring
from app.domain.audit import Act, Entry
from app.domain.authorities import Authority, Purpose
from app.domain.certificates import CertificateFacts, KeyType
from app.domain.names import check_name
from app.errors import Conflict, GrantServerError, Invalid, Lack, Missing, Unready
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store.engine import Database

DEFAULT_SITE_AUTHORITY: Final = "site-ca"
SERVER_AUTHORITY: Final = "server-ca"
DEFAULT_LIFETIME_SECONDS: Final = 10 * 365 * 24 * 3600
_BACKDATE_SECONDS: Final = 300  # peers whose clocks are a little behind accept it at once


def ensure_defaults(
    database: Database,
    keyring: Keyring,
    *,
    now: int,
    random_bytes: Callable[[int], bytes],
) -> None:
    """Make the first site authority and the server's own CA, where they are missing.

    Two processes may do this at once: whoever comes second finds that it is done.
    """
    with database.reading() as connection:
        known = authority_rows.every(connection)
    missing = []
    if not any(authority.purpose is Purpose.SERVER for authority in known):
        missing.append((SERVER_AUTHORITY, Purpose.SERVER))
    if not any(one.purpose is Purpose.SITE and one.origin is None for one in known):
        missing.append((DEFAULT_SITE_AUTHORITY, Purpose.SITE))
    for name, purpose in missing:
        try:
            create(
                database,
                keyring,
                name=name,
                purpose=purpose,
                actor="server",
                now=now,
                random_bytes=random_bytes,
            )
        except Conflict:
            with database.reading() as connection:
                if authority_rows.by_name(connection, name) is None:
                    raise


def create(
    database: Database,
    keyring: Keyring,
    *,
    name: str,
    purpose: Purpose = Purpose.SITE,
    key_type: KeyType = KeyType.P256,
    lifetime_seconds: int = DEFAULT_LIFETIME_SECONDS,
    actor: str,
    now: int,
    random_bytes: Callable[[int], bytes],
) -> Authority:
    """Make a self-signed authority and keep it, its key sealed.

    Raises Invalid for a bad name, Conflict when there is one of this name.
    """
    check_name("name", name)
    made, _ = make(
        keyring,
        name=name,
        purpose=purpose,
        key_type=key_type,
        lifetime_seconds=lifetime_seconds,
        now=now,
        random_bytes=random_bytes,
    )
    return _keep(database, made, act=Act.AUTHORITY_CREATED, actor=actor)


def make(
    keyring: Keyring,
    *,
    name: str,
    purpose: Purpose,
    key_type: KeyType,
    lifetime_seconds: int,
    now: int,
    random_bytes: Callable[[int], bytes],
) -> tuple[Authority, Issuer]:
    """Make a self-signed authority, its key sealed, without keeping it anywhere."""
    key = keys.generate(key_type)
    certificate_pem = issuers.create_authority(
        common_name=name,
        key=key,
        serial=serial_number(random_bytes(SERIAL_BYTES), now),
        not_before=now - _BACKDATE_SECONDS,
        not_after=now + lifetime_seconds,
        # Tokens that are out are redeemed by way of the certificate of the one that comes next.
        leaves_only=purpose is not Purpose.SERVER,
    )
    issuer = issuers.load_issuer(certificate_pem, keys.to_pem(key))
    made = _authority(name, purpose, issuer, keyring, imported=False, now=now, random=random_bytes)
    return made, issuer


def import_authority(
    database: Database,
    keyring: Keyring,
    *,
    name: str,
    certificate_pem: bytes,
    key_pem: bytes,
    actor: str,
    now: int,
    random_bytes: Callable[[int], bytes],
) -> Authority:
    """Keep a site authority that exists already, with its intermediate chain if it has one.

    The key may be PKCS#1, SEC1 or PKCS#8. Raises Invalid("certificate" or "key", …) when they
    do not belong together or are no CA, Conflict when it is kept already.
    """
    check_name("name", name)
    try:
        certificate_pem.decode()  # it is kept as it is, with the text around the certificates
    except UnicodeDecodeError as error:
        raise Invalid("certificate", "the text around the certificates is not UTF-8") from error
    issuer = issuers.load_issuer(certificate_pem, key_pem)
    return _keep(
        database,
        _authority(
            name, Purpose.SITE, issuer, keyring, imported=True, now=now, random=random_bytes
        ),
        act=Act.AUTHORITY_IMPORTED,
        actor=actor,
    )


def every(database: Database) -> Sequence[Authority]:
    """All authorities, by name."""
    with database.reading() as connection:
        return authority_rows.every(connection)


def show(database: Database, name: str) -> tuple[Authority, CertificateFacts]:
    """One authority and the facts of its certificate. Raises Missing."""
    with database.reading() as connection:
        authority = authority_rows.by_name(connection, name)
    if authority is None:
        raise Missing("authority", name)
    return authority, facts(authority.certificate_pem.encode())


def with_generations(database: Database, name: str) -> Sequence[Authority]:
    """All generations of the authority of this name, the first one first. Raises Missing."""
    with database.reading() as connection:
        authority = authority_rows.by_name(connection, name)
        if authority is None:
            raise Missing("authority", name)
        return authority_rows.family(connection, authority.root)


def fingerprint(authority: Authority) -> str:
    """The SHA-256 of the certificate that signs, in lower-case hexadecimal."""
    if authority.origin is None:
        return authority.fingerprint
    return facts(authority.certificate_pem.encode()).fingerprint


def export_key(database: Database, keyring: Keyring, name: str, *, actor: str, now: int) -> bytes:
    """The private key of an authority as PKCS#1 (RSA) or SEC1 (EC) PEM, unencrypted.

    For handing a site authority to Skupper, whose controller reads PKCS#1 only. That it left is
    written down first. Raises Missing, and Unready(ISSUER) when the key cannot be opened.
    """
    authority, _ = show(database, name)
    key_pem = keys.to_traditional_pem(open_issuer(authority, keyring).key)
    with database.writing() as connection:
        audit_rows.add(
            connection,
            Entry(
                at=now,
                act=Act.AUTHORITY_KEY_EXPORTED,
                actor=actor,
                target=f"authority/{name}",
                details={"fingerprint": fingerprint(authority)},
            ),
        )
    return key_pem


def open_issuer(authority: Authority, keyring: Keyring) -> Issuer:
    """Open an authority for signing. Raises Unready(ISSUER) when its key cannot be opened."""
    if not authority.sealed_key:
        why = "it was erased" if authority.origin is None else "there is no Secret"
        raise Unready(Lack.ISSUER, f"authority {authority.name} has no key: {why}")
    try:
        key_pem = keyring.open(authority.sealed_key, purpose=key_purpose(authority.fingerprint))
        # Whatever we have sealed was checked when it came.
        return issuers.load_issuer(authority.certificate_pem.encode(), key_pem, checked=True)
    except GrantServerError as error:
        raise Unready(Lack.ISSUER, f"authority {authority.name}: {error}") from error


def _authority(
    name: str,
    purpose: Purpose,
    issuer: Issuer,
    keyring: Keyring,
    *,
    imported: bool,
    now: int,
    random: Callable[[int], bytes],
) -> Authority:
    return Authority(
        id=0,
        name=name,
        purpose=purpose,
        certificate_pem=issuer.certificate_pem.decode(),
        sealed_key=keyring.seal(
            keys.to_pem(issuer.key),
            purpose=key_purpose(issuer.fingerprint),
            random=random(NONCE_BYTES),
        ),
        fingerprint=issuer.fingerprint,
        not_before=issuer.not_before,
        not_after=issuer.not_after,
        imported=imported,
        created_at=now,
    )


def _keep(database: Database, authority: Authority, *, act: Act, actor: str) -> Authority:
    with database.writing() as connection:
        for known in authority_rows.every(connection):
            if known.name == authority.name:
                raise Conflict(f'there is an authority "{known.name}" already')
            if known.fingerprint == authority.fingerprint:
                raise Conflict(f'this certificate is kept already, as authority "{known.name}"')
        added = authority_rows.add(connection, authority)
        audit_rows.add(
            connection,
            Entry(
                at=authority.created_at,
                act=act,
                actor=actor,
                target=f"authority/{authority.name}",
                details={
                    "fingerprint": authority.fingerprint,
                    "not_after": authority.not_after,
                },
            ),
        )
    return replace(authority, id=added)


def key_purpose(fingerprint: str) -> str:
    """Bind a sealed key to its certificate, so that it cannot be moved to another row."""
    return f"authority-key/{fingerprint}"
