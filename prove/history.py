"""What clients saw of one grant: who asked what, when, and what came back.

Times are seconds of the machine's monotonic clock, which all processes of one host share.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

NEVER: Final = math.inf
ALWAYS: Final = -math.inf


class Answer(StrEnum):
    """What came back.

    UNKNOWN is no answer, or a 503: the claim may have taken effect, and may do so later.
    LIMITED is a 429: the claim was not looked at. IMPOSSIBLE is anything that nobody may get.
    """

    BUNDLE = "bundle"
    USED_UP = "used up"
    NO_CLAIM = "no such claim"
    WRONG_CODE = "wrong code"
    LIMITED = "limited"
    UNKNOWN = "unknown"
    IMPOSSIBLE = "impossible"


_TEXTS: Final = {
    (404, b"No such access granted\n"): Answer.USED_UP,
    (404, b"No such claim\n"): Answer.NO_CLAIM,
    (403, b"Redemption of access token refused\n"): Answer.WRONG_CODE,
}


def answer_of(status: int | None, body: bytes) -> Answer:
    """Read an answer as the wire contract has it; None is no status, or one that was cut off."""
    if status in {None, 503}:
        return Answer.UNKNOWN
    if status == 200:
        return Answer.BUNDLE
    if status == 429:
        return Answer.LIMITED
    return _TEXTS.get((status or 0, body), Answer.IMPOSSIBLE)


@dataclass(frozen=True, slots=True)
class Operation:
    """One attempt: `claim` is its number within the grant; `began` and `ended` enclose its effect.

    `right` says whether it brought the grant's code; `ended` is NEVER where nobody knows;
    `digest` names a bundle's bytes; `status` is that of HTTP, None without an answer; `where`
    names who was asked.
    """

    claim: int
    right: bool
    began: float
    ended: float
    answer: Answer
    digest: str
    status: int | None
    where: str


class Ending(StrEnum):
    """How a grant ends. A kept answer outlives the expiry of its grant, but not the revocation."""

    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of a grant, at one moment of an interval; `latest` is NEVER when it may not be."""

    ending: Ending
    earliest: float
    latest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that happened to one grant.

    `redeemed` is what the database says at the end: the claims that were redeemed, by number,
    in the order of their ordinals.
    """

    allowed: int
    end: End | None
    operations: Sequence[Operation] = field(repr=False)
    redeemed: Sequence[int]


def write(history: History, path: Path, **about: object) -> None:
    """Write a history down for a person, with what is to be said about it."""
    operations = sorted(history.operations, key=lambda one: one.began)
    began = operations[0].began if operations else 0.0
    content = {
        **about,
        "allowed": history.allowed,
        "end": None if history.end is None else asdict(history.end),
        "redeemed": list(history.redeemed),
        "times": f"seconds after {began}",
        "operations": [
            asdict(one)
            | {
                "began": round(one.began - began, 6),
                "ended": None if one.ended == NEVER else round(one.ended - began, 6),
            }
            for one in operations
        ],
    }
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")
