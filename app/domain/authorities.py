"""Authorities that we keep, generation after generation, and our own listener's certificate.

What a rotation changes is decided here, as values: which generations are trusted, which one signs,
and when the next step is due. An authority of one name is a family of generations:

    prepared   trusted; does not sign yet, so that it can be brought to those who are to trust it
    active     signs; it alone has the name that the family goes by
    retired    trusted still; signs no more certificates, and its key goes once nobody may need it
    ended      trusted no more; stays as a record, and for answers that are given again

Nothing goes back, and no generation but one is ever active.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

SPREAD_SECONDS: Final = 120
"""Within so long, every process acts on what is in the database, and has ended what it was doing
before. So long a retired authority keeps its key, and counts as if it could still sign."""

MOST_HOSTS: Final = 64
"""Our certificate is made for so many hosts at most, and for as many that others have from before:
clients read no more than 64 KiB of certificates, and names may be long."""

_LAST_SECONDS: Final = 3600  # of what makes way only at its end
_LONGEST_NAME: Final = 63
_HASH_BITS: Final = 32


class Purpose(StrEnum):
    """What an authority signs: link certificates of sites, or our own HTTPS certificate."""

    SITE = "site"
    SERVER = "server"


class State(StrEnum):
    """Where in its life a generation is."""

    PREPARED = "prepared"
    ACTIVE = "active"
    RETIRED = "retired"
    ENDED = "ended"


class Step(StrEnum):
    """What is next in the life of a generation."""

    ACTIVATE = "activate"
    ERASE_KEY = "erase key"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A CA that we keep; `certificate_pem` begins with the signing certificate, then its chain.

    `sealed_key` is opened with the key file only, and empty when it is erased; times are UTC
    seconds; `fingerprint` is the SHA-256 of the signing certificate in lower-case hexadecimal.
    `origin` is the Secret that one comes from whose key a Kubernetes cluster keeps, as
    `namespace/name`: without it, the authority has no key; its `fingerprint` is the SHA-256 of all
    of its PEM.

    `since` is when it came to be in its state, `due_at` when its next step may be taken; `family`
    is the id of the first of its generations, None in that one. `cross_pem` is its certificate as
    the generation before has signed it. `back_pem` is that of one whose signatures must not be at
    a distance, as the newest generation has signed it: while it is trusted, it signs still.
    """

    id: int
    name: str
    purpose: Purpose
    certificate_pem: str = field(repr=False)
    sealed_key: bytes = field(repr=False)
    fingerprint: str
    not_before: int
    not_after: int
    imported: bool
    created_at: int
    origin: str | None = None
    state: State = State.ACTIVE
    since: int = 0
    due_at: int | None = None
    family: int | None = None
    cross_pem: str = field(default="", repr=False)
    back_pem: str = field(default="", repr=False)

    @property
    def root(self) -> int:
        """The id that all of its generations have in common."""
        return self.family or self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """The certificate of the HTTPS listener, with the chain that goes with it.

    Our server authority signed it, unless `origin` is `secret`: then somebody else did, and
    `ca_pem` is whom clients have to trust.
    """

    certificate_pem: str = field(repr=False)
    sealed_key: bytes = field(repr=False)
    fingerprint: str
    not_after: int
    created_at: int
    origin: str = ""
    ca_pem: str = field(default="", repr=False)
    authority_id: int | None = None


_ORDER: Final = (State.ACTIVE, State.PREPARED, State.RETIRED)


def trusted(family: Sequence[Authority]) -> tuple[Authority, ...]:
    """Those of a family that are to be trusted: the one that signs first, then the newest first."""
    living = (one for one in family if one.state in _ORDER)
    return tuple(sorted(living, key=lambda one: (_ORDER.index(one.state), -one.id)))


def bundle(authorities: Sequence[Authority]) -> str:
    """Write the certificates of some authorities one after the other, as PEM.

    One alone is written as it was given to us, to the byte.
    """
    if len(authorities) == 1:
        return authorities[0].certificate_pem
    return "".join(f"{one.certificate_pem.rstrip()}\n" for one in authorities)


def active(family: Sequence[Authority]) -> Authority | None:
    """The one that signs, and has the family's name."""
    return next((one for one in family if one.state is State.ACTIVE), None)


def listener_chain(family: Sequence[Authority], now: int) -> tuple[Authority, str] | None:
    """Who of the server's authorities signs the listener's certificate, and what goes with it.

    That is the active one, its certificate signed by the generation before, that one's signed by
    the one before it, and so on: whoever trusts any of them finds a way. Where one is trusted that
    accepts no other between itself and the certificate, it signs; its own certificate, signed by
    the newest one, leads those who trust that one only to it.
    """
    known = [one for one in trusted(family) if one.state is not State.PREPARED]
    for one in known:
        if one.back_pem and one.sealed_key and one.not_before <= now <= one.not_after:
            return one, one.back_pem
    if not known or known[0].state is not State.ACTIVE:
        return None
    return known[0], "".join(one.cross_pem for one in known[:-1])


def can_sign_for_sites(authority: Authority) -> bool:
    """Say whether a site or a grant can be led to it."""
    return (
        authority.purpose is Purpose.SITE
        and authority.state is State.ACTIVE
        and bool(authority.sealed_key)
    )


def due(authority: Authority, now: int) -> Step | None:
    """Say which step of this authority's life may be taken; None while there is none.

    Whether a retired one may end depends on what is in use as well, which the caller knows.
    """
    if authority.state is State.PREPARED:
        return Step.ACTIVATE if _reached(authority.due_at, now) else None
    if authority.state is not State.RETIRED:
        return None
    if now > authority.not_after or _reached(authority.due_at, now):
        return Step.END
    return erasable(authority, now)


def erasable(authority: Authority, now: int) -> Step | None:
    """Say whether a retired authority's key is of no use to anybody any more.

    One of sites signs the list of what was revoked, until all that it has signed has ended.
    """
    idle = authority.state is State.RETIRED and not authority.back_pem
    idle = idle and authority.purpose is Purpose.SERVER
    return (
        Step.ERASE_KEY
        if idle and authority.sealed_key and now >= authority.since + SPREAD_SECONDS
        else None
    )


def nears_its_end(authority: Authority, now: int, *, leaf_seconds: int) -> bool:
    """Say whether it is time for another to take the place of one that signs.

    That is when what it signs could not be valid for `leaf_seconds` any more; of one that does not
    live for long itself, when a third of its life is left.
    """
    life = authority.not_after - authority.not_before
    return authority.not_after - now < min(leaf_seconds, life // 3)


def prepared(successor: Authority, of: Authority, *, name: str, now: int, due_at: int) -> Authority:
    """Make an authority the next generation of another, to sign from `due_at` on."""
    return replace(
        successor,
        name=name,
        purpose=of.purpose,
        state=State.PREPARED,
        since=now,
        due_at=due_at,
        family=of.root,
    )


def activated(
    old: Authority, new: Authority, *, retired_name: str, now: int, due_at: int
) -> tuple[Authority, Authority]:
    """Let `new` sign instead of `old`, which gets another name and may end from `due_at` on."""
    return (
        replace(old, name=retired_name, state=State.RETIRED, since=now, due_at=due_at),
        replace(new, name=old.name, state=State.ACTIVE, since=now, due_at=None),
    )


def keyless(authority: Authority) -> Authority:
    """Take its key away."""
    return replace(authority, sealed_key=b"")


def ended(authority: Authority, *, now: int) -> Authority:
    """Trust it no more; nobody needs its key either."""
    return replace(
        authority,
        state=State.ENDED,
        since=now,
        due_at=None,
        sealed_key=b"",
        cross_pem="",
        back_pem="",
    )


def generation_name(name: str, number: int, taken: Collection[str]) -> str:
    """Name a generation that does not have the family's name: `name-number`, or a number above."""
    while True:
        suffix = f"-{number}"
        made = name[: _LONGEST_NAME - len(suffix)].rstrip("-") + suffix
        if made not in taken:
            return made
        number += 1


def renewal_at(certificate: ServerCertificate) -> int:
    """When a certificate of the listener is to be renewed, in UTC seconds.

    When two thirds of its life have passed, and up to a twenty-fourth more: how much is read from
    its fingerprint, so that every process says the same, and servers that were set up together do
    not all come at once.
    """
    life = certificate.not_after - certificate.created_at
    jitter = (life // 24) * int(certificate.fingerprint[: _HASH_BITS // 4], 16) >> _HASH_BITS
    return certificate.created_at + life * 2 // 3 + jitter


def gives_way(certificate: ServerCertificate, now: int, *, ends: int) -> bool:
    """Say whether one of somebody else's is so near its end that whatever is newer is better.

    `ends` is when clients refuse it, which may be before it ends itself.
    """
    life = max(ends - certificate.created_at, 0)
    return now >= ends - min(_LAST_SECONDS, life // 10)


def _reached(at: int | None, now: int) -> bool:
    return at is not None and now >= at
