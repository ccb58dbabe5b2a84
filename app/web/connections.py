"""The connections of one listener: how many there are, and which of them keep us waiting.

It decides who is cut for being late or for being in the way; it reads and writes nothing.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.web.connection import Connection

STALLED_SECONDS = 0.5
"""After so long without a whole request a connection may be cut to make room for another.

Nobody far away needs more: accept to request is one round trip and a half. Younger ones stay
when it is full, and the newcomers wait in the backlog, so that a rush of good clients is
served late instead of being cut.
"""


class Roll:
    """Every open connection, and in the order of their age those whose move it is.

    A client has the move until its request is whole, and again once it is answered: to ask
    for more or to go away. One timer serves all: the oldest of those that are waited for is
    always the next to be late, so a connection costs a few dictionary operations and no timer.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, max_connections: int, request_seconds: float
    ) -> None:
        self.loop = loop
        self._max_connections = max_connections
        self._request_seconds = request_seconds
        self._open: set[Connection] = set()
        self._waited_for: dict[Connection, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator["Connection"]:
        return iter(list(self._open))

    def enter(self, connection: "Connection") -> None:
        """Count a connection that was just accepted, and wait for its request."""
        self._open.add(connection)
        self.wait(connection)

    def wait(self, connection: "Connection") -> None:
        """Give the client its time, from now, to deliver a whole request or to be gone."""
        self._waited_for.pop(connection, None)
        self._waited_for[connection] = self.loop.time()
        if self._timer is None:
            self._arm()
        if self._watcher is not None:
            self._watcher()

    def waited(self, connection: "Connection") -> float:
        """Tell for how many seconds the client has been waited for."""
        now = self.loop.time()
        return now - self._waited_for.get(connection, now)

    def settle(self, connection: "Connection") -> None:
        """Note that the request is there: the move is ours."""
        self._waited_for.pop(connection, None)

    def leave(self, connection: "Connection") -> None:
        """Forget a connection that has ended; to do so twice is harmless."""
        self._open.discard(connection)
        self._waited_for.pop(connection, None)
        if self._watcher is not None:
            self._watcher()

    def is_full(self) -> bool:
        """Tell whether as many are connected as may be."""
        return len(self._open) >= self._max_connections

    def cut_stalled(self) -> bool:
        """Cut the connection that has been waited for longest; False when none has stalled."""
        if self.seconds_to_stall() != 0.0:
            return False
        self._cut(next(iter(self._waited_for)))
        return True

    def seconds_to_stall(self) -> float | None:
        """How long until a connection has stalled: 0 if one has, None if none is waited for."""
        for since in self._waited_for.values():
            return max(0.0, since + STALLED_SECONDS - self.loop.time())
        return None

    def watch(self, call: Callable[[], None] | None) -> None:
        """Have `call` made whenever one leaves or is waited for; None to stop that."""
        self._watcher = call

    def hurry(self, seconds: float) -> None:
        """Shorten the time of all that are waited for, now and later: the server is going."""
        self._request_seconds = min(self._request_seconds, seconds)
        self._check()

    def _arm(self) -> None:
        for since in self._waited_for.values():
            self._timer = self.loop.call_at(since + self._request_seconds, self._check)
            return
        self._timer = None

    def _check(self) -> None:
        """Cut those whose time is over, and come back when the next one's is."""
        if self._timer is not None:
            self._timer.cancel()
        latest = self.loop.time() - self._request_seconds
        late = []
        for connection, since in self._waited_for.items():
            if since > latest:
                break
            late.append(connection)
        for connection in late:
            self._cut(connection)
        self._arm()

    def _cut(self, connection: "Connection") -> None:
        # Its descriptor is closed by the next turn of the loop; the place is free now.
        self.leave(connection)
        connection.drop()
