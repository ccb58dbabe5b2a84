"""Sealing the audit log: every row gets its link in a chain, and the newest link is signed.

Acts write their rows in their own transactions and wait for nobody; what is here follows about a
second later, one process at a time. Until then a row is not protected; from then on no bit of it
can be changed, and it cannot be taken out or moved, without `verify` naming it.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from structlog.stdlib import BoundLogger

from app.crypto.audit_heads import HeadKeys
from app.domain.audit_chain import Fault, Head, HeadKind, Link, Row, Walk, extend
from app.domain.audit_numbers import Numbers
from app.errors import GrantServerError
from app.store import audit_chain as rows
from app.store.engine import Connection, Database

SEAL_SECONDS: Final = 1.0
"""Between two looks at what waits to be sealed."""

TOLD_SECONDS: Final = 600.0
"""Between two lines of the log with the newest head, while there are new ones."""

LOOK_SECONDS: Final = 600.0
"""Between two looks at all rows of late, instead of those alone that were not seen yet."""

_STEP: Final = 500  # rows looked at and sealed in one transaction
_FRESH_STEP: Final = 2_000  # rows sealed in one that only writes
_HEAD_SECONDS: Final = 600  # one head is kept of each stretch of so many seconds
_OPEN_SECONDS: Final = 600  # far longer than any transaction that writes a row may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of walking the whole chain.

    `fault` is the first place where the log is not as it was sealed, None where there is none.
    `first` and `last` are the positions that were walked (0, 0: none), `head` the newest signed
    link, `waiting` the rows that are not sealed yet, and so not protected.
    """

    fault: Fault | None
    first: int
    last: int
    head: Head | None
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The audit log's chain. `keys` have to be able to sign where anything is sealed or pruned."""

    database: Database
    keys: HeadKeys
    clock: Callable[[], int]

    def seal(self) -> int:
        """Give every row that waits its link, and tell how many they were.

        Looks at all rows of the last ten minutes and more, so the busier the server was, the
        longer it takes. Nothing is locked while nothing waits. Raises Unavailable.
        """
        sealed = 0
        while True:
            with self.database.reading() as connection:
                if not rows.has_waiting(connection, self._floor(connection)):
                    return sealed
            with self.database.writing() as connection:
                waiting = rows.waiting(connection, self._floor(connection), _STEP)
                if waiting:
                    end = rows.end(connection)
                    links = extend(end.hash, end.position, waiting)
                    self._append(connection, links, waiting)
            sealed += len(waiting)
            if len(waiting) < _STEP:
                return sealed

    def seen(self) -> Numbers:
        """What has been written so far; `seal` after it leaves nothing of that without a link.

        Raises Unavailable.
        """
        with self.database.reading() as connection:
            return rows.seen(connection, self._floor(connection))

    def seal_fresh(self, numbers: Numbers) -> int:
        """Do as `seal` does, but look only at rows that are not among the numbers, and note them.

        When it raises, Unavailable, the numbers are good for nothing any more.
        """
        sealed = 0
        while True:
            with self.database.reading() as connection:
                waiting, found = rows.fresh(connection, numbers, _FRESH_STEP)
                end = rows.end(connection)
            if waiting and not self._follow(end, waiting):
                continue  # somebody else was faster: look again
            numbers.note(found)
            sealed += len(waiting)
            if len(found) < _FRESH_STEP:
                return sealed

    def _follow(self, end: Walk, waiting: Sequence[Row]) -> bool:
        """Seal rows behind `end`, if that is where the chain ends still.

        What is hashed is hashed before the transaction, in whose way redemptions are.
        """
        links = extend(end.hash, end.position, waiting)
        with self.database.writing() as connection:
            if rows.end(connection) != end:
                return False
            self._append(connection, links, waiting)
        return True

    def newest_head(self) -> Head | None:
        """The newest signed link. Raises Unavailable."""
        with self.database.reading() as connection:
            return rows.newest_head(connection)

    def prune(self, until: int, *, step: int, dry: bool) -> Iterator[int]:
        """Delete the rows of `until` (UTC seconds) and before, from the oldest on; count them.

        `step` rows at most in a transaction; when `dry`, they are counted only. A row that is not
        sealed stays. What is left begins behind a signed link, which says how far it was deleted.
        """
        after = 0
        while True:
            with self.database.reading() as connection:
                last = rows.last_old(connection, after=after, until=until, limit=step)
            if last is None:
                return
            if dry:
                with self.database.reading() as connection:
                    yield rows.count_between(connection, after, last.position)
            else:
                with self.database.writing() as connection:
                    gone = self._forget(connection, last)
                yield gone
            after = last.position

    def verify(self, expected: Sequence[tuple[int, bytes]] = ()) -> Verdict:
        """Walk the whole chain, and tell the first place where something is wrong.

        `expected` are positions and links that were kept elsewhere. Raises Unavailable.
        """
        with self.database.reading("examining") as connection:
            anchor = rows.pruned_to(connection)
            after = 0 if anchor is None else anchor.position
            verdict = walk(
                self.keys,
                anchor=anchor,
                links=rows.links(connection, after),
                heads=rows.heads(connection, after),
                expected=expected,
            )
            waiting = rows.count_waiting(connection)
        return Verdict(
            fault=verdict.fault,
            first=verdict.first,
            last=verdict.last,
            head=verdict.head,
            waiting=waiting,
        )

    def _floor(self, connection: Connection) -> int:
        return rows.floor(connection, self.clock() - _OPEN_SECONDS)

    def _append(
        self, connection: Connection, links: Sequence[Link], waiting: Sequence[Row]
    ) -> None:
        rows.append(connection, links)
        last = links[-1]
        highest = max(rows.highest_id(connection), *(row.id for row in waiting))
        head = self._signed(HeadKind.SEALED, last, highest)
        rows.replace_head(connection, head, since=head.at - head.at % _HEAD_SECONDS)

    def _forget(self, connection: Connection, last: Link) -> int:
        pruned = rows.pruned_to(connection)
        if pruned is not None and pruned.position >= last.position:
            return 0  # somebody else was faster
        return rows.forget(
            connection,
            self._signed(HeadKind.PRUNED, last, rows.highest_id(connection)),
        )

    def _signed(self, kind: HeadKind, link: Link, highest_id: int) -> Head:
        return self.keys.sign(
            Head(
                kind=kind,
                position=link.position,
                at=self.clock(),
                highest_id=highest_id,
                hash=link.hash,
            )
        )


def walk(
    keys: HeadKeys,
    *,
    anchor: Head | None,
    links: Iterator[tuple[Link, Row | None]],
    heads: Sequence[Head],
    expected: Sequence[tuple[int, bytes]] = (),
) -> Verdict:
    """Walk a chain that begins behind `anchor`, past all heads and what is `expected`."""
    place = Walk()
    if anchor is not None:
        place = Walk(position=anchor.position, hash=anchor.hash)
    first = place.position + 1
    walker = _Walker(keys=keys, place=place, newest=anchor, kept=dict(expected))
    for position, group in groupby(heads, lambda one: one.position):
        walker.signed[position] = list(group)
    fault = None if anchor is None or keys.has_signed(anchor) else _unsigned(anchor)
    fault = fault or walker.walk(links) or walker.end()
    last = place.position if place.position >= first else 0
    return Verdict(
        fault=fault, first=first if last else 0, last=last, head=walker.newest, waiting=0
    )


@dataclass(slots=True, kw_only=True)
class _Walker:
    """One walk: `signed` are the heads that are ahead, `kept` the links kept elsewhere."""

    keys: HeadKeys
    place: Walk
    newest: Head | None
    kept: dict[int, bytes]
    signed: dict[int, list[Head]] = field(default_factory=dict)

    def walk(self, links: Iterator[tuple[Link, Row | None]]) -> Fault | None:
        """Take every link; tell the first fault."""
        for link, row in links:
            if fault := self.place.step(link, row) or self._look_around():
                return fault
        return None

    def _look_around(self) -> Fault | None:
        place = self.place
        for head in self.signed.pop(place.position, ()):
            if not self.keys.has_signed(head):
                return _unsigned(head)
            if fault := place.against(head):
                return fault
            self.newest = head
        if self.kept.pop(place.position, place.hash) != place.hash:
            why = "the link that was kept elsewhere is another"
            return Fault(position=place.position, audit_id=0, why=why)
        return None

    def end(self) -> Fault | None:
        """Tell what is missing at the end: rows that a head is of, or a head of the last rows."""
        last = self.place.position
        ahead = [*self.signed, *(position for position in self.kept if position > last)]
        if ahead:
            why = f"the end is missing: there is a head of position {max(ahead)}"
            return Fault(position=last + 1, audit_id=0, why=why)
        covered = 0 if self.newest is None else self.newest.position
        if covered < last:
            why = "no signed head is of this row, or of one behind it"
            return Fault(position=covered + 1, audit_id=0, why=why)
        return None


def _unsigned(head: Head) -> Fault:
    why = f"the head is not signed by this server's key {head.key_id!r}"
    return Fault(position=head.position, audit_id=0, why=why)


@dataclass(slots=True)
class Sealing:
    """Seals in a thread of its own, again and again until it is stopped; then once more.

    What fails is logged once, and tried again. The newest head is logged now and then, so that
    the log, which is elsewhere, knows of rows that are cut off together with their heads.
    """

    chain: Chain
    monotonic: Callable[[], float]
    log: BoundLogger
    every_seconds: float = SEAL_SECONDS
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _failing: bool = False
    _told: int = 0
    _told_at: float = float("-inf")
    _seen: Numbers | None = None
    _looked_at: float = float("-inf")

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="audit-sealing", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Seal what waits, and end; returns when it has."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def turn(self, *, last: bool = False) -> None:
        """Seal once, and log what came of it."""
        try:
            self._seal()
            self._tell(last=last)
        except GrantServerError as error:
            self._seen = None
            if not self._failing:
                self.log.warning("the audit log could not be sealed", why=str(error))
            self._failing = True
        except Exception:  # the next turn may fare better, and redemptions go on
            self._seen = None
            if not self._failing:
                self.log.exception("the audit log could not be sealed")
            self._failing = True
        else:
            self._failing = False

    def _seal(self) -> None:
        """Look at everything now and then: a database may have been set back meanwhile."""
        now = self.monotonic()
        if self._seen is None or now - self._looked_at >= LOOK_SECONDS:
            seen = self.chain.seen()
            self.chain.seal()
            self._seen, self._looked_at = seen, now
        else:
            self.chain.seal_fresh(self._seen)

    def _tell(self, *, last: bool) -> None:
        now = self.monotonic()
        if now - self._told_at < TOLD_SECONDS and not last:
            return
        head = self.chain.newest_head()
        if head is not None and head.position > self._told:
            self.log.info("audit head", position=head.position, hash=head.hash.hex())
            self._told = head.position
        self._told_at = now

    def _run(self) -> None:
        while not self._stopped.wait(self.every_seconds):
            self.turn()
        self.turn(last=True)
