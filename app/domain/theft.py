"""Suspected token theft: a right code that comes from somebody else after its last redemption.

Whether it was the thief who came first or the thief who came too late, nobody can tell from here:
both are written down.
"""

from dataclasses import dataclass
from typing import Final

from app.domain.audit import Act, Entry
from app.domain.grants import Redemption
from app.domain.names import printable

_LONGEST: Final = 253
_LONGEST_PEER: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """Who came with the right code of a used-up grant, when (UTC seconds), and from where."""

    grant_id: str
    at: int
    name: str
    subject: str
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectedTheft:
    """Who came first and who came later.

    `first` is the last redemption, None when it is kept no more; `later` begins with the first
    that was refused, and is never empty.
    """

    first: Redemption | None
    later: tuple[Suspicion, ...]


def suspicion(*, grant_id: str, at: int, name: str, subject: str, peer: str) -> Suspicion:
    """Write a latecomer down in a form that can be stored.

    Name and subject were checked by nobody: a grant that is used up is refused before they are.
    """
    return Suspicion(
        grant_id=grant_id,
        at=at,
        name=printable(name)[:_LONGEST],
        subject=printable(subject)[:_LONGEST],
        peer=printable(peer)[:_LONGEST_PEER],
    )


def theft_entry(first: Redemption, later: Suspicion) -> Entry:
    """Say of a suspicion what the audit log keeps: both parties."""
    return Entry(
        at=later.at,
        act=Act.GRANT_THEFT_SUSPECTED,
        actor=f"site:{later.subject}",
        target=f"grant/{later.grant_id}",
        details={
            "first_name": first.name,
            "first_subject": first.subject,
            "first_peer": first.peer,
            "first_at": first.redeemed_at,
            "first_serial": first.serial,
            "later_name": later.name,
            "later_subject": later.subject,
            "later_peer": later.peer,
        },
    )


def revocation_entry(later: Suspicion, certificates: int) -> Entry:
    """Say that all certificates of a grant were marked revoked because of a suspicion."""
    return Entry(
        at=later.at,
        act=Act.GRANT_CERTIFICATES_REVOKED,
        actor="server",
        target=f"grant/{later.grant_id}",
        details={"certificates": certificates, "why": "suspected token theft"},
    )
