"""What is to be attempted, drawn from a seed: grants, claims, and who attempts what when.

Nothing is asked of anybody here. The same seed gives the same plan; how the attempts of one plan
meet each other is up to the machine.
"""

import math
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Final

SIZES: Final = (1, 1, 1, 2, 2, 3, 5, 8, 13, 21, 34, 100)
"""How many redemptions a grant may allow; one of these, each as likely."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REVOKE: Final = -1


class Kind(StrEnum):
    """What becomes of a grant while it is claimed."""

    ORDINARY = "ordinary"
    EXPIRED = "expired before"
    EXPIRING = "expires meanwhile"
    REVOKED = "revoked before"
    REVOKED_MIDWAY = "revoked meanwhile"
    MISSING = "there is none"


_KINDS: Final = {
    Kind.ORDINARY: 80,
    Kind.REVOKED_MIDWAY: 8,
    Kind.EXPIRING: 5,
    Kind.EXPIRED: 3,
    Kind.REVOKED: 2,
    Kind.MISSING: 2,
}


@dataclass(frozen=True, slots=True)
class Claim:
    """Who wants to redeem.

    Two of one name and subject are one claim, if the subject is a UUID or they come from one peer.
    """

    name: str
    subject: str
    peer: str

    def identity(self) -> tuple[str, str, str]:
        """Return what two attempts have in common when one repeats the other."""
        return self.name, self.subject, "" if is_uuid(self.subject) else self.peer


def is_uuid(subject: str) -> bool:
    """Tell whether nobody else is likely to have this subject."""
    return _UUID.fullmatch(subject) is not None


@dataclass(frozen=True, slots=True)
class Order:
    """One attempt to make: grant and claim by their numbers, with the right code or a wrong one.

    The order that revokes a grant has no claim.
    """

    grant: int
    claim: int
    right: bool
    peer: str

    def revokes(self) -> bool:
        """Tell whether it is no attempt, but the revocation of the grant."""
        return self.claim == _REVOKE


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A grant to be made, and the attempts on it; those of one volley begin together."""

    kind: Kind
    allowed: int
    claims: Sequence[Claim]
    volleys: Sequence[Sequence[Order]] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Grants that are attempted together; `late` are attempts once more after all others."""

    wishes: Sequence[Wish]
    late: Sequence[Order]

    def attempts(self) -> int:
        """Count the attempts."""
        volleys = (volley for wish in self.wishes for volley in wish.volleys)
        return len(self.late) + sum(not one.revokes() for volley in volleys for one in volley)


def draw_round(random: Random, attempts: int) -> Round:
    """Draw grants and attempts, `attempts` in all."""
    wishes: list[Wish] = []
    late: list[Order] = []
    left = attempts
    while left:
        kind = random.choices([*_KINDS], [*_KINDS.values()])[0]
        wish = draw_grant(random, number=len(wishes), kind=kind, most=left)
        wishes.append(wish)
        attempted = [one for volley in wish.volleys for one in volley if not one.revokes()]
        left -= len(attempted)
        claimed = [one for one in attempted if one.right]
        if claimed and left and random.random() < 0.5:
            again = random.sample(claimed, min(left, len(claimed), random.randint(1, 3)))
            late += again
            left -= len(again)
    return Round(wishes=wishes, late=late)


def draw_grant(
    random: Random,
    *,
    number: int,
    kind: Kind,
    most: int,
    allowed: int | None = None,
) -> Wish:
    """Draw one grant with its claims and attempts, `most` of these at most.

    Nine of ten grants have more claims than places; each claim comes once to four times, its
    copies together or at any time.
    """
    allowed = allowed or random.choice(SIZES)
    if random.random() < 0.1:
        count = random.randint(1, allowed)
    else:
        count = math.ceil(allowed * random.uniform(1.1, 2.2)) + random.randint(1, 8)
    claims = list(_draw_claims(random, count))
    volleys: list[Sequence[Order]] = []
    for claim, wanted in enumerate(claims):
        copies = random.choices((1, 2, 3, 4), (60, 25, 10, 5))[0]
        orders = [
            Order(
                number,
                claim,
                right=True,
                peer=_peer(random) if is_uuid(wanted.subject) else wanted.peer,
            )
            for _ in range(copies)
        ]
        volleys += [orders] if random.random() < 0.6 else [[one] for one in orders]
        if kind is not Kind.MISSING and random.random() < 0.03:
            volleys.append([Order(number, claim, right=False, peer=_peer(random))])
    random.shuffle(volleys)
    volleys = list(_at_most(volleys, most))
    if kind is Kind.REVOKED_MIDWAY:
        place = random.randint(0, len(volleys))
        volleys.insert(place, [Order(number, _REVOKE, right=True, peer="")])
    return Wish(kind=kind, allowed=allowed, claims=claims, volleys=volleys)


def _draw_claims(random: Random, count: int) -> Iterator[Claim]:
    """Draw different claims: most by subjects that are UUIDs, some by names that are shared."""
    name, subject = "", ""
    for _ in range(count):
        if not subject or is_uuid(subject) or random.random() < 0.5:
            name = f"link-{random.getrandbits(48):012x}"
            subject = f"site-{random.getrandbits(32):08x}"
            if random.random() < 0.7:
                subject = str(uuid.UUID(int=random.getrandbits(128), version=4))
        # Else one more site of the same name and subject, at another address.
        yield Claim(name, subject, _peer(random))


def _peer(random: Random) -> str:
    """Draw a loopback address: limits that are kept for each address shall not be what decides."""
    number = random.getrandbits(24)
    return f"127.{64 + (number >> 16) % 128}.{number >> 8 & 255}.{1 + (number & 255) % 254}"


def _at_most(volleys: Sequence[Sequence[Order]], most: int) -> Iterator[Sequence[Order]]:
    for volley in volleys:
        if most <= 0:
            return
        yield volley[:most]
        most -= len(volley)


def deal(random: Random, drawn: Round, shares: Sequence[float]) -> list[list[Order]]:
    """Give the attempts of a round to executors, each in the order of the plan.

    `shares` are fractions of one; each executor gets its share to the nearest whole number, the
    last one what is left. The copies of a volley go to different executors as far as possible.
    """
    total = drawn.attempts()
    left = [round(total * share) for share in shares]
    left[-1] = total - sum(left[:-1])
    dealt: list[list[Order]] = [[] for _ in shares]
    volleys = [*(volley for wish in drawn.wishes for volley in wish.volleys)]
    for volley in [*volleys, *([one] for one in drawn.late)]:
        taken: set[int] = set()
        for one in volley:
            if one.revokes():
                dealt[-1].append(one)  # who can revoke is the last
                continue
            free = [number for number, count in enumerate(left) if count and number not in taken]
            free = free or [number for number, count in enumerate(left) if count]
            chosen = random.choices(free, [left[number] for number in free])[0]
            taken.add(chosen)
            left[chosen] -= 1
            dealt[chosen].append(one)
    return dealt
