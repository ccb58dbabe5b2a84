"""The listener's certificate as Secrets hold it: ours for others to read, and others' taken in.

Nothing here knows how a Secret is read or written.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from app.crypto import chains
from app.crypto.facts import facts
from app.crypto.sealing import Keyring
from app.crypto.server_certificates import missing_hosts
from app.domain.reach import Reach
from app.domain.times import rfc3339
from app.errors import Invalid
from app.services import foreign, reach
from app.services.serving import Rehearsal
from app.store import addresses
from app.store import authorities as authority_rows
from app.store import serving as serving_rows
from app.store.engine import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSecret:
    """What a Secret of the type kubernetes.io/tls holds, PEM; `ca_pem` may be empty."""

    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    ca_pem: bytes = field(repr=False)


def mark(database: Database) -> object:
    """Give something that is equal to what it was until there is something new to be served.

    Raises Unavailable.
    """
    with database.reading() as connection:
        return serving_rows.mark(connection)


def issued(database: Database, keyring: Keyring) -> TlsSecret | None:
    """The certificate that our own CA has issued for the listener; None before there is one.

    Raises as `reach.open_server_key` does, and Unavailable.
    """
    with database.reading() as connection:
        certificate = authority_rows.current_server_certificate(connection, origin=reach.OURS)
    if certificate is None:
        return None
    return TlsSecret(
        certificate_pem=certificate.certificate_pem.encode(),
        key_pem=reach.open_server_key(certificate, keyring),
        ca_pem=reach.current(database, "").ca_pem.encode(),
    )


def take(
    database: Database,
    keyring: Keyring,
    held: TlsSecret,
    *,
    secret: str,
    url: str,
    rehearse: Rehearsal,
    now: int,
    random_bytes: Callable[[int], bytes],
) -> bool:
    """Let the listener show what a Secret holds, and tell whether it did not before.

    `secret` is its `namespace/name`; `url` is the base URL of tokens, where it is not one that the
    cluster has told; `rehearse` is asked whether clients would go on with it. Raises Invalid(what
    of the Secret, …) when clients could not use it, and then what is shown stays; Unavailable.

    Where tokens are out that know another CA only, what was shown before is shown for a while
    still (see `foreign`).
    """
    with database.reading() as connection:
        told = addresses.read(connection)
        shown = authority_rows.current_server_certificate(connection, origin=reach.SECRET)
        host = Reach(url=url or told.url, ca_pem="").host
        before = foreign.current(connection, host, now)
    certificate_pem, ca_pem = _checked(held, host, now)
    if shown is not None and (shown.certificate_pem, shown.ca_pem) == (
        certificate_pem.decode(),
        ca_pem.decode(),
    ):
        return False  # and no writer is kept waiting
    rehearse(certificate_pem, held.key_pem, ca_pem, host)
    return reach.keep_secret(
        database,
        keyring,
        certificate_pem=certificate_pem,
        key_pem=held.key_pem,
        ca_pem=ca_pem,
        secret=secret,
        keep=[one.fingerprint for one in before.needed_before(certificate_pem)] if before else [],
        now=now,
        random_bytes=random_bytes,
    )


def _checked(held: TlsSecret, host: str, now: int) -> tuple[bytes, bytes]:
    """Give certificate with chain, and CA, without the text around them; raises Invalid."""
    chains.check_pair(held.certificate_pem, held.key_pem)
    ca_pem = chains.bare(held.ca_pem or chains.anchor(held.certificate_pem))
    chains.check_chain(held.certificate_pem, ca_pem)
    found = facts(held.certificate_pem)
    if now > found.not_after:
        raise Invalid("certificate", f"it expired at {rfc3339(found.not_after)}")
    if now < found.not_before:
        raise Invalid("certificate", f"it is not valid before {rfc3339(found.not_before)}")
    if host and missing_hosts(held.certificate_pem, [host]):
        raise Invalid("certificate", f"it is not for {host}, which is in the URL of tokens")
    return chains.bare(held.certificate_pem), ca_pem
