"""The points of a redemption at which a server can be made to die.

The program itself knows nothing of them: its parts are wrapped here, before they are put together,
in a process that was started for this.
"""

import asyncio
import functools
import importlib
import os
import signal
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Final

from app.services.issuance import Issuance
from app.store import postgres_ledger, postgres_line, sqlite_ledger
from app.web.redemption import RedemptionApp

_FLUSH_SECONDS: Final = 0.02
_SPENDS: Final = "UPDATE grants SET spent"


class Point(StrEnum):
    """Where in a redemption the fuse may blow."""

    FOUND = "after-find"
    MINTED = "after-mint"
    QUEUED = "after-the-spend-was-queued"
    UNCOMMITTED = "before-commit"
    COMMITTED = "after-commit"
    HALF_ANSWERED = "half-way-through-the-answer"


class Fuse:
    """Ends the process at the n-th passing of one point, once it is armed."""

    def __init__(self) -> None:
        self._point: Point | None = None
        self._left = 0

    def arm(self, point: Point, passes: int) -> None:
        """Blow at the `passes`-th passing of `point` from now on."""
        self._left = passes
        self._point = point

    def passes(self, point: Point) -> bool:
        """Count a passing, and tell whether it is the one."""
        if point is not self._point:
            return False
        self._left -= 1
        return self._left == 0

    def blow_at(self, point: Point) -> None:
        """Count a passing, and end if it is the one."""
        if self.passes(point):
            blow()


def blow() -> None:
    """End this process as a crash would: nothing is flushed, closed or said."""
    os.kill(os.getpid(), signal.SIGKILL)


def install(fuse: Fuse) -> None:
    """Put the fuse into the parts that servers of this process will be made of."""
    _blow_after(Issuance, "mint", fuse, Point.MINTED)
    _fuse_ledger(sqlite_ledger.SqliteLedger, fuse)
    _fuse_ledger(postgres_ledger.PostgresLedger, fuse)
    _blow_before_commit_on_sqlite(fuse)
    _blow_before_commit_on_postgresql(fuse)
    _blow_in_answers(fuse)


def _blow_after(owner: type, name: str, fuse: Fuse, point: Point) -> None:
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)

    @functools.wraps(original)
    async def wrapped(*arguments: Any, **named: Any) -> Any:
        result = await original(*arguments, **named)
        fuse.blow_at(point)
        return result

    setattr(owner, name, wrapped)


def _fuse_ledger(ledger: type, fuse: Fuse) -> None:
    _blow_after(ledger, "find", fuse, Point.FOUND)
    original: Callable[..., Awaitable[Any]] = ledger.spend  # type: ignore[attr-defined]

    @functools.wraps(original)
    async def spend(self: Any, spending: Any) -> Any:
        spent = asyncio.ensure_future(original(self, spending))
        await asyncio.sleep(0)  # it stands in the queue, and the queue was not looked at yet
        fuse.blow_at(Point.QUEUED)
        outcome = await spent
        fuse.blow_at(Point.COMMITTED)
        return outcome

    ledger.spend = spend  # type: ignore[attr-defined]


def _blow_before_commit_on_sqlite(fuse: Fuse) -> None:
    """Wrap the function in which a transaction's statements are done, all but the commit."""
    original = sqlite_ledger._spend_all  # noqa: SLF001

    def spend_all(*arguments: Any) -> Any:
        outcomes = original(*arguments)
        fuse.blow_at(Point.UNCOMMITTED)
        return outcomes

    sqlite_ledger._spend_all = spend_all  # type: ignore[assignment] # noqa: SLF001


def _blow_before_commit_on_postgresql(fuse: Fuse) -> None:
    """Wrap the one statement that is a whole transaction: when it is time, it is one no more."""
    original = postgres_line.Line.tell

    @functools.wraps(original)
    async def tell(self: Any, statement: str, parameters: Any) -> Any:
        if _SPENDS in statement and fuse.passes(Point.UNCOMMITTED):
            try:
                await original(self, "BEGIN", {})
                await original(self, statement, parameters)
            finally:
                blow()
        return await original(self, statement, parameters)

    postgres_line.Line.tell = tell  # type: ignore[method-assign]


def _blow_in_answers(fuse: Fuse) -> None:
    original = RedemptionApp.__call__

    async def call(self: RedemptionApp, scope: Any, receive: Any, send: Any) -> None:
        status = 0

        async def halved(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            body = message.get("body", b"")
            if status != 200 or not body or not fuse.passes(Point.HALF_ANSWERED):
                await send(message)
                return
            await send({**message, "body": body[: len(body) // 2], "more_body": True})
            await asyncio.sleep(_FLUSH_SECONDS)
            blow()

        await original(self, scope, receive, halved)

    RedemptionApp.__call__ = call  # type: ignore[method-assign]


def load_wrapper(name: str) -> Callable[[], None]:
    """Find the function that `MODULE:FUNCTION` names."""
    module, _, function = name.partition(":")
    wrapper: Callable[[], None] = getattr(importlib.import_module(module), function)
    return wrapper
