"""Whether a grant's history is linearizable; a pure question.

The model is a counter with a limit in which a repeated claim gets its first answer. An operation
arrives at one moment and has its effect at another, not earlier, both between its beginning and
its end. The two differ only in what the clock says: whether a grant has expired is judged when a
claim arrives, everything else at the effect. A history is linearizable when there are such moments
for every operation that the model, going through them in their order, gives the answers that were
seen:

- a claim with the wrong code is refused, and changes nothing;
- once the grant is revoked, every claim gets `no such claim`;
- a claim that was redeemed gets the bytes of its redemption again;
- a claim that arrived when the grant had expired gets `no such claim`;
- while fewer than `allowed` are spent, a claim is redeemed: one more is spent, and its bytes
  are nobody else's;
- then it gets `used up`.

An operation without an answer may have happened at any moment after its beginning, or never. The
last operation reads who was redeemed, in the order of the ordinals; it begins when all is over.

Finding linearizations is hard in general, because of the orders that must be tried. Here the last
read gives the order of all redemptions away, p1 <= p2 <= ... <= pm, and everything else follows
from the first and the last possible value of each of these moments and of the grant's end:

- pi lies after the beginning of the first operation of its claim that can have caused it (one
  with a bundle or without an answer), and before the end of the first that brought a bundle; any
  moment between the two will do, since every such operation that begins there lasts as long;
- `used up` was said to somebody when all places were taken, who arrived before the end of the
  grant: only if m = allowed, never to a claim that was redeemed, pm lies before the end of that
  operation, and the end of the grant after its beginning;
- `no such claim` was said after the end of the grant: it lies before the end of that operation.
  After an expiry, this was said to a claim that was not redeemed yet: if it was later, by an
  operation that had arrived in time, then pi lies after the beginning of the one refused;
- the end of the grant lies after the beginning of the operations that caused redemptions; a
  revocation also after the redemptions themselves (which lie no later than they must), and after
  the beginning of every operation that brought a bundle.

Such moments exist exactly if, along the chain, no last possible value comes before the latest of
the first possible ones so far. So the check is exact, and takes linear time. Two operations that
meet in one tick of the clock count as concurrent.
"""

from collections.abc import Iterator

from prove.history import ALWAYS, NEVER, Answer, Ending, History, Operation


class _Disagreement(Exception):
    """What the model could not have answered."""


def disagreement(history: History) -> str | None:
    """Say why no order of the operations explains what was seen; None when one does."""
    try:
        _check(history)
    except _Disagreement as found:
        return str(found)
    return None


class _Bounds:
    """The first and the last possible moment of each redemption and of the grant's end."""

    def __init__(self, history: History) -> None:
        end = history.end
        self.first: dict[int, float] = {}
        self.last: dict[int, float] = {}
        self.not_before: dict[int, float] = {}
        self.full_by = NEVER
        self.end_first = ALWAYS if end is None else end.earliest
        self.end_last = NEVER if end is None else end.latest

    def caused_by(self, one: Operation, answered_by: float) -> None:
        self.first[one.claim] = min(one.began, self.first.get(one.claim, NEVER))
        self.last[one.claim] = min(answered_by, self.last.get(one.claim, NEVER))


def _check(history: History) -> None:
    redeemed = {claim: ordinal for ordinal, claim in enumerate(history.redeemed, start=1)}
    if len(redeemed) < len(history.redeemed):
        raise _Disagreement("extra: a claim was redeemed twice")
    if len(redeemed) > history.allowed:
        raise _Disagreement(f"extra: {len(redeemed)} redemptions of {history.allowed}")
    bounds = _Bounds(history)
    for one in history.operations:
        if one.right:
            _bound(one, history, redeemed, bounds)
        elif one.answer not in {Answer.WRONG_CODE, Answer.LIMITED, Answer.UNKNOWN}:
            raise _Disagreement(f"a wrong code got `{one.answer}` (claim {one.claim})")
    _check_bytes(history)
    _check_moments(redeemed, bounds)


def _check_moments(redeemed: dict[int, int], bounds: _Bounds) -> None:
    """Go along the chain: nothing may have to be later than it can be."""
    latest = ALWAYS
    for claim, ordinal in redeemed.items():
        if claim not in bounds.first:
            raise _Disagreement(f"extra: redemption {ordinal} was asked for by nobody")
        latest = max(latest, bounds.first[claim], bounds.not_before.get(claim, ALWAYS))
        if latest > bounds.last[claim]:
            raise _Disagreement(
                f"redemption {ordinal} (claim {claim}) was answered before one with a lower "
                "ordinal was asked for, or before its own claim was refused"
            )
    if latest > bounds.full_by:
        raise _Disagreement("`used up` was said before the last place can have been taken")
    given = max((bounds.first[claim] for claim in redeemed), default=ALWAYS)
    if max(given, bounds.end_first) > bounds.end_last:
        raise _Disagreement("`no such claim` was said, and something was given afterwards")


def _bound(  # noqa: C901 - one case for each answer
    one: Operation, history: History, redeemed: dict[int, int], bounds: _Bounds
) -> None:
    """Take in what an operation with the right code says about the moments."""
    end = history.end
    match one.answer:
        case Answer.BUNDLE:
            if one.claim not in redeemed:
                raise _Disagreement(f"extra: claim {one.claim} has an answer and no redemption")
            bounds.caused_by(one, one.ended)
            if end is not None and end.ending is Ending.REVOKED:
                bounds.end_first = max(bounds.end_first, one.began)
        case Answer.UNKNOWN:
            bounds.caused_by(one, NEVER)
        case Answer.USED_UP:
            if one.claim in redeemed:
                raise _Disagreement(f"lost: claim {one.claim} was redeemed, and got `used up`")
            if len(redeemed) < history.allowed:
                raise _Disagreement(
                    f"lost: claim {one.claim} got `used up`, and only {len(redeemed)} of "
                    f"{history.allowed} were given"
                )
            bounds.full_by = min(bounds.full_by, one.ended)
            bounds.end_first = max(bounds.end_first, one.began)
        case Answer.NO_CLAIM:
            if end is None:
                raise _Disagreement(f"claim {one.claim} of a grant in force got `{one.answer}`")
            if end.ending is Ending.EXPIRED and one.claim in redeemed:
                bounds.not_before[one.claim] = max(
                    one.began, bounds.not_before.get(one.claim, ALWAYS)
                )
            bounds.end_last = min(bounds.end_last, one.ended)
        case Answer.LIMITED:
            pass
        case _:
            raise _Disagreement(
                f"claim {one.claim} with the right code got `{one.answer}` ({one.status})"
            )


def _check_bytes(history: History) -> None:
    """Copies of a claim get the same bytes, and no two claims do."""
    owners: dict[str, int] = {}
    digests: dict[int, str] = {}
    for one in _bundles(history):
        if digests.setdefault(one.claim, one.digest) != one.digest:
            raise _Disagreement(f"extra: claim {one.claim} got two different answers")
        if owners.setdefault(one.digest, one.claim) != one.claim:
            raise _Disagreement(f"claims {owners[one.digest]} and {one.claim} got one answer")


def _bundles(history: History) -> Iterator[Operation]:
    return (one for one in history.operations if one.answer is Answer.BUNDLE)
