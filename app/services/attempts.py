"""Writing down who came with the right code and got nothing new: refused, or answered once more.

Nobody waits for it: the answer is on its way before the entry is. What comes again is counted, and
told once in a while, so that whoever has a code can neither fill the log nor hold up those who
redeem.
"""

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from app.domain.attempts import Attempt, attempt_entry
from app.errors import GrantServerError
from app.logs import get_logger
from app.store import audit as audit_rows
from app.store.engine import Database

SPELL_SECONDS: Final = 600
"""So long the same attempt is only counted, after it was written down."""

_WRITE_SECONDS: Final = 1.0  # between two transactions
_MOST_REMEMBERED: Final = 4096
_MOST_OF_A_GRANT: Final = 20  # in a spell; the others are counted together

_log = get_logger(__name__)


class Attempts:
    """Writes attempts into the audit log, in a thread, all that wait in one transaction.

    The first of its kind is written within about a second, and those that are equal to it at the
    end of a spell, as one entry that says how many they were. Used from one event loop.
    """

    def __init__(
        self,
        *,
        database: Database,
        clock: Callable[[], int],
        spell_seconds: int = SPELL_SECONDS,
        write_seconds: float = _WRITE_SECONDS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._spell_seconds = spell_seconds
        self._write_seconds = write_seconds
        self._counted: OrderedDict[Attempt, int] = OrderedDict()  # not written yet, 0: all are
        self._due: dict[Attempt, int] = {}  # when that is to be written
        self._of_grant: Counter[str] = Counter()
        self._writer: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._well = True

    def note(self, made: Attempt) -> None:
        """Count an attempt; it is written down later."""
        if made not in self._counted and (
            self._of_grant[made.grant_id] >= _MOST_OF_A_GRANT
            or len(self._counted) >= _MOST_REMEMBERED
        ):
            made = made.anybody()
        if made not in self._counted:
            if len(self._counted) >= 2 * _MOST_REMEMBERED:
                return  # more grants at once than anybody can have tokens for
            self._of_grant[made.grant_id] += 1
            self._counted[made] = 0
            self._due[made] = 0  # at once
        self._counted[made] += 1
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write_all())

    async def close(self) -> None:
        """Write all that was counted, if the database lets us."""
        self._closing.set()
        if self._writer is not None:
            await self._writer
        await self._write({made: times for made, times in self._counted.items() if times})

    async def _write_all(self) -> None:
        """Write what is due again and again, until there is nothing to wait for any more."""
        try:
            while self._counted and not self._closing.is_set():
                await self._write(self._take())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._write_seconds):
                        await self._closing.wait()
        finally:
            self._writer = None

    def _take(self) -> Mapping[Attempt, int]:
        """What is due; those of which nothing came for a spell are forgotten."""
        now = self._clock()
        due = {}
        for made, at in list(self._due.items()):
            if at > now:
                continue
            if times := self._counted[made]:
                due[made] = times
            else:
                self._forget(made)
        return due

    def _forget(self, made: Attempt) -> None:
        del self._counted[made], self._due[made]
        self._of_grant[made.grant_id] -= 1
        if not self._of_grant[made.grant_id]:
            del self._of_grant[made.grant_id]

    async def _write(self, due: Mapping[Attempt, int]) -> None:
        if not due:
            return
        now = self._clock()
        try:
            await asyncio.to_thread(self._add, due, now)
        except Exception as error:  # noqa: BLE001 - it is tried again, and no answer hangs on it
            if self._well or not isinstance(error, GrantServerError):
                _log.warning("attempts cannot be written down", why=str(error))
            self._well = False
            return
        self._well = True
        for made, times in due.items():
            self._counted[made] -= times  # more may have come meanwhile
            self._due[made] = now + self._spell_seconds

    def _add(self, due: Mapping[Attempt, int], now: int) -> None:
        with self._database.writing() as connection:
            for made, times in due.items():
                audit_rows.add(connection, attempt_entry(made, at=now, times=times))
