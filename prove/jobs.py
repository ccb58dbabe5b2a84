"""What executors of attempts are given, and what they give back; plain values, sent by pipes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from prove.history import NEVER, Answer, Operation, answer_of
from prove.plan import Claim, Order

TRIES: Final = 12
"""How often an attempt is made that gets no answer, or one that says to come again."""


def pause(attempt: int) -> float:
    """Return the seconds to wait before the next try after `attempt` of them."""
    return min(1.0, 0.02 * 2.0**attempt)


@dataclass(frozen=True, slots=True)
class Target:
    """A grant that was made, its code, and when it expires (UTC seconds)."""

    id: str
    code: str = field(repr=False)
    expires_at: int

    def presented(self, *, right: bool) -> bytes:
        """Return the code, or one that differs in its last character."""
        last = self.code[-1] if right else chr(ord(self.code[-1]) ^ 1)
        return (self.code[:-1] + last).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Attempts to make, in this order, `width` of them at once, each up to `tries` times.

    Made again is what got no answer, or one that says to come again; without `insist` only what
    never reached a server.
    """

    targets: Sequence[Target] = field(repr=False)
    claims: Sequence[Sequence[Claim]] = field(repr=False)
    orders: Sequence[Order] = field(repr=False)
    width: int
    tries: int = TRIES
    insist: bool = True


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revocation, and between which moments it happened; `ended` is NEVER if it may not have."""

    grant: int
    began: float
    ended: float


@dataclass(slots=True)
class Outcome:
    """What was seen: operations with the number of their grant, bundles by digest."""

    operations: list[tuple[int, Operation]] = field(default_factory=list)
    bundles: dict[str, bytes] = field(default_factory=dict)
    revocations: list[Revocation] = field(default_factory=list)

    def note(
        self,
        order: Order,
        *,
        began: float,
        ended: float,
        status: int | None,
        body: bytes,
        where: str,
    ) -> Answer:
        """Write down one try and what it got."""
        answer = answer_of(status, body)
        digest = ""
        if answer is Answer.BUNDLE:
            digest = hashlib.sha256(body).hexdigest()
            self.bundles.setdefault(digest, body)
        if answer is Answer.UNKNOWN:
            ended = NEVER
        one = Operation(order.claim, order.right, began, ended, answer, digest, status, where)
        self.operations.append((order.grant, one))
        return answer

    def merge(self, other: "Outcome") -> None:
        """Take in what another executor saw."""
        self.operations += other.operations
        self.bundles |= other.bundles
        self.revocations += other.revocations


def to_be_repeated(answer: Answer) -> bool:
    """Tell whether a client comes again after this answer."""
    return answer in {Answer.UNKNOWN, Answer.LIMITED}
