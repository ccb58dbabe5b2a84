"""Housekeeping: what nobody needs any more is deleted, so that the store does not grow for ever.

Answers go when their time is over; grants, with all that belongs to them, certificates that were
renewed, audit entries and events that no webhook took go when they are older than they are to be
kept, and authorities of issuer Secrets when nothing refers to them any more. It goes on beside
redemptions and never in their way: few rows in a transaction, and a rest after each that is longer
than the transaction was. The steps of rotations that are due are taken by the way, and it is told
of certificates that end soon.
"""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from structlog.stdlib import BoundLogger

from app.errors import GrantServerError
from app.metrics import Pruned
from app.services.audit_chain import Chain
from app.store import deliveries as delivery_rows
from app.store import pruning
from app.store.engine import Database
from app.store.pruning import ANSWERS, BEGINNING, CREATIONS, RENEWALS, Aging, Place

UNBOUNDED: Final = sys.maxsize
ROTATION_SECONDS: Final = 60.0
"""Between two looks at what rotations want next: a look is a small query."""

STEADY_SECONDS: Final = 3600.0
"""For so long nothing is done that the time calls for, when the clock has jumped."""

_JUMP_SECONDS: Final = 60.0  # clocks that are set right by a little every day do not count

_REST: Final = 4.0  # times as long as the step before it: a fifth of the time, at most, is ours
_LONGEST_REST: Final = 2.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How long something is kept after its end, in seconds; 0 keeps it for ever."""

    grants_seconds: int
    audit_seconds: int


@dataclass(slots=True, kw_only=True)
class Sweeper:
    """Deletes what may go, a step at a time.

    A step is a transaction of `step` rows, twice as many at most. A sweep leaves a kind when it has
    deleted `most` rows of it, or looked at `most_in_vain` grants that have to stay: the next one
    goes on behind them.
    """

    database: Database
    chain: Chain
    keep: Keep
    clock: Callable[[], int]
    step: int = 500
    most: int = 200_000
    most_in_vain: int = 10_000
    _place: Place = field(default=BEGINNING, init=False)

    def sweep(self, *, dry: bool = False) -> Iterator[Mapping[Pruned, int]]:
        """Sweep once; after each step, tell what it deleted. No transaction is open between them.

        When `dry`, it is counted only. Raises Unavailable when the database does not serve us;
        what was told is deleted all the same.
        """
        now = self.clock()
        for kept in (ANSWERS, CREATIONS):
            yield from self._aged(kept, Pruned.ANSWERS, now, dry=dry)
        if self.keep.grants_seconds:
            yield from self._grants(now - self.keep.grants_seconds, now, dry=dry)
            # A link that is renewed lives longer than any of its certificates.
            ended = now - self.keep.grants_seconds
            yield from self._aged(RENEWALS, Pruned.RENEWALS, ended, dry=dry)
        if self.keep.audit_seconds:
            yield from self._audit(now - self.keep.audit_seconds, dry=dry)
            yield from self._deliveries(now - self.keep.audit_seconds, dry=dry)
        yield from self._authorities(now, dry=dry)

    def _audit(self, until: int, *, dry: bool) -> Iterator[Mapping[Pruned, int]]:
        """Delete what is sealed, and old: the chain is told how far."""
        gone = 0
        for deleted in self.chain.prune(until, step=self.step, dry=dry):
            yield {Pruned.AUDIT: deleted}
            gone += deleted
            if gone >= self.most:
                return

    def _deliveries(self, until: int, *, dry: bool) -> Iterator[Mapping[Pruned, int]]:
        """Forget events that were given up: as long as the audit log is, they are kept."""
        gone = 0
        while gone < self.most:
            with self.database.reading() as connection:
                over = delivery_rows.count_forgettable(connection, until=until)
            if over and not dry:
                with self.database.writing() as connection:
                    over = delivery_rows.forget(connection, until=until, limit=self.step)
            if over:
                yield {Pruned.DELIVERIES: over}
            if dry or over < self.step:
                return
            gone += over

    def _authorities(self, now: int, *, dry: bool) -> Iterator[Mapping[Pruned, int]]:
        """Forget those of issuer Secrets; there are few, and most sweeps find none."""
        limit = UNBOUNDED if dry else self.step
        with self.database.reading() as connection:
            over = pruning.forget_authorities(connection, now=now, limit=limit, dry=True)
        if over and not dry:
            with self.database.writing() as connection:
                over = pruning.forget_authorities(connection, now=now, limit=limit, dry=False)
        if over:
            yield {Pruned.AUTHORITIES: over}

    def _aged(
        self, aging: Aging, kind: Pruned, until: int, *, dry: bool
    ) -> Iterator[Mapping[Pruned, int]]:
        """Go from the oldest row upwards, until nothing is old any more."""
        after, gone = 0, 0
        while gone < self.most:
            with self.database.reading() as connection:
                found = pruning.look(connection, aging, after=after, until=until, limit=self.step)
            if found is None or not found.old:
                return
            deleted = found.old
            if not dry:
                with self.database.writing() as connection:
                    deleted = pruning.forget(connection, aging, found, until=until)
            yield {kind: deleted}
            if found.rows < self.step:
                return
            after, gone = found.last, gone + deleted

    def _grants(self, until: int, now: int, *, dry: bool) -> Iterator[Mapping[Pruned, int]]:
        """Go on where the last sweep has stopped; what has to stay may be in the way of others."""
        place = BEGINNING if dry else self._place
        gone = in_vain = 0
        while gone < self.most and in_vain < self.most_in_vain:
            with self.database.reading() as connection:
                found = pruning.look_at_grants(
                    connection, after=place, until=until, now=now, limit=self.step
                )
                rows = pruning.count_redemptions(connection, found.over) if found and dry else 0
            if found is None:
                self._place = BEGINNING
                return
            if not found.over:
                yield {}
            elif dry:
                yield {Pruned.GRANTS: len(found.over), Pruned.REDEMPTIONS: rows}
            else:
                for deleted in self._forget_grants(found.over, until, now):
                    yield deleted
                    gone += deleted.total()
                    if gone >= self.most:
                        return
            in_vain += found.rows - len(found.over)
            place = found.last
            if not dry:
                self._place = place

    def _forget_grants(
        self, over: Sequence[str], until: int, now: int
    ) -> Iterator[Counter[Pruned]]:
        complete = False
        while not complete:
            with self.database.writing() as connection:
                gone = pruning.forget_grants(
                    connection, over, until=until, now=now, limit=self.step
                )
            complete = gone.complete
            yield Counter(
                {
                    Pruned.GRANTS: gone.grants,
                    Pruned.REDEMPTIONS: gone.redemptions,
                    Pruned.RENEWALS: gone.renewals,
                }
            )


class SteadyClock:
    """Tells whether the clock has gone on, since it was asked last, as time has.

    What is deleted or ended does not come back when a clock that was wrong is set right.
    """

    def __init__(self, clock: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._offset = clock() - monotonic()
        self._until = float("-inf")

    def jump(self) -> float:
        """By how many seconds it has jumped, ahead or (less than 0) back; 0 when it has not."""
        passed = self._monotonic()
        offset = self._clock() - passed
        jump, self._offset = offset - self._offset, offset
        if abs(jump) <= _JUMP_SECONDS:
            return 0.0
        self._until = passed + STEADY_SECONDS
        return jump

    @property
    def trusted(self) -> bool:
        """Whether the last jump is some time ago."""
        return self._monotonic() >= self._until


class Housekeeping:
    """Sweeps in a thread of its own, at once and then `every_seconds`, until it is stopped.

    `on_pruned` is told what each transaction has deleted, `on_swept` when a sweep has come to its
    end; both are called in the thread. `advance` takes the steps of rotations that are due, and
    tells how many they were; it is called before each sweep, and every `ROTATION_SECONDS` too.
    `announce` tells of certificates that end soon, and how many; it is called after each sweep.
    What fails is logged, and the next turn tries again. When the sweeper's clock has jumped,
    none of this is done for `STEADY_SECONDS`: it may be set right again.
    """

    def __init__(
        self,
        sweeper: Sweeper,
        *,
        every_seconds: float,
        advance: Callable[[], int] = lambda: 0,
        announce: Callable[[], int] = lambda: 0,
        monotonic: Callable[[], float],
        log: BoundLogger,
        on_pruned: Callable[[Pruned, int], None],
        on_swept: Callable[[], None],
    ) -> None:
        self._sweeper = sweeper
        self._every = min(every_seconds, threading.TIMEOUT_MAX)
        self._advance = advance
        self._announce = announce
        self._monotonic = monotonic
        self._steady = SteadyClock(sweeper.clock, monotonic)
        self._log = log
        self._on_pruned = on_pruned
        self._on_swept = on_swept
        self._stopped = threading.Event()
        # A process that ends without stopping us loses nothing but what was not committed.
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the transaction that is under way; returns when it has ended."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def turn(self) -> None:
        """Sweep once, with rests, and log what came of it."""
        pruned: Counter[Pruned] = Counter()
        try:
            for deleted in _paced(self._sweeper.sweep(), self._monotonic, self._stopped.wait):
                for kind, count in deleted.items():
                    self._on_pruned(kind, count)
                pruned.update(deleted)
                if self._stopped.is_set():
                    break
            else:
                self._on_swept()
        except GrantServerError as error:
            self._log.warning("the store could not be swept", why=str(error))
        except Exception:  # noqa: BLE001 - the next turn may fare better, and redemptions go on
            self._log.exception("the store could not be swept")
        if pruned.total():
            self._log.info("pruned", **{kind.value: pruned[kind] for kind in Pruned})

    def look(self, *, sweep: bool) -> None:
        """Take the steps of rotations, and `sweep`, unless the clock may be wrong."""
        if jump := self._steady.jump():
            self._log.warning(
                "the clock has jumped: nothing is deleted or rotated for a while",
                jump_seconds=round(jump),
                wait_seconds=STEADY_SECONDS,
            )
        if self._steady.trusted:
            self.rotate()
            if sweep:
                self.turn()
                self.announce()

    def rotate(self) -> None:
        """Take the steps of rotations that are due."""
        try:
            taken = self._advance()
        except GrantServerError as error:
            self._log.warning("rotations could not go on", why=str(error))
        except Exception:  # noqa: BLE001 - as above
            self._log.exception("rotations could not go on")
        else:
            if taken:
                self._log.info("rotations went on", steps=taken)

    def announce(self) -> None:
        """Tell of certificates that end soon."""
        try:
            told = self._announce()
        except GrantServerError as error:
            self._log.warning("certificates that end soon could not be told of", why=str(error))
        except Exception:  # noqa: BLE001 - as above
            self._log.exception("certificates that end soon could not be told of")
        else:
            if told:
                self._log.info("certificates end soon", certificates=told)

    def _run(self) -> None:
        while True:
            self.look(sweep=True)
            left = self._every
            while left > 0:
                rest = min(left, ROTATION_SECONDS)
                if self._stopped.wait(rest):
                    return
                left -= rest
                if left > 0:
                    self.look(sweep=False)


def prune(
    database: Database,
    chain: Chain,
    keep: Keep,
    *,
    clock: Callable[[], int],
    monotonic: Callable[[], float],
    dry: bool = False,
) -> Mapping[Pruned, int]:
    """Delete all that may go, however long it takes, with the same regard for redemptions.

    Tells how many rows went; when `dry`, how many would go. Raises Unavailable.
    """
    if keep.audit_seconds:
        chain.seal()  # where no server runs, nobody else does
    sweeper = Sweeper(
        database=database,
        chain=chain,
        keep=keep,
        clock=clock,
        most=UNBOUNDED,
        most_in_vain=UNBOUNDED,
    )
    pruned: Counter[Pruned] = Counter()
    steps = sweeper.sweep(dry=dry)
    for deleted in steps if dry else _paced(steps, monotonic, threading.Event().wait):
        pruned.update(deleted)
    return {kind: pruned[kind] for kind in Pruned}


def _paced(
    steps: Iterable[Mapping[Pruned, int]],
    monotonic: Callable[[], float],
    rest: Callable[[float], object],
) -> Iterator[Mapping[Pruned, int]]:
    """Pass steps on, and rest after each for several times as long as it has taken."""
    began = monotonic()
    for step in steps:
        took = monotonic() - began
        yield step
        rest(min(_REST * took, _LONGEST_REST))
        began = monotonic()
