"""Accepts connections and shakes hands with them, so that no number of either hurts.

asyncio's own server takes every connection that comes, and tells nobody of those that are
stuck in their handshake; hence an accept loop of our own.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any

from app.logs import get_logger
from app.web.connection import Connection
from app.web.connections import Roll
from app.web.proxies import Proxies
from app.web.secured import Secured, keep_answering

ACCEPTS_PER_TURN = 16
"""So many connections are accepted in one turn of the loop, then those inside are served:
a rush waits in the kernel's backlog, where it costs nothing, and not in half-done handshakes."""

TROUBLE_SECONDS = 0.1
"""Pause after the kernel would not give us a connection: out of descriptors, or of memory."""

QUIET_SECONDS = 10.0
"""One line is logged for a burst of such trouble; after so long without any it is a new one."""

SHUTDOWN_SECONDS = 1.0
"""How long a client may take to acknowledge the end of its TLS connection. What the kernel
still holds for it is delivered even after that."""

LEAST_SECONDS = 0.001
"""What is left to a handshake whose time went by before it began: uvloop takes no less."""

Address = tuple[Any, ...]

_log = get_logger(__name__)


class Acceptor:
    """The accept loop of one listening socket; `roll` says whether there is room."""

    def __init__(
        self,
        listening: socket.socket,
        connect: Callable[[socket.socket, Address], Connection],
        *,
        roll: Roll,
        context: ssl.SSLContext | None,
        handshake_seconds: float,
        proxies: Proxies | None = None,
    ) -> None:
        self._listening = listening
        self._connect = connect
        self._roll = roll
        self._loop = roll.loop
        self._context: ssl.SSLContext | None = None
        self._handshake_seconds = handshake_seconds
        self._proxies = proxies
        if context is not None:
            self.secure(context)
        self._beginnings: set[asyncio.Task[None]] = set()
        self._resume_timer: asyncio.TimerHandle | None = None
        self._last_trouble = float("-inf")
        self._closed = False

    def secure(self, context: ssl.SSLContext) -> None:
        """Shake hands with `context` from now on; what has begun goes on with the one it has.

        A context of its own for each certificate: OpenSSL keeps one certificate of each kind of
        key, so that in a live one the old certificate would go on beside one of another kind.
        """
        keep_answering(context)
        self._context = context

    def open(self) -> None:
        """Begin to accept."""
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Accept no more, and close the listening socket; connections go on. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._roll.watch(None)
        if self._resume_timer is not None:
            self._resume_timer.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            full = self._roll.is_full()
            if full and (seconds := self._roll.seconds_to_stall()) != 0.0:
                # Whichever comes first: somebody leaves, or somebody has stalled for long enough.
                self._roll.watch(self._resume)
                self._pause(seconds)
                return
            try:
                accepted, address = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _CLIENT_ERRORS:
                    continue
                self._back_off(error)
                return
            if self._proxies is not None and not self._proxies.may_connect(address[0]):
                accepted.close()
                continue
            if full:
                self._roll.cut_stalled()
            connection = self._connect(accepted, address)
            self._roll.enter(connection)
            task = asyncio.create_task(self._begin(accepted, connection))
            self._beginnings.add(task)
            task.add_done_callback(self._beginnings.discard)

    async def _begin(self, accepted: socket.socket, connection: Connection) -> None:
        """Hand the socket to the loop; the handshake comes after that and has its own end."""
        handshake_seconds = self._handshake_seconds
        if self._proxies is not None and self._proxies.headers:
            deadline = self._loop.time() + handshake_seconds
            if not await self._proxies.introduce(accepted, connection, seconds=handshake_seconds):
                return
            handshake_seconds = max(LEAST_SECONDS, deadline - self._loop.time())
        protocol: asyncio.Protocol = connection
        if self._context is not None:
            protocol = Secured(
                self._loop,
                connection,
                self._context,
                handshake_seconds=handshake_seconds,
                shutdown_seconds=SHUTDOWN_SECONDS,
            )
        await self._loop.connect_accepted_socket(lambda: protocol, accepted)

    def _pause(self, seconds: float | None) -> None:
        self._loop.remove_reader(self._listening)
        if seconds is not None:
            self._resume_timer = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._roll.watch(None)
        if self._resume_timer is not None:
            self._resume_timer.cancel()
            self._resume_timer = None
        self.open()

    def _back_off(self, error: OSError) -> None:
        """Let a moment pass: the socket stays readable, so the loop would spin otherwise."""
        now = self._loop.time()
        if now - self._last_trouble > QUIET_SECONDS:
            _log.warning(
                "connections cannot be accepted",
                error=errno.errorcode.get(error.errno or 0, type(error).__name__),
                open_connections=len(self._roll),
            )
        self._last_trouble = now
        for _ in range(ACCEPTS_PER_TURN):
            if not self._roll.cut_stalled():
                break
        self._pause(TROUBLE_SECONDS)


_CLIENT_ERRORS = frozenset(
    {
        errno.ECONNABORTED,
        errno.EINTR,
        errno.EPERM,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
    }
)
"""What accept passes on from a connection that died in the queue: accept(2), "Error handling"."""
