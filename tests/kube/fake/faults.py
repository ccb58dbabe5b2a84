"""What can go wrong between a client and the API server, on order and as often as ordered."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.kube.recorder import Request

ALWAYS: Final = 1_000_000_000


@dataclass(slots=True, kw_only=True, eq=False)
class Fault:
    """An order: which requests it meets, how many of them, and what happens to those."""

    kind: str
    matches: Callable[[Request], bool]
    left: int
    after: bool = False
    code: int = 500
    reason: str = "InternalError"
    message: str = ""
    retry_after: int | None = None
    seconds: float = 0.0
    hits: int = 0
    _hit: threading.Condition = field(default_factory=threading.Condition)
    _released: bool = False
    _waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=list)

    def wait(self, hits: int = 1, timeout: float = 20.0) -> None:
        """Until it has met so many requests; AssertionError if that takes too long."""
        with self._hit:
            met = self._hit.wait_for(lambda: self.hits >= hits, timeout)
        assert met, f"{self.kind}: {self.hits} of {hits} requests after {timeout} s"

    def release(self) -> None:
        """End it: frozen requests go on, in the order they came, and no more are met."""
        with self._hit:
            self.left = 0
            self._released = True
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            # One whose server has been stopped waits for nothing any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

    def take(self, request: Request) -> bool:
        """Whether it meets this request; if so, that counts."""
        with self._hit:
            if self.left <= 0 or not self.matches(request):
                return False
            self.left -= 1
            self.hits += 1
            self._hit.notify_all()
            return True

    async def hold(self) -> None:
        """Wait until it is released."""
        event = asyncio.Event()
        with self._hit:
            if self._released:
                return
            self._waiting.append((asyncio.get_running_loop(), event))
        await event.wait()


class Faults:
    """The orders of a server.

    What each of them meets is chosen by `verb` (as RBAC has it: get, list, watch, create, update,
    patch, delete), `resource` (plural), `subresource`, `namespace`, `name` and `user` (the name
    that the token was made for); what is not said matches anything. `times` is how often; None
    is until it is released. `after=True` does what was asked and loses only the answer.
    """

    def __init__(self) -> None:
        self._orders: list[Fault] = []
        self._lock = threading.Lock()

    def reset(self, times: int | None = 1, *, after: bool = False, **which: str) -> Fault:
        """Answer with a reset connection."""
        return self._order(Fault(kind="reset", matches=_of(which), left=_times(times), after=after))

    def freeze(self, times: int | None = None, *, after: bool = False, **which: str) -> Fault:
        """Answer nothing at all, until it is released; then go on as if it were just slow."""
        return self._order(
            Fault(kind="freeze", matches=_of(which), left=_times(times), after=after)
        )

    def throttle(self, retry_after: int = 1, times: int | None = 1, **which: str) -> Fault:
        """Answer 429 with Retry-After in seconds."""
        return self._order(
            Fault(
                kind="fail",
                matches=_of(which),
                left=_times(times),
                code=429,
                reason="TooManyRequests",
                message="too many requests, please try again later",
                retry_after=retry_after,
            )
        )

    def fail(
        self,
        code: int = 500,
        times: int | None = 1,
        *,
        reason: str = "InternalError",
        message: str = "an error on the server has prevented the request from succeeding",
        after: bool = False,
        **which: str,
    ) -> Fault:
        """Answer with an error."""
        return self._order(
            Fault(
                kind="fail",
                matches=_of(which),
                left=_times(times),
                code=code,
                reason=reason,
                message=message,
                after=after,
            )
        )

    def slow(self, seconds: float, times: int | None = None, **which: str) -> Fault:
        """Let a request wait before it is looked at."""
        return self._order(
            Fault(kind="slow", matches=_of(which), left=_times(times), seconds=seconds)
        )

    def clear(self) -> None:
        """Release all."""
        with self._lock:
            orders, self._orders = self._orders, []
        for fault in orders:
            fault.release()

    def take(self, request: Request) -> Fault | None:
        """The first order that meets a request."""
        with self._lock:
            self._orders = [one for one in self._orders if one.left > 0 or one.kind == "freeze"]
            orders = list(self._orders)
        return next((one for one in orders if one.take(request)), None)

    def _order(self, fault: Fault) -> Fault:
        with self._lock:
            self._orders.append(fault)
        return fault


def _times(times: int | None) -> int:
    return ALWAYS if times is None else times


def _of(which: dict[str, str]) -> Callable[[Request], bool]:
    unknown = which.keys() - {
        "verb",
        "group",
        "resource",
        "subresource",
        "namespace",
        "name",
        "user",
    }
    if unknown:
        raise TypeError(f"requests are not told apart by {', '.join(sorted(unknown))}")

    def matches(request: Request) -> bool:
        return all(
            wanted in {getattr(request, name), getattr(request, name).rpartition(":")[2]}
            if name == "user"
            else getattr(request, name) == wanted
            for name, wanted in which.items()
        )

    return matches
