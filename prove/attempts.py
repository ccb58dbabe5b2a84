"""The first phase: grants of all sizes, claimed by more clients than they have places.

Two servers and two processes that are servers as well all work on one database; attempts come
over TLS and in-process, and rounds are checked while the next one runs.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from prove import executors
from prove.agreement import Auditor, Story
from prove.executors import Executor
from prove.figures import Figures
from prove.history import ALWAYS, End, Ending, Operation
from prove.jobs import Job, Outcome, Target
from prove.plan import Kind, Round, deal, draw_round
from prove.replicas import Installed
from prove.stand import Stand

ROUND: Final = 2500
"""Attempts of one round, about; its histories are in memory until they are checked."""
IN_PROCESS: Final = 2
TLS_WIDTH: Final = 96
IN_PROCESS_WIDTH: Final = 256
_CLOCKS_AGREE: Final = 0.1
"""Seconds by which the wall clock may have moved against the other one in a round."""


def run(
    stand: Stand,
    auditor: Auditor,
    figures: Figures,
    *,
    attempts: int,
    tls: int,
    random: Random,
    wrapper: str | None,
    say: Callable[[str], None],
) -> None:
    """Make `attempts`, `tls` of them over TLS. Raises Disagreement at the first one."""
    if not attempts:
        return
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        replicas = [Installed(stand, name, wrapper=wrapper) for name in "ab"]
        for replica in replicas:
            stack.callback(replica.stop)
        beside = [
            stack.enter_context(executors.beside(stand, number, wrapper))
            for number in range(1, IN_PROCESS + 1)
        ]
        for replica in replicas:
            replica.wait_ready()
        over_tls = stack.enter_context(executors.tls([one.port for one in replicas]))
        crew = [over_tls, *beside]
        share = tls / attempts
        shares = [share, *[(1 - share) / IN_PROCESS] * IN_PROCESS]
        rounds = max(1, round(attempts / ROUND))
        before: tuple[Round, Sequence[Target], Outcome] | None = None
        for number in range(rounds):
            size = attempts * (number + 1) // rounds - attempts * number // rounds
            drawn = draw_round(random, size)
            targets = stand.make(random, drawn.wishes)
            _begin(crew, drawn, targets, random, shares)
            if before is not None:
                check(auditor, *before)
            before = drawn, targets, _end(crew, figures)
            figures.attempts += size
            if (number + 1) % max(1, rounds // 20) == 0:
                rate = figures.attempts / (time.monotonic() - began)
                say(f"{figures.attempts:,} of {attempts:,} attempts, {rate:.0f}/s")
        if before is not None:
            check(auditor, *before)
    figures.attempts_seconds = time.monotonic() - began


def _begin(
    crew: Sequence[Executor],
    drawn: Round,
    targets: Sequence[Target],
    random: Random,
    shares: Sequence[float],
) -> None:
    """Give everybody a part of the round at the same moment."""
    for number, (executor, orders) in enumerate(
        zip(crew, deal(random, drawn, shares), strict=True)
    ):
        executor.begin(
            Job(
                targets=targets,
                claims=[wish.claims for wish in drawn.wishes],
                orders=orders,
                width=IN_PROCESS_WIDTH if number else TLS_WIDTH,
            )
        )


def _end(crew: Sequence[Executor], figures: Figures) -> Outcome:
    outcome = crew[0].end()
    figures.tls += len(outcome.operations)
    for executor in crew[1:]:
        outcome.merge(executor.end())
    figures.tries += len(outcome.operations)
    return outcome


def check(auditor: Auditor, drawn: Round, targets: Sequence[Target], outcome: Outcome) -> None:
    """Check the grants of a round that is over. Raises Disagreement."""
    operations: list[list[Operation]] = [[] for _ in targets]
    for grant, one in outcome.operations:
        operations[grant].append(one)
    revoked = {
        one.grant: End(ending=Ending.REVOKED, earliest=one.began, latest=one.ended)
        for one in outcome.revocations
    }
    stories = [
        Story(
            target=target,
            allowed=wish.allowed,
            claims=wish.claims,
            end=revoked.get(grant) or _end_of(wish.kind, target),
            operations=operations[grant],
        )
        for grant, (target, wish) in enumerate(zip(targets, drawn.wishes, strict=True))
    ]
    auditor.check(stories, outcome.bundles)


def _end_of(kind: Kind, target: Target) -> End | None:
    """Say when a grant ends by itself, on the clock that operations are timed by."""
    match kind:
        case Kind.EXPIRED | Kind.MISSING:
            return End(ending=Ending.EXPIRED, earliest=ALWAYS, latest=ALWAYS)
        case Kind.REVOKED:
            return End(ending=Ending.REVOKED, earliest=ALWAYS, latest=ALWAYS)
        case Kind.EXPIRING:
            moment = target.expires_at - (time.time() - time.monotonic())
            return End(
                ending=Ending.EXPIRED,
                earliest=moment - _CLOCKS_AGREE,
                latest=moment + _CLOCKS_AGREE,
            )
        case _:
            return None
