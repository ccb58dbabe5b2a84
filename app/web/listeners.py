"""A bound socket, an application and limits make a listener; the process decides its life.

uvicorn speaks HTTP here, but its server, its signal handlers and its own logging are not used.
"""

import asyncio
import errno
import logging
import re
import resource
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, TypeVar

import uvicorn
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from app import ambient
from app.errors import Misconfigured
from app.logs import get_logger
from app.web.acceptor import Acceptor, Address
from app.web.connection import Connection, Terms
from app.web.connections import Roll
from app.web.proxies import Proxies

BACKLOG = 2048
RECEIVE_BUFFER_BYTES = 64 * 1024
"""What the kernel may hold of one connection's input (it doubles the figure), and so what one
read can bring. A request is some hundred bytes; without this it grows to megabytes each."""

DESCRIPTORS = 65536
"""As many open files as `run` asks for, where the machine allows it."""

HURRY_SECONDS = 1.0
"""Once the server is stopping, a client has so long from its connection to its whole request."""

_CUT_SECONDS = 1.0

_HIGHEST_PORT = 65535
_HOST_PORT = re.compile(r"(?:\[(?P<six>[^\[\]\s]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})")

_log = get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the clients of one listener may take, together and each.

    `handshake_seconds` and `request_seconds` both run from the moment of accept: for the TLS
    handshake, with what a load balancer says before it, and for the whole request with its
    body. `header_bytes` covers request line and headers.
    """

    max_connections: int = 1000
    handshake_seconds: float = 5.0
    request_seconds: float = 10.0
    header_bytes: int = 16 * 1024


class Listener:
    """Serves `app` on a bound socket; start and stop it in the same loop, once.

    With `proxies` it stands behind load balancers, and clients are who those say they are.
    """

    def __init__(
        self,
        app: ASGIApp,
        listening: socket.socket,
        *,
        context: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        keep_alive: bool = False,
        client_certificates: bool = False,
        proxies: Proxies | None = None,
        on_handshake: Callable[[float], None] | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._listening = listening
        self._context = context
        self._proxies = proxies
        host, port, *_ = listening.getsockname()
        self.address: tuple[str, int] = (host, port)
        self._terms = Terms(
            server=self.address,
            scheme="http" if context is None else "https",
            header_bytes=self._limits.header_bytes,
            keep_alive=keep_alive,
            client_certificates=client_certificates,
            on_handshake=None if context is None else on_handshake,
        )
        self._state = ServerState()
        self._config = uvicorn.Config(
            _quietly_cut(app),
            interface="asgi3",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            # Unset, it would count as lower than trace, and every connection would try to log.
            log_level=logging.WARNING,
            access_log=False,
            proxy_headers=False,
        )
        self._config.load()
        self._dual_stack = listening.family == socket.AF_INET6
        self._acceptor: Acceptor | None = None

    async def start(self) -> None:
        """Begin to accept connections."""
        loop = asyncio.get_running_loop()
        self._roll = Roll(
            loop,
            max_connections=self._limits.max_connections,
            request_seconds=self._limits.request_seconds,
        )
        self._acceptor = Acceptor(
            self._listening,
            self._connection,
            roll=self._roll,
            context=self._context,
            handshake_seconds=self._limits.handshake_seconds,
            proxies=self._proxies,
        )
        self._tell_the_time()
        self._acceptor.open()

    def secure(self, context: ssl.SSLContext) -> None:
        """Swap the TLS context of a listener that has one: no connection is lost by it.

        The next handshake shows what is in the new context; those that have begun, and all open
        connections, go on with the old one.
        """
        self._context = context
        if self._acceptor is not None:
            self._acceptor.secure(context)

    async def stop(self, grace_seconds: float) -> None:
        """Accept no more, let what is under way finish within `grace_seconds`, then cut it.

        Clients whose request is not whole have at most HURRY_SECONDS of that. A listener that
        was never started gives its socket back.
        """
        if self._acceptor is None:
            self._listening.close()
            return
        self._acceptor.close()
        for connection in self._roll:
            connection.shutdown()
        self._roll.hurry(HURRY_SECONDS)
        if not await self._ended(grace_seconds):
            _log.warning(
                "connections were cut at the end",
                connections=len(self._roll),
                requests=len(self._state.tasks),
            )
            for connection in self._roll:
                connection.drop()
            await self._ended(_CUT_SECONDS)
            for task in self._state.tasks:
                task.cancel()
            await asyncio.gather(*self._state.tasks, return_exceptions=True)
        self._clock.cancel()

    async def _ended(self, seconds: float) -> bool:
        """Wait until there is neither a connection nor an application at work."""
        loop = self._roll.loop
        deadline = loop.time() + seconds
        nobody = loop.create_future()

        def look() -> None:
            if not self._roll and not nobody.done():
                nobody.set_result(None)

        self._roll.watch(look)
        look()
        await asyncio.wait([nobody], timeout=seconds)
        self._roll.watch(None)
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=max(0.0, deadline - loop.time()))
        return not self._roll and not self._state.tasks

    def _connection(self, accepted: socket.socket, address: Address) -> Connection:
        host = address[0]
        if self._dual_stack:
            # One client is one client, whichever way it came in.
            host = host.removeprefix("::ffff:")
        return Connection(
            config=self._config,
            state=self._state,
            roll=self._roll,
            terms=self._terms,
            accepted=accepted,
            client=(host, address[1]),
        )

    def _tell_the_time(self) -> None:
        """Renew the `date` header, once a second and not once a request."""
        date = formatdate(ambient.utc_now(), usegmt=True).encode()
        self._state.default_headers = [(b"date", date)]
        self._clock = self._roll.loop.call_later(1.0, self._tell_the_time)


def _quietly_cut(app: ASGIApp) -> ASGIApp:
    """Let a request that is cut at the end of the server end without a stack trace."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            return

    return serve


def bind(host_port: str) -> socket.socket:
    """Open the listening socket for `0.0.0.0:9090`, `[::]:9090`, `localhost:0` and the like.

    `[::]` takes IPv4 as well. A name is bound at its first address, IPv4 before IPv6; port 0
    is a free one. Raises Misconfigured, with the address and what to do, when this is no
    address, is not one of this machine, or is taken.
    """
    host, port = _split(host_port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise _unusable(host_port, "the host is unknown; use an address of this machine") from error
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    try:
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unusable(host_port, "this machine has no IPv6; use 0.0.0.0") from error
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise _unusable(
            host_port, _BIND_PROBLEMS.get(error.errno or 0, error.strerror or "it failed")
        ) from error
    return listening


_BIND_PROBLEMS = {
    errno.EADDRINUSE: "the port is taken; stop the other program, or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address; use one of its own, or 0.0.0.0",
    errno.EACCES: "ports below 1024 are reserved; choose a higher port",
}


def _split(host_port: str) -> tuple[str, int]:
    found = _HOST_PORT.fullmatch(host_port)
    if found is None or int(found["port"]) > _HIGHEST_PORT:
        raise _unusable(host_port, "write it as host:port, for example 0.0.0.0:9090 or [::]:9090")
    return found["six"] or found["host"], int(found["port"])


def _unusable(host_port: str, why: str) -> Misconfigured:
    return Misconfigured([f'cannot listen on "{host_port}": {why}'])


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the process's one event loop until `main` returns.

    The soft limit of open files is raised to the hard one first, at most to DESCRIPTORS: it is
    often 1,024, which a thousand connections would leave nothing of for the database.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
