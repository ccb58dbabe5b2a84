"""The second phase: servers that die with claims in their hands.

Two servers under load; one of them kills itself at a named point of a redemption, or the other is
killed at a random moment, or both happen at once. Then whoever died is started again, every claim
that got no answer is made again, and the round is checked like any other.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import Final

from prove import executors
from prove.agreement import Auditor
from prove.attempts import check
from prove.executors import Executor
from prove.figures import Figures
from prove.history import Answer
from prove.jobs import TRIES, Job, Outcome, Target
from prove.plan import Kind, Order, Round, draw_grant
from prove.points import Point
from prove.replicas import Mortal, ServerFailed
from prove.stand import Stand

WIDTH: Final = 24
GRANTS: Final = 5
SIZES: Final = (1, 2, 3, 5, 8, 13)
MOST_PASSES: Final = 6
ASKED_AGAIN: Final = 8
"""How many claims that were answered are made once more, beside all that were not."""
_DIES_WITHIN: Final = 0.1  # seconds from the last answer
_MOST_FURTHER: Final = 8
_MOST_ATTEMPTS: Final = 1000
_KINDS: Final = {Kind.ORDINARY: 9, Kind.EXPIRED: 1, Kind.REVOKED: 1}

_ORDER: Final = (
    *(Point.COMMITTED, Point.HALF_ANSWERED, Point.UNCOMMITTED),
    *(Point.QUEUED, Point.MINTED, Point.FOUND),
)
"""In which the points are visited: a run of few kills sees those that matter most."""


class _Way(Enum):
    """Who is killed in a round: the one at a point, the other at a random moment, or both."""

    POINT = auto()
    MOMENT = auto()
    BOTH = auto()


def run(
    stand: Stand,
    auditor: Auditor,
    figures: Figures,
    *,
    kills: int,
    random: Random,
    wrapper: str | None,
    say: Callable[[str], None],
) -> None:
    """Kill servers until it was done `kills` times. Raises Disagreement at the first one."""
    if not kills:
        return
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        fused = Mortal(stand, "fused", fused=True, wrapper=wrapper)
        plain = Mortal(stand, "plain", fused=False, wrapper=wrapper)
        for replica in (fused, plain):
            stack.callback(replica.stop)
            replica.start()
        for replica in (fused, plain):
            replica.wait_ready()
        clients = stack.enter_context(executors.tls([fused.port, plain.port]))
        phase = _Phase(stand, auditor, figures, random, clients, fused, plain)
        points = itertools.cycle(_ORDER)
        ways = itertools.cycle(_Way)
        before = 0
        while (done := sum(figures.kills.values())) < kills:
            way = next(ways) if kills - done > 1 else _Way.POINT
            phase.play(way, points)
            if done // max(1, kills // 10) > before:
                before = done // max(1, kills // 10)
                say(f"{done} of {kills} kills, {(time.monotonic() - began) / done:.1f} s each")
    figures.kills_seconds = time.monotonic() - began


class _Phase:
    """What the rounds of the phase have in common."""

    def __init__(
        self,
        stand: Stand,
        auditor: Auditor,
        figures: Figures,
        random: Random,
        clients: Executor,
        fused: Mortal,
        plain: Mortal,
    ) -> None:
        self._stand = stand
        self._auditor = auditor
        self._figures = figures
        self._random = random
        self._clients = clients
        self._fused = fused
        self._plain = plain
        self._usual_seconds = 0.1

    def play(self, way: _Way, points: Iterator[Point]) -> None:
        """Play one round to its end."""
        first = self._part()
        dead = []
        if way is not _Way.MOMENT:
            point = next(points)
            self._fused.arm(point, self._random.randint(1, MOST_PASSES))
        began = time.monotonic()
        self._begin(first, _orders(first.drawn))
        if way is not _Way.POINT:
            self._clients.is_done(self._random.uniform(0.0, self._usual_seconds))
            self._plain.kill()
            self._figures.kills["at a random moment"] += 1
            dead.append(self._plain)
        self._end(first)
        if way is _Way.POINT:
            self._usual_seconds = 0.8 * self._usual_seconds + 0.2 * (time.monotonic() - began)
        parts = [first]
        if way is not _Way.MOMENT:
            parts += self._load_until_it_dies()
            self._fused.bury()
            self._figures.kills[point.value] += 1
            dead.append(self._fused)
        for replica in dead:
            replica.start()
        for replica in dead:
            replica.wait_ready()
        for part in parts:
            self._begin(part, self._again(part), insist=True)
            self._end(part)
            check(self._auditor, part.drawn, part.targets, part.outcome)

    def _load_until_it_dies(self) -> Sequence["_Part"]:
        """Go on with other grants until the fuse has blown. Raises ServerFailed if it does not."""
        further: list[_Part] = []
        while not self._fused.is_dead(_DIES_WITHIN):
            if len(further) == _MOST_FURTHER:
                raise ServerFailed("no claim came to the point at which the server was to die")
            part = self._part()
            self._begin(part, _orders(part.drawn))
            self._end(part)
            further.append(part)
        return further

    def _part(self) -> "_Part":
        random = self._random
        wishes = [
            draw_grant(
                random,
                number=number,
                kind=random.choices([*_KINDS], [*_KINDS.values()])[0] if number else Kind.ORDINARY,
                most=_MOST_ATTEMPTS,
                # The first has places enough for the fuse to be passed.
                allowed=random.choice(SIZES) if number else 4 * MOST_PASSES,
            )
            for number in range(GRANTS)
        ]
        drawn = Round(wishes=wishes, late=())
        return _Part(drawn, self._stand.make(random, wishes), Outcome())

    def _begin(self, part: "_Part", orders: Sequence[Order], *, insist: bool = False) -> None:
        self._clients.begin(
            Job(
                targets=part.targets,
                claims=[wish.claims for wish in part.drawn.wishes],
                orders=orders,
                width=WIDTH,
                tries=TRIES if insist else 2,
                insist=insist,
            )
        )

    def _end(self, part: "_Part") -> None:
        outcome = self._clients.end()
        self._figures.tls += len(outcome.operations)
        self._figures.tries += len(outcome.operations)
        part.outcome.merge(outcome)

    def _again(self, part: "_Part") -> Sequence[Order]:
        """Order every claim once more that has no answer, and some that have one, two at a time."""
        answered: set[tuple[int, int]] = set()
        without: set[tuple[int, int]] = set()
        for grant, one in part.outcome.operations:
            if one.right:
                (without if one.answer is Answer.UNKNOWN else answered).add((grant, one.claim))
        cut = sorted(without - answered)
        self._figures.cut += len(cut)
        others = sorted(answered)
        some = self._random.sample(others, min(ASKED_AGAIN, len(others)))
        return [
            Order(grant, claim, right=True, peer=part.drawn.wishes[grant].claims[claim].peer)
            for grant, claim in [*sorted(without), *some]
            for _ in range(2)
        ]


@dataclass(frozen=True, slots=True)
class _Part:
    """Grants, the claims on them, and what was seen so far."""

    drawn: Round
    targets: Sequence[Target]
    outcome: Outcome


def _orders(drawn: Round) -> Sequence[Order]:
    """The attempts of a round, grant beside grant."""
    volleys = [volley for wish in drawn.wishes for volley in wish.volleys]
    return [one for volley in volleys for one in volley]
