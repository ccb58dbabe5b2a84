"""How we are reached: the CA that tokens carry, and the certificate of the HTTPS listener."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.crypto import keys, server_certificates
from app.crypto.facts import facts
from app.crypto.leaves import SERIAL_BYTES
from app.crypto.sealing import NONCE_BYTES, Keyring
from app.domain import authorities as rules
from app.domain.audit import Act, Entry
from app.domain.authorities import Authority, ServerCertificate
from app.domain.certificates import KeyType
from app.domain.reach import Reach
from app.errors import Missing
from app.services.authorities import SERVER_AUTHORITY, open_issuer
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store.engine import Connection, Database

LIFETIME_SECONDS: Final = 365 * 24 * 3600
OURS: Final = ""
"""The origin of a certificate that our own CA has issued."""

SECRET: Final = "secret"  # noqa: S105 - a word, and no secret
"""The origin of a certificate that somebody else keeps in a Secret of Kubernetes."""

LONGEST_RETRY_SECONDS: Final = 24 * 3600
"""For so long a claim may come again, at most by far."""

_YOUNG_SECONDS: Final = 3600  # replicas that want other hosts look far more often
_MOST_LOOKED_AT: Final = 20  # certificates before; each has what those before it were to keep
_NOBODY: Final = "localhost"  # a certificate needs a host, also while nobody knows ours
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMaterial:
    """The HTTPS listener's certificate with its chain, and its key, PEM.

    `fingerprint` is the SHA-256 of the first certificate in lower-case hexadecimal.
    """

    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    fingerprint: str
    not_after: int


def current(database: Database, base_url: str) -> Reach:
    """What a token has to carry to reach us at `base_url`.

    After a rotation, that is the old CA too until it has ended: whatever is served meanwhile,
    one of the two vouches for it.
    """
    with database.reading() as connection:
        family = authority_rows.server_family(connection)
    signing = rules.active(family)
    if signing is None:
        raise Missing("authority", SERVER_AUTHORITY)
    return Reach(url=base_url, ca_pem=rules.bundle(rules.trusted(family)))


def server_material(
    database: Database,
    keyring: Keyring,
    *,
    hosts: Sequence[str],
    first: str = "",
    now: int,
    random_bytes: Callable[[int], bytes],
) -> ServerMaterial:
    """The listener's certificate for all of `hosts`: the kept one while it serves, else a new one.

    A new one is made when there is none of ours, when a host is not in it, when it is time to
    renew it, or when another generation of our CA signs by now. Of several processes that do so at
    once, one has its certificate kept, and the others get that one. Raises Unready(ISSUER) when
    the server's own CA cannot sign.

    `first` is the host that tokens carry now, where they carry any: it is named before all others.
    Hosts that cannot be named are left out, and those above `MOST_HOSTS`, the last first. As many
    more may be in a new certificate which were in those before: tokens may come that carry them,
    and a young one may have them for another replica, whose settings differ from ours.
    """
    # What cannot be named must not keep all else from being served.
    wanted = [one for one in dict.fromkeys([first, *hosts]) if server_certificates.can_name(one)]
    hosts, left_out = wanted[: rules.MOST_HOSTS], wanted[rules.MOST_HOSTS :]
    with database.reading() as connection:
        kept = authority_rows.current_server_certificate(connection, origin=OURS)
        family = authority_rows.server_family(connection)
    if kept is not None and _serves(kept, family, hosts, now):
        return _opened(kept, keyring)
    with database.reading() as connection:
        before = dict.fromkeys([*_of_young(kept, now), *_carried_before(connection, now)])
    further = [one for one in before if one not in hosts]
    hosts = [*hosts, *further[: rules.MOST_HOSTS]] or [_NOBODY]
    signing = rules.listener_chain(family, now)
    if signing is None:
        raise Missing("authority", SERVER_AUTHORITY)
    authority, chain = signing
    key = keys.generate(KeyType.P256)
    leaf = server_certificates.create_server_certificate(
        open_issuer(authority, keyring),
        hosts=hosts,
        key=key,
        serial_random=random_bytes(SERIAL_BYTES),
        now=now,
        lifetime_seconds=LIFETIME_SECONDS,
    )
    key_pem = keys.to_pem(key)
    made = facts(leaf)
    issued = ServerCertificate(
        certificate_pem=leaf.decode() + chain,
        sealed_key=keyring.seal(
            key_pem, purpose=key_purpose(made.fingerprint), random=random_bytes(NONCE_BYTES)
        ),
        fingerprint=made.fingerprint,
        not_after=made.not_after,
        created_at=now,
        authority_id=authority.id,
    )
    with database.writing() as connection:
        newest = authority_rows.current_server_certificate(connection, origin=OURS)
        now_family = authority_rows.server_family(connection)
        if newest is not None and newest != kept and _serves(newest, now_family, hosts, now):
            return _opened(newest, keyring)
        authority_rows.add_server_certificate(connection, issued)
        told = {"hosts": ", ".join(hosts)}
        if left_out:
            told["left_out"] = f"{len(left_out)} hosts, {left_out[0]} and what follows it"
        _note(connection, Act.SERVER_CERTIFICATE_ISSUED, issued, told)
    return ServerMaterial(
        certificate_pem=leaf + chain.encode(),
        key_pem=key_pem,
        fingerprint=made.fingerprint,
        not_after=made.not_after,
    )


def keep_secret(
    database: Database,
    keyring: Keyring,
    *,
    certificate_pem: bytes,
    key_pem: bytes,
    ca_pem: bytes,
    secret: str,
    keep: Collection[str] = (),
    now: int,
    random_bytes: Callable[[int], bytes],
) -> bool:
    """Make the certificate that somebody else keeps in a Secret (`namespace/name`) the current one.

    The caller has checked that the three belong together, and that they are bare PEM. Of those
    before it, what has a fingerprint in `keep` goes on having its key. Returns False, and changes
    nothing, when it is current already.
    """
    found = facts(certificate_pem)
    held = ServerCertificate(
        certificate_pem=certificate_pem.decode(),
        sealed_key=keyring.seal(
            key_pem, purpose=key_purpose(found.fingerprint), random=random_bytes(NONCE_BYTES)
        ),
        fingerprint=found.fingerprint,
        not_after=found.not_after,
        created_at=now,
        origin=SECRET,
        ca_pem=ca_pem.decode(),
    )
    with database.writing() as connection:
        newest = authority_rows.current_server_certificate(connection, origin=SECRET)
        if newest is not None and _same(newest, held):
            return False
        authority_rows.add_server_certificate(connection, held, keep=keep)
        _note(connection, Act.SERVER_CERTIFICATE_TAKEN, held, {"secret": secret})
    return True


def open_server_key(certificate: ServerCertificate, keyring: Keyring) -> bytes:
    """The private key (PEM) of a listener's certificate.

    Raises Misconfigured when the key file lacks the key that it is sealed under, Broken when what
    is sealed was altered.
    """
    return keyring.open(certificate.sealed_key, purpose=key_purpose(certificate.fingerprint))


def _of_young(kept: ServerCertificate | None, now: int) -> Sequence[str]:
    """The hosts for which somebody has just had a certificate of ours made.

    Where replicas want different ones, in a rollout for one, it comes to have what all of them
    want: each would make it anew else, without end.
    """
    if kept is None or abs(now - kept.created_at) > _YOUNG_SECONDS:
        return ()
    hosts = facts(kept.certificate_pem.encode()).hosts
    return () if hosts == (_NOBODY,) else hosts


def _carried_before(connection: Connection, now: int) -> Iterator[str]:
    """The hosts that tokens may carry which are out, the latest first: they may lead to us still.

    Which of a certificate's hosts tokens carried is not known: replicas may differ in that, and it
    may have changed while the certificate stayed.
    """
    until = now
    for kept in authority_rows.latest_server_certificates(connection, _MOST_LOOKED_AT, OURS):
        if not authority_rows.tokens_may_come(
            connection, made_until=until, now=now, retry_seconds=LONGEST_RETRY_SECONDS
        ):
            return
        until = kept.created_at + rules.SPREAD_SECONDS
        yield from facts(kept.certificate_pem.encode()).hosts


def _serves(
    kept: ServerCertificate,
    family: Sequence[Authority],
    hosts: Sequence[str],
    now: int,
) -> bool:
    signing = rules.listener_chain(family, now)
    if kept.origin or signing is None:
        return False
    authority, chain = signing
    certificate_pem = kept.certificate_pem.encode()
    return (
        kept.authority_id == authority.id
        and _chain_of(kept) == chain
        and now < rules.renewal_at(kept)
        # A clock that was ahead may have made one that nobody accepts yet. One that is behind the
        # CA as well is wrong itself, and could not make another.
        and (now < authority.not_before or facts(certificate_pem).not_before <= now)
        and not server_certificates.missing_hosts(certificate_pem, hosts)
    )


def _same(one: ServerCertificate, other: ServerCertificate) -> bool:
    """Tell whether clients would see no difference."""
    seen = (one.origin, one.certificate_pem, one.ca_pem)
    return seen == (other.origin, other.certificate_pem, other.ca_pem)


def _note(
    connection: Connection, act: Act, certificate: ServerCertificate, told: Mapping[str, str]
) -> None:
    audit_rows.add(
        connection,
        Entry(
            at=certificate.created_at,
            act=act,
            actor="server",
            target="server/certificate",
            details={
                **told,
                "fingerprint": certificate.fingerprint,
                "not_after": certificate.not_after,
            },
        ),
    )


def _chain_of(kept: ServerCertificate) -> str:
    """What follows the first certificate."""
    _, *others = kept.certificate_pem.split(_BEGIN)[1:]
    return "".join(_BEGIN + other for other in others)


def _opened(kept: ServerCertificate, keyring: Keyring) -> ServerMaterial:
    return ServerMaterial(
        certificate_pem=kept.certificate_pem.encode(),
        key_pem=open_server_key(kept, keyring),
        fingerprint=kept.fingerprint,
        not_after=kept.not_after,
    )


def key_purpose(fingerprint: str) -> str:
    """Bind a sealed key of the listener to its certificate."""
    return f"server-key/{fingerprint}"
