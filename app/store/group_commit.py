"""Group commit: claims that wait at the same moment share one transaction.

A durable commit costs an fsync, and one fsync can carry many redemptions. This is the queue in
front of it: who is next, who has waited for too long, and how soon the next commit may begin.
What a commit does is the ledger's matter.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from app.domain.grants import Redemption
from app.errors import Broken, GrantServerError, Unavailable
from app.store.ledger import Kept, Spending

LARGEST_BATCH: Final = 256  # bounds how long the loop is away in one transaction's body
_PATIENCE: Final = 3.0  # seconds from a claim's arrival; an unmodified client gives up after 10

Outcome = Redemption | Kept | GrantServerError


@dataclass(frozen=True, slots=True)
class Waiting:
    """A claim in the queue; past its `deadline` (of the loop's clock) it is sent away."""

    spending: Spending
    answer: asyncio.Future[Redemption | Kept]
    deadline: float

    def give(self, outcome: Outcome) -> None:
        """Answer it, unless its request was cancelled meanwhile."""
        if self.answer.done():
            return
        if isinstance(outcome, GrantServerError):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


def give_all(batch: Sequence[Waiting], outcome: GrantServerError) -> None:
    """Give every claim of a batch the same bad news."""
    for waiting in batch:
        waiting.give(outcome)


class GroupCommit:
    """The queue of one ledger, on one event loop.

    `spacing_seconds` is the least time between the beginnings of two commits: claims that come
    meanwhile share the next one. A claim that comes alone is committed at once. `settle_next` is
    called whenever claims wait and a commit may begin; it takes them with `take` and answers each.
    """

    def __init__(
        self, *, spacing_seconds: float, settle_next: Callable[[], Awaitable[None]]
    ) -> None:
        self._spacing = spacing_seconds
        self._settle_next = settle_next
        self._waiting: list[Waiting] = []
        self._flusher: asyncio.Task[None] | None = None
        self._next_commit = 0.0

    async def spend(self, spending: Spending) -> Redemption | Kept:
        """Queue a redemption, and wait for its outcome; raises what the ledger's `spend` does."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(spending, loop.create_future(), loop.time() + _PATIENCE)
        self._waiting.append(waiting)
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        return await waiting.answer

    def anybody_waits(self) -> bool:
        """Send away who has waited for too long, and tell whether somebody is left."""
        now = asyncio.get_running_loop().time()
        overdue = [one for one in self._waiting if one.deadline <= now]
        self._waiting = [one for one in self._waiting if one.deadline > now]
        give_all(overdue, Unavailable("database: locked by others"))
        return bool(self._waiting)

    def take(self) -> list[Waiting]:
        """Take those who are next; whoever gave up would never see an answer: not spent."""
        batch = self._waiting[:LARGEST_BATCH]
        del self._waiting[:LARGEST_BATCH]
        return [waiting for waiting in batch if not waiting.answer.done()]

    def put_back(self, batch: Sequence[Waiting]) -> None:
        """Let some who were taken wait on, before those who came later."""
        self._waiting[:0] = batch

    async def drain(self) -> None:
        """Wait until everybody has an answer."""
        if self._flusher is not None:
            await self._flusher

    async def _flush(self) -> None:
        """Commit batch after batch until nobody waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                pause = self._next_commit - loop.time()
                if pause > 0:
                    await asyncio.sleep(pause)
                self._next_commit = loop.time() + self._spacing
                await self._settle_next()
        finally:
            # Empty, unless the above is wrong: then nobody shall wait for ever.
            self._flusher = None
            left, self._waiting = self._waiting, []
            give_all(left, Broken("the ledger has stopped"))
