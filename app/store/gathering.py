"""Look-ups that share a query: whoever asks while one is under way is answered by the next."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from app.errors import Broken, GrantServerError

_MOST_AT_ONCE: Final = 256

K = TypeVar("K")
V = TypeVar("V")


class Gathering(Generic[K, V]):
    """Look-ups of one kind, on one event loop.

    `look_up` gets keys, each once, and gives a value for each that it has found; it raises an
    error of ours for all of them.
    """

    def __init__(self, look_up: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._look_up = look_up
        self._waiting: list[tuple[K, asyncio.Future[V | None]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def find(self, key: K) -> V | None:
        """Find one; what was committed before this call is seen."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[V | None] = loop.create_future()
        self._waiting.append((key, answer))
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await answer

    async def drain(self) -> None:
        """Wait until everybody has an answer."""
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:_MOST_AT_ONCE]
                del self._waiting[:_MOST_AT_ONCE]
                await self._answer([(key, one) for key, one in batch if not one.done()])
        finally:
            self._worker = None

    async def _answer(self, batch: Sequence[tuple[K, asyncio.Future[V | None]]]) -> None:
        if not batch:
            return
        problem: GrantServerError
        try:
            found = await self._look_up(list(dict.fromkeys(key for key, _ in batch)))
        except GrantServerError as error:
            problem = error
        except Exception as error:  # noqa: BLE001  # whoever waits must be answered, whatever it was
            problem = Broken(f"the ledger failed: {type(error).__name__}")
        else:
            for key, answer in batch:
                if not answer.done():
                    answer.set_result(found.get(key))
            return
        for _, answer in batch:
            if not answer.done():
                answer.set_exception(problem)
