"""The story of a grant: what happened, moment by moment in words, and what stands now.

Made of what the audit log, the redemptions and the grant itself tell. Plain values to the last, so
that every edge shows the same story. Never a secret: the audit log has none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.domain import policies
from app.domain.audit import Act, Entry
from app.domain.grants import MOST_REDEMPTIONS, Grant, Redemption
from app.domain.policies import Policy
from app.domain.prospects import Hindrance, begins_at, conditions, left
from app.domain.times import rfc3339

MOST_MOMENTS: Final = 1000
DEFAULT_MOMENTS: Final = 200
NOBODY: Final = ""
"""Stands for who did something, or from where, where that is not known."""

_FIRST: Final = (-1, 0)
_LAST: Final = (MOST_REDEMPTIONS + 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One thing that happened.

    `at` are UTC seconds, `time` is the same as RFC 3339. `act` is what the audit log calls it,
    `what` says it in words. `who` is an actor as in the audit log, `peer` an address, `serial` that
    of a certificate that was given; each is empty where it is not known, or there is none. `times`
    is how often it happened until then, for what is counted and not told one by one.
    """

    at: int
    time: str
    act: str
    what: str
    who: str
    peer: str = NOBODY
    serial: str = ""
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstruction:
    """Why a claim would be refused now: a word for programs, and words for people."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a grant stands; times are UTC seconds, `revoked_at` is 0 while it is not revoked.

    `next_claim` says in words what a claim with the right code would get now; it would be refused
    for each of the `obstructions`, and has to fulfil the `conditions`.
    """

    state: str
    allowed: int
    spent: int
    left: int
    begins_at: int
    expires_at: int
    revoked_at: int
    wrong_codes: int
    next_claim: str
    obstructions: tuple[Obstruction, ...]
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What happened to a grant, the oldest first, and how it stands at `now` (UTC seconds).

    `left_out` is how many moments before the first of these there are.
    """

    id: str
    name: str
    site: str
    created_at: int
    now: int
    moments: tuple[Moment, ...]
    left_out: int
    standing: Standing


def obstructions(found: Sequence[Hindrance]) -> tuple[Obstruction, ...]:
    """Write hindrances as plain texts."""
    return tuple(Obstruction(reason=one.obstacle.value, text=one.why) for one in found)


def standing(
    grant: Grant, *, now: int, found: Sequence[Hindrance], wrong_codes: int = 0
) -> Standing:
    """Say how a grant stands, where `found` is in the way of its next claim."""
    asked = conditions(grant.policy, networks=True)
    return Standing(
        state=grant.state(now).value,
        allowed=grant.allowed,
        spent=grant.spent,
        left=left(grant, now),
        begins_at=begins_at(grant),
        expires_at=grant.expires_at,
        revoked_at=grant.revoked_at or 0,
        wrong_codes=wrong_codes,
        next_claim=_next_claim(grant, found, asked),
        obstructions=obstructions(found),
        conditions=asked,
    )


def moments(
    grant: Grant, entries: Sequence[Entry], redemptions: Sequence[Redemption], *, whole: bool
) -> tuple[Moment, ...]:
    """Tell entries of the audit log and redemptions as one, the oldest first.

    `entries` are those that are no redemptions. Where all that is kept was asked for (`whole`) and
    nobody wrote down who made the grant, or that is kept no more, the grant itself tells when. What
    happened in one second stands in its order as far as that is known.
    """
    told = [(_place(entry), of_entry(entry)) for entry in entries]
    if whole and all(entry.act is not Act.GRANT_CREATED for entry in entries):
        told.append((_FIRST, _made_by_nobody(grant)))
    told += [((one.ordinal, 0), of_redemption(one)) for one in redemptions]
    return tuple(one for _, one in sorted(told, key=lambda placed: (placed[1].at, placed[0])))


def of_redemption(redemption: Redemption) -> Moment:
    """Tell a redemption."""
    return Moment(
        at=redemption.redeemed_at,
        time=rfc3339(redemption.redeemed_at),
        act=Act.GRANT_REDEEMED.value,
        what=f"redemption {redemption.ordinal}: Link {redemption.name}, "
        f"certificate until {rfc3339(redemption.not_after)}",
        who=f"site:{redemption.subject}",
        peer=redemption.peer,
        serial=redemption.serial,
    )


def of_entry(entry: Entry) -> Moment:
    """Tell an entry of the audit log; what there are no words for is told as its act."""
    told = _Told(entry.details)
    write = _WORDS.get(entry.act)
    peer = "later_peer" if entry.act is Act.GRANT_THEFT_SUSPECTED else "peer"
    return Moment(
        at=entry.at,
        time=rfc3339(entry.at),
        act=entry.act.value,
        what=entry.act.value if write is None else write(told),
        who=entry.actor,
        peer=told.text(peer),
        serial=told.text("serial"),
        times=told.number("times") or 1,
    )


class _Told:
    """The details of an entry, which may have been written by another release."""

    def __init__(self, details: Mapping[str, str | int | None]) -> None:
        self._details = details

    def text(self, name: str) -> str:
        value = self._details.get(name)
        return "" if value is None else str(value)

    def number(self, name: str) -> int | None:
        value = self._details.get(name)
        return value if isinstance(value, int) else None

    def time(self, name: str) -> str:
        at = self.number(name)
        return "" if at is None else rfc3339(at)

    def policy(self) -> Policy | None:
        text = self.text("policy")
        return policies.read(text) if text else None


def _place(entry: Entry) -> tuple[int, int]:
    """Say behind which redemption of its second an entry stands; those that do not tell come last.

    What an operator does tells how many there were. Who is refused comes too late, as a rule.
    """
    if entry.act is Act.GRANT_CREATED:
        return _FIRST
    spent = entry.details.get("spent")
    return (spent, 1) if isinstance(spent, int) else _LAST


def _made_by_nobody(grant: Grant) -> Moment:
    return Moment(
        at=grant.created_at,
        time=rfc3339(grant.created_at),
        act=Act.GRANT_CREATED.value,
        what="made; the audit log does not tell by whom any more",
        who=NOBODY,
    )


def _next_claim(grant: Grant, found: Sequence[Hindrance], asked: Sequence[str]) -> str:
    if found:
        return f"refused: {'; '.join(one.why for one in found)}"
    number = f"redemption {grant.spent + 1} of {grant.allowed}"
    return f"{number}, if {'; '.join(asked)}" if asked else number


def _created(told: _Told) -> str:
    return _listed("made", _terms(told))


def _changed(told: _Told) -> str:
    return _listed("changed", _terms(told))


def _extended(told: _Told) -> str:
    return _listed("extended", _terms(told))


def _terms(told: _Told) -> Iterator[str]:
    if allowed := told.number("allowed"):
        yield f"{allowed} redemption{'' if allowed == 1 else 's'}{_before(told, 'allowed_before')}"
    if until := told.time("expires_at"):
        was = told.time("expired_at_before")
        yield f"until {until}" + (f" (was {was})" if was else "")
    if begins := told.time("not_before"):
        yield f"not before {begins}"
    for name in ("cost", "issuer"):
        if value := told.text(name):
            yield f"{name} {value}"
    yield from _of_resource(told)
    yield from conditions(told.policy(), networks=True)
    for name in ("labels", "description"):
        if value := told.text(name):
            yield f"{name} {' '.join(value.split())}"


def _of_resource(told: _Told) -> Iterator[str]:
    """What only a grant that stands for an AccessGrant has."""
    if told.text("by"):
        yield f"used {told.number('spent')} times, as its status says"
    if revoked := told.time("revoked_at"):
        yield f"revoked at {revoked}, as its status says"
    if told.text("code") == "replaced":
        yield "another code"


def _before(told: _Told, name: str) -> str:
    was = told.number(name)
    return "" if was is None else f" (were {was})"


def _revoked(told: _Told) -> str:
    return "revoked" + (", as its status says" if told.text("by") else "")


def _removed(_: _Told) -> str:
    return "removed"


def _refused(told: _Told) -> str:
    why = told.text("detail") or told.text("why").replace("_", " ")
    return f"refused, though the code was right: {why}{_who_asked(told)}"


def _again(told: _Told) -> str:
    return f"the same answer given once more{_who_asked(told)}"


def _who_asked(told: _Told) -> str:
    times = told.number("times") or 1
    return f" (Link {told.text('name')}" + (f", {times} times)" if times > 1 else ")")


def _locked(told: _Told) -> str:
    return f"locked for those who guess: {told.number('wrong_codes')} wrong codes until then"


def _theft(told: _Told) -> str:
    return (
        f"token theft suspected: last redeemed by {told.text('first_subject')} from "
        f"{told.text('first_peer')} at {told.time('first_at')}, and now the code came from "
        f"{told.text('later_subject')} (Link {told.text('later_name')})"
    )


def _certificates_revoked(told: _Told) -> str:
    count = told.number("certificates") or 0
    why = told.text("why")
    return f"{count} certificate{'' if count == 1 else 's'} revoked" + (f": {why}" if why else "")


def _renewed(told: _Told) -> str:
    return (
        f"certificate of redemption {told.text('ordinal')} renewed, until "
        f"{told.time('not_after')}; the one before was {told.text('replaces')}"
    )


def _certificate_revoked(told: _Told) -> str:
    return f"redemption {told.text('ordinal')}: {_certificates_revoked(told)}"


def _listed(what: str, terms: Iterator[str]) -> str:
    found = "; ".join(terms)
    return f"{what}: {found}" if found else what


_WORDS: Final[Mapping[Act, Callable[[_Told], str]]] = {
    Act.GRANT_CREATED: _created,
    Act.GRANT_CHANGED: _changed,
    Act.GRANT_EXTENDED: _extended,
    Act.GRANT_REVOKED: _revoked,
    Act.GRANT_REMOVED: _removed,
    Act.GRANT_REFUSED: _refused,
    Act.GRANT_ANSWERED_AGAIN: _again,
    Act.GRANT_LOCKED: _locked,
    Act.GRANT_THEFT_SUSPECTED: _theft,
    Act.GRANT_CERTIFICATES_REVOKED: _certificates_revoked,
    Act.CERTIFICATE_RENEWED: _renewed,
    Act.CERTIFICATE_REVOKED: _certificate_revoked,
}
