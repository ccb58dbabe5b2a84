"""Which of the certificates that a Secret has held is served, and whom tokens tell to trust.

Somebody else keeps that Secret, and changes the CA without asking: tokens that are out know only
the old one. What a Secret holds, and whether it is any good, is looked at elsewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from app.crypto import chains
from app.crypto.facts import facts
from app.crypto.server_certificates import missing_hosts
from app.domain import authorities as rules
from app.domain.authorities import ServerCertificate
from app.errors import Invalid
from app.services import reach
from app.store import authorities as authority_rows
from app.store.engine import Connection

_MOST_LOOKED_AT: Final = 20  # certificates of the Secret; each may have another CA
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What is to be served of a Secret's certificates, and what tokens carry (PEM).

    `known` is what tokens that may come know, as far as it is minded; `needed` are the
    certificates whose keys are to stay: what is served now, or may come to be.
    """

    served: ServerCertificate
    ca_pem: str
    known: tuple[str, ...]
    needed: tuple[ServerCertificate, ...]

    def needed_before(self, certificate_pem: bytes) -> tuple[ServerCertificate, ...]:
        """Those that may be served still when there is another that is newer."""
        if all(_accepted(certificate_pem, ca_pem) for ca_pem in self.known):
            return ()
        return self.needed


def current(connection: Connection, host: str, now: int) -> Foreign | None:
    """What is to be served now, in UTC seconds; None before a Secret has ever been taken.

    The newest one, unless it has a CA that tokens do not know which were made before and may still
    come. Then one before goes on being served, until no such token can come or its end is near,
    and tokens carry both CAs. One that is not for `host`, which tokens carry (empty: they carry
    none yet), is not held on to.
    """
    latest = authority_rows.latest_server_certificates(
        connection, _MOST_LOOKED_AT, origin=reach.SECRET
    )
    if not latest or not latest[0].sealed_key:
        return None
    one_ca = all(one.ca_pem == latest[0].ca_pem for one in latest)  # mostly; it saves the queries
    awaited = [] if one_ca else list(_awaited(connection, latest, now))
    usable = [latest[0], *(one for one in awaited if _usable(one, host, now))]
    return choose([latest[0], *awaited], usable)


def choose(awaited: Sequence[ServerCertificate], usable: Sequence[ServerCertificate]) -> Foreign:
    """Choose of those that are usable; both have the newest one first, then older ones.

    Tokens may come from the time of each of `awaited`. It is the newest that the oldest tokens
    accept, which those after them know as well; those that accept none cannot be helped.
    """
    for number in range(len(awaited), 1, -1):
        oldest = awaited[number - 1].ca_pem
        for one in usable:
            if _accepted(one.certificate_pem.encode(), oldest):
                return _foreign(one, awaited[:number], usable)
    return _foreign(usable[0], awaited[:1], usable)


def _foreign(
    served: ServerCertificate,
    awaited: Sequence[ServerCertificate],
    usable: Sequence[ServerCertificate],
) -> Foreign:
    known = tuple(one.ca_pem for one in awaited)
    carried = dict.fromkeys(ca for ca_pem in known for ca in _split(ca_pem))
    return Foreign(
        served=served,
        ca_pem="".join(carried) if len(carried) > len(_split(known[0])) else known[0],
        known=known,
        needed=tuple(usable),
    )


def _accepted(certificate_pem: bytes, ca_pem: str) -> bool:
    """Tell whether clients that trust `ca_pem` find a way from this certificate to it."""
    try:
        chains.check_chain(certificate_pem, ca_pem.encode())
    except Invalid:
        return False
    return True


def _awaited(
    connection: Connection, latest: Sequence[ServerCertificate], now: int
) -> Iterator[ServerCertificate]:
    """Those before the newest one of whose time tokens may come."""
    for one, following in zip(latest[1:], latest, strict=False):
        # Until then a process may not know of the one that follows.
        made_until = following.created_at + rules.SPREAD_SECONDS - 1
        if not following.created_at <= now <= made_until and (
            not authority_rows.tokens_may_come(
                connection,
                made_until=made_until,
                now=now,
                retry_seconds=reach.LONGEST_RETRY_SECONDS,
            )
        ):
            return
        yield one


def _usable(one: ServerCertificate, host: str, now: int) -> bool:
    named = not host or not missing_hosts(one.certificate_pem.encode(), [host])
    return bool(one.sealed_key) and named and not rules.gives_way(one, now, ends=_ends(one))


def _ends(one: ServerCertificate) -> int:
    """When the last of those that tokens trust for it has ended, or it has itself."""
    certificate_pem = one.certificate_pem.encode()
    vouching = [ca for ca in _split(one.ca_pem) if _accepted(certificate_pem, ca)]
    return min(one.not_after, max((facts(ca.encode()).not_after for ca in vouching), default=0))


def _split(pem: str) -> list[str]:
    _, *certificates = pem.split(_BEGIN)
    return [_BEGIN + one for one in certificates]
