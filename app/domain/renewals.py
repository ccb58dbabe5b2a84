"""Certificates that were given out, and the judgement of one that comes to be renewed.

A redemption gives the first; each that follows takes the place of one before. Which of them counts
is decided here, as values; the store's transaction makes sure that it is decided once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from app.domain.audit import Act, Entry
from app.errors import Invalid, Reason, Refused

DEFAULT_OVERLAP_SECONDS: Final = 3600
"""So long a certificate counts beside the one that has taken its place."""

MOST_IN_A_SPELL: Final = 10
"""So many certificates a link is given in a spell; who renews in time wants two at most."""

_SHARE_LEFT: Final = 4
_LONGEST_SPELL_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A certificate that was given out, and what has become of it since (UTC seconds).

    `redemption_id` is what all that follow each other have in common, `ordinal` is the redemption's
    number; `replaces` is the serial of the certificate whose place it took, None of the first.
    `superseded_at` is when it stops counting because another has taken its place. `revoked_at` is
    set when it was revoked, or its whole grant. `issuer_id` is the authority that signed it, which
    nobody has written down for the oldest.
    """

    redemption_id: int
    grant_id: str
    ordinal: int
    name: str
    subject: str
    serial: str
    fingerprint: str
    issued_at: int
    not_after: int
    issuer_id: int | None = None
    replaces: str | None = None
    superseded_at: int | None = None
    revoked_at: int | None = None

    def superseded(self, now: int) -> bool:
        """Say whether another has taken its place, and the time of both together is over."""
        return self.superseded_at is not None and self.superseded_at <= now

    def counts(self, now: int) -> bool:
        """Say whether whoever looked at everything that is known of it would accept it."""
        return self.revoked_at is None and now <= self.not_after and not self.superseded(now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Follower:
    """A certificate that takes the place of another: what is kept of it.

    `key_hash` is the SHA-256 of its SubjectPublicKeyInfo.
    """

    redemption_id: int
    replaces: str
    key_hash: bytes
    certificate_pem: str = field(repr=False)
    serial: str
    fingerprint: str
    issuer_id: int
    issued_at: int
    not_after: int


def judge(given: Given, *, now: int) -> None:
    """Raise Refused unless a certificate may be renewed: not revoked, not ended, not superseded.

    Asked only after a signature has shown that whoever comes has its key.
    """
    if given.revoked_at is not None:
        raise Refused(Reason.CERTIFICATE_REVOKED)
    if now > given.not_after:
        raise Refused(Reason.CERTIFICATE_ENDED)
    if given.superseded(now):
        raise Refused(Reason.CERTIFICATE_SUPERSEDED)


def spell_seconds(given: Given) -> int:
    """How long a spell is: the life of the certificate that came, or an hour, if that is less."""
    return max(1, min(given.not_after - given.issued_at, _LONGEST_SPELL_SECONDS))


def check_allowance(given: Given, issued_at: Sequence[int], *, now: int) -> None:
    """Raise Refused where the link of a certificate has been given enough of them for this spell.

    `issued_at` are the times of its newest renewals, the newest first. Each is a row, and an entry
    of the audit log, and whoever has one key could have them made without end.
    """
    if len(issued_at) < MOST_IN_A_SPELL:
        return
    wait = issued_at[MOST_IN_A_SPELL - 1] + spell_seconds(given) - now
    if wait > 0:
        raise Refused(
            Reason.RENEWED_TOO_OFTEN,
            f"{MOST_IN_A_SPELL} renewals in {spell_seconds(given)} s are enough",
            retry_after=wait,
        )


def check_ordinal(ordinal: int) -> None:
    """Raise Invalid("redemption", …) unless it may be the number of a redemption."""
    if ordinal < 1:
        raise Invalid("redemption", f"{ordinal} is out of range: the first one has number 1")


def renewal_entry(given: Given, follower: Follower, *, peer: str) -> Entry:
    """Say of a renewal what the audit log keeps."""
    return Entry(
        at=follower.issued_at,
        act=Act.CERTIFICATE_RENEWED,
        actor=f"site:{given.subject}",
        target=f"grant/{given.grant_id}",
        details={
            "ordinal": given.ordinal,
            "name": given.name,
            "peer": peer,
            "serial": follower.serial,
            "fingerprint": follower.fingerprint,
            "replaces": follower.replaces,
            "not_after": follower.not_after,
        },
    )


def ends_soon(given: Given, *, now: int) -> bool:
    """Say whether a certificate should have been renewed by now: a quarter of its life is left.

    Whoever renews by themselves has done so by then. One that lives for hours alone would else be
    told of as soon as it is made.
    """
    return (given.not_after - now) * _SHARE_LEFT <= given.not_after - given.issued_at


def expiry_entry(given: Given, *, now: int) -> Entry:
    """Say of a certificate that it ends soon and nothing has taken its place."""
    return Entry(
        at=now,
        act=Act.CERTIFICATE_EXPIRING,
        actor="server",
        target=f"grant/{given.grant_id}",
        details={
            "ordinal": given.ordinal,
            "name": given.name,
            "subject": given.subject,
            "serial": given.serial,
            "fingerprint": given.fingerprint,
            "not_after": given.not_after,
        },
    )
