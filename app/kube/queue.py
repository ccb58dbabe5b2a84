"""Work by key: each key is worked on by one at a time, and what comes twice is done once.

What is done with a key is up to the handler; a key that failed comes again, later each time.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from structlog.stdlib import BoundLogger

from app.errors import GrantServerError, Unavailable
from app.kube.backoff import Backoff, chance

BACKOFF: Final = Backoff(base_seconds=0.05, most_seconds=60.0)
_WORKERS: Final = 8
_MOST_PATIENCE: Final = 3.0
"""Seconds that a key waits because an API server asks for it: one that is well again after moments
may have asked for minutes, and what waits has to be right within five seconds then."""
_WORTH_TELLING: Final = 5  # failures in a row: fewer are ordinary, more are the same again

K = TypeVar("K", bound=Hashable)


class Queue(Generic[K]):
    """Keys that wait to be worked on, on one event loop, `workers` of them at a time.

    `handle` is called with a key and gives the seconds after which it wants to see it again, or
    None. A key that is added while it waits is worked on once, and one that is added while it is
    worked on, once more afterwards. When `handle` raises, the key comes again: after a time that
    doubles with each failure in a row, and no sooner than an Unavailable tells, within reason.
    """

    def __init__(
        self,
        handle: Callable[[K], Awaitable[float | None]],
        *,
        workers: int = _WORKERS,
        backoff: Backoff = BACKOFF,
        random_bytes: Callable[[int], bytes],
        log: BoundLogger,
    ) -> None:
        self._handle = handle
        self._workers = workers
        self._backoff = backoff
        self._random_bytes = random_bytes
        self._log = log
        self._waiting: deque[K] = deque()
        self._wanted: set[K] = set()  # waiting, or to be worked on once more
        self._working: dict[K, asyncio.Task[None]] = {}
        self._later: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._open = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        """Count the keys that wait to be worked on now."""
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Have a key worked on as soon as somebody is free."""
        if key in self._wanted:
            return
        self._wanted.add(key)
        if key not in self._working:
            self._waiting.append(key)
            self._begin()

    def add_after(self, key: K, seconds: float) -> None:
        """Have a key worked on in a while; of several whiles for a key, the one that ends first."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, seconds)
        planned = self._later.get(key)
        if planned is not None:
            if planned.when() <= due:
                return
            planned.cancel()
        self._later[key] = loop.call_at(due, self._is_due, key)

    def start(self) -> None:
        """Begin to work; until then keys only wait."""
        self._open = True
        self._begin()

    async def idle(self) -> None:
        """Wait until nothing waits and nobody works; what is to come later does not count."""
        await self._idle.wait()

    async def stop(self, grace_seconds: float = 0.0) -> None:
        """Begin nothing more, give what is under way so long to end, and forget the rest."""
        self._open = False
        for planned in self._later.values():
            planned.cancel()
        self._later.clear()
        self._waiting.clear()
        self._wanted.clear()
        self._failures.clear()
        working = set(self._working.values())
        try:
            if working and grace_seconds > 0:
                await asyncio.wait(working, timeout=grace_seconds)
        finally:
            for task in working:
                task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

    def _is_due(self, key: K) -> None:
        del self._later[key]
        self.add(key)

    def _begin(self) -> None:
        self._idle.clear()
        while self._open and self._waiting and len(self._working) < self._workers:
            key = self._waiting.popleft()
            self._wanted.discard(key)
            self._working[key] = asyncio.get_running_loop().create_task(self._work(key))
        if not self._waiting and not self._working:
            self._idle.set()

    async def _work(self, key: K) -> None:
        again: float | None = None
        try:
            again = await self._handle(key)
            self._failures.pop(key, None)
        except GrantServerError as error:
            again = self._after_failure(key, error)
        except Exception as error:  # noqa: BLE001 - the next time may fare better; others wait
            self._log.exception("the work has failed", object=str(key))
            again = self._after_failure(key, error)
        finally:
            del self._working[key]
            if key in self._wanted:
                self._waiting.append(key)
            if again is not None and self._open:
                self.add_after(key, again)
            self._begin()

    def _after_failure(self, key: K, error: Exception) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = self._backoff.delay(failures, chance(self._random_bytes))
        if isinstance(error, Unavailable) and error.retry_after is not None:
            pause = max(pause, min(error.retry_after, _MOST_PATIENCE))
        tell = self._log.warning if failures == _WORTH_TELLING else self._log.debug
        tell("the work fails", object=str(key), why=str(error), pause_seconds=round(pause, 2))
        return pause
