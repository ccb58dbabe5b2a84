"""The checker against a search that tries every order, on small histories."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.checker import disagreement
from prove.history import ALWAYS, NEVER, Answer, End, Ending, History, Operation

CLAIMS = 3
LATEST = 12


def an_operation(claim: int = 0, **changes: Any) -> Operation:
    made = Operation(
        claim=claim,
        right=True,
        began=0.0,
        ended=1.0,
        answer=Answer.BUNDLE,
        digest=f"bundle-{claim}",
        status=200,
        where="a",
    )
    return replace(made, **changes)


def a_history(
    *operations: Operation,
    redeemed: Sequence[int] = (),
    allowed: int = 1,
    ending: Ending | None = None,
) -> History:
    end = None if ending is None else End(ending=ending, earliest=ALWAYS, latest=NEVER)
    return History(allowed=allowed, end=end, operations=operations, redeemed=redeemed)


class Model:
    """The counter with a limit, asked one operation after the other."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.order: tuple[int, ...] = ()
        self.bytes: dict[int, str] = {}
        self.ended: Ending | None = None

    def takes(self, one: Operation, *, expired: bool) -> bool:
        """Let an operation have its effect, and tell whether it got what the model answers."""
        if not one.right:
            return one.answer in {Answer.WRONG_CODE, Answer.LIMITED, Answer.UNKNOWN}
        if one.answer is Answer.LIMITED:
            return True
        if one.answer is Answer.UNKNOWN:
            self.redeem(one.claim, f"lost-{one.claim}", expired=expired)
            return True
        return self.redeem(one.claim, one.digest, expired=expired) == (one.answer, one.digest)

    def redeem(self, claim: int, digest: str, *, expired: bool) -> tuple[Answer, str]:
        if self.ended is Ending.REVOKED:
            return Answer.NO_CLAIM, ""
        if claim in self.bytes:
            if self.bytes[claim].startswith("lost-") and digest not in self.bytes.values():
                self.bytes[claim] = digest  # the first to see the bytes says what they were
            return Answer.BUNDLE, self.bytes[claim]
        if expired:
            return Answer.NO_CLAIM, ""
        if len(self.order) == self.allowed:
            return Answer.USED_UP, ""
        if digest in self.bytes.values():
            return Answer.BUNDLE, "fresh"
        self.order += (claim,)
        self.bytes[claim] = digest
        return Answer.BUNDLE, digest

    def copy(self) -> "Model":
        other = Model(self.allowed)
        other.order, other.bytes, other.ended = self.order, dict(self.bytes), self.ended
        return other


def by_trying(history: History) -> bool:
    """Tell whether some order of arrivals and effects explains the history; exponential."""

    def search(
        model: Model, left: Sequence[Operation], arrived: dict[int, bool], end: End | None
    ) -> bool:
        """`arrived` says of operations by id whether the grant had expired; `end` is to come."""
        if (
            all(one.ended == NEVER for one in left)
            and (end is None or end.latest == NEVER)
            and model.order == tuple(history.redeemed)
        ):
            return True
        over = min((one.ended for one in left), default=NEVER)
        if end is not None and over >= end.earliest:
            after = model.copy()
            after.ended = end.ending
            if search(after, left, arrived, None):
                return True
        over = min(over, NEVER if end is None else end.latest)
        for one in left:
            if id(one) in arrived:
                after = model.copy()
                others = [other for other in left if other is not one]
                if after.takes(one, expired=arrived[id(one)]) and search(
                    after, others, arrived, end
                ):
                    return True
            elif one.began <= over:  # nobody was over before this began
                expired = model.ended is Ending.EXPIRED
                if search(model, left, arrived | {id(one): expired}, end):
                    return True
        return False

    return search(Model(history.allowed), history.operations, {}, history.end)


times = st.integers(0, LATEST).map(float)


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    claim = draw(st.integers(0, CLAIMS - 1))
    answer = draw(st.sampled_from([*Answer, Answer.BUNDLE, Answer.BUNDLE, Answer.USED_UP]))
    began, ended = sorted([draw(times), draw(times)])
    odd = draw(st.integers(0, 15)) == 0
    return an_operation(
        claim,
        right=draw(st.integers(0, 9)) > 0,
        began=began,
        ended=NEVER if answer is Answer.UNKNOWN else ended,
        answer=answer,
        digest=("odd" if odd else f"bundle-{claim}") if answer is Answer.BUNDLE else "",
    )


@st.composite
def any_history(draw: st.DrawFn, ending: Ending | None) -> History:
    """A history that was thrown together."""
    earliest, latest = sorted([draw(times), draw(times)])
    return History(
        allowed=draw(st.integers(1, 3)),
        end=None if ending is None else End(ending=ending, earliest=earliest, latest=latest),
        operations=draw(st.lists(operations(), max_size=4)),
        redeemed=draw(st.lists(st.integers(0, CLAIMS - 1), max_size=3, unique=True)),
    )


@st.composite
def lived_history(draw: st.DrawFn, ending: Ending | None, *, bent: bool = False) -> History:
    """A history that the model lived through, and perhaps bent in one place afterwards."""
    allowed = draw(st.integers(1, 2))
    model = Model(allowed)
    count = draw(st.integers(2, 4))
    # Arrivals and effects of all, and the end of the grant, in some order: moments 0, 1, 2, ...
    moments = draw(st.permutations([*range(count), *range(count), count]))
    arrived: dict[int, float] = {}
    expired: dict[int, bool] = {}
    lived: list[Operation] = []
    end = None
    for moment, number in enumerate(map(int, moments)):
        when = float(2 * moment)
        if number == count:
            if ending is not None:
                model.ended = ending
                end = End(
                    ending=ending,
                    earliest=draw(st.sampled_from([when, when - 3, ALWAYS])),
                    latest=draw(st.sampled_from([when, when + 3, NEVER])),
                )
        elif number not in arrived:
            arrived[number] = when
            expired[number] = model.ended is Ending.EXPIRED
        else:
            one = an_operation(
                draw(st.integers(0, CLAIMS - 2)), began=arrived[number], ended=when, digest=""
            )
            answer, digest = model.redeem(one.claim, f"bundle-{one.claim}", expired=expired[number])
            kind = draw(st.integers(0, 9))
            if kind == 0:
                one = replace(one, answer=Answer.UNKNOWN, ended=NEVER)
            else:
                bundle = digest if answer is Answer.BUNDLE else ""
                one = replace(one, answer=answer, digest=bundle)
            lived.append(one)
    redeemed = list(model.order)
    if bent and draw(st.integers(0, 4)) == 0:
        redeemed.reverse()
    elif bent:
        place = draw(st.integers(0, len(lived) - 1))
        one = lived[place]
        shift = draw(st.integers(-9, 9))
        lived[place] = replace(one, began=one.began + shift, ended=one.ended + shift)
    return History(allowed=allowed, end=end, operations=lived, redeemed=redeemed)


endings = pytest.mark.parametrize("ending", [None, *Ending])


@endings
@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_the_checker_agrees_with_a_search_of_all_orders(
    ending: Ending | None, data: st.DataObject
) -> None:
    bent = lived_history(ending, bent=True)
    history = data.draw(st.one_of(any_history(ending), bent, bent, bent))
    assert (disagreement(history) is None) == by_trying(history)


@endings
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_what_was_lived_is_possible(ending: Ending | None, data: st.DataObject) -> None:
    assert disagreement(data.draw(lived_history(ending))) is None


used_up = an_operation(1, answer=Answer.USED_UP, digest="", status=404)
unknown = an_operation(0, answer=Answer.UNKNOWN, digest="", status=None, ended=NEVER)
no_claim = an_operation(2, answer=Answer.NO_CLAIM, digest="", status=404)
expired, revoked = Ending.EXPIRED, Ending.REVOKED
late: dict[str, Any] = {"began": 2.0, "ended": 3.0}


@pytest.mark.parametrize(
    ("history", "why"),
    [
        (a_history(an_operation(0), an_operation(1), redeemed=(0, 1)), "extra: 2 redemptions of 1"),
        (a_history(an_operation(0), redeemed=(0, 0), allowed=2), "redeemed twice"),
        (a_history(an_operation(0), an_operation(0, digest="x"), redeemed=(0,)), "two different"),
        (a_history(an_operation(0)), "an answer and no redemption"),
        (a_history(redeemed=(0,)), "asked for by nobody"),
        (a_history(used_up), "only 0 of 1 were given"),
        (
            a_history(an_operation(0, began=2.0, ended=3.0), used_up, redeemed=(0,)),
            "before the last place",
        ),
        (a_history(unknown, replace(used_up, claim=0), redeemed=(0,)), "lost: claim 0"),
        (
            a_history(
                an_operation(0), an_operation(1, began=2.0, ended=3.0), redeemed=(1, 0), allowed=2
            ),
            "lower ordinal",
        ),
        (a_history(an_operation(0, answer=Answer.IMPOSSIBLE, status=500)), "500"),
        (a_history(an_operation(0, right=False), redeemed=(0,)), "a wrong code"),
        (a_history(no_claim), "in force"),
        *(
            (
                a_history(no_claim, an_operation(0, **late), redeemed=(0,), ending=ending),
                "afterwards",
            )
            for ending in Ending
        ),
        *(
            (
                a_history(
                    an_operation(0),
                    no_claim,
                    replace(used_up, **late),
                    redeemed=(0,),
                    ending=ending,
                ),
                "afterwards",
            )
            for ending in Ending
        ),
        (
            a_history(
                an_operation(0),
                no_claim,
                an_operation(0, **late),
                redeemed=(0,),
                ending=revoked,
            ),
            "afterwards",
        ),
        (
            a_history(
                an_operation(0), replace(no_claim, claim=0, **late), redeemed=(0,), ending=expired
            ),
            "its own claim was refused",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_model_could_not_have_answered_is_named(history: History, why: str) -> None:
    assert why in (disagreement(history) or "")


@pytest.mark.parametrize(
    "history",
    [
        a_history(),
        a_history(an_operation(0), used_up, redeemed=(0,)),
        a_history(an_operation(0), an_operation(0, began=5.0, ended=6.0), redeemed=(0,)),
        a_history(unknown),
        a_history(unknown, redeemed=(0,)),
        a_history(unknown, used_up, redeemed=(0,)),
        a_history(
            an_operation(0), no_claim, an_operation(0, **late), redeemed=(0,), ending=expired
        ),
        a_history(
            an_operation(0, ended=5.0),
            replace(no_claim, claim=0, **late),
            redeemed=(0,),
            ending=expired,
        ),
        a_history(
            an_operation(0), replace(no_claim, claim=0, **late), redeemed=(0,), ending=revoked
        ),
    ],
    ids=[
        "nothing",
        "one place",
        "again",
        "unheard",
        "unheard but done",
        "unheard took the place",
        "again after the expiry",
        "a copy comes too late while the first is on its way",
        "not again after the revocation",
    ],
)
def test_what_the_model_could_have_answered_is_taken(history: History) -> None:
    assert disagreement(history) is None
