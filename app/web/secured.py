"""The TLS of one connection: uvloop's, but a client that stops sending still gets its answer.

Handshake, records and shutdown are uvloop's; certificates and versions are in the context.
"""

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

from uvloop import loop as uvloop_loop

if TYPE_CHECKING:
    from app.web.connection import Connection


class Secured(uvloop_loop.SSLProtocol):  # type: ignore[misc, name-defined]
    """What stands between the TCP transport and a `Connection`.

    uvloop's own gives the connection up as soon as the client's side ends, by close_notify or
    by FIN. But each closes one direction only (RFC 8446, section 6.1; RFC 9112, section 9.6),
    and some clients say so before they read: whose request is whole is answered first.
    """

    __slots__ = ("_connection",)

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: "Connection",
        context: ssl.SSLContext,
        *,
        handshake_seconds: float,
        shutdown_seconds: float,
    ) -> None:
        super().__init__(
            loop,
            connection,
            context,
            None,
            server_side=True,
            ssl_handshake_timeout=handshake_seconds,
            ssl_shutdown_timeout=shutdown_seconds,
        )
        self._connection = connection

    def eof_received(self) -> bool:
        """Take note of the end of what the client sends; True keeps the other direction open."""
        if self._connection.half_close():
            return True
        super().eof_received()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Pass on the end, whoever ended it; of a handshake that failed uvloop says nothing."""
        super().connection_lost(exc)
        self._connection.abandon()
        del self._connection  # which points back here


def keep_answering(context: ssl.SSLContext) -> None:
    """Have the connections of `context` take close_notify as what it is: half of an end."""
    kind = context.sslobject_class
    context.sslobject_class = type(kind.__name__, (_HalfClosable, kind), {})


class _HalfClosable(ssl.SSLObject):
    """A TLS state that keeps the client's close_notify to itself.

    uvloop would begin its shutdown, and whatever is written then is thrown away. A client that
    goes on sending after its end is broken (RFC 8446, section 6.1): what it sends would pile
    up unread, so it is let go.
    """

    _incoming: ssl.MemoryBIO

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, *others: Any, **named: Any) -> "_HalfClosable":
        state: _HalfClosable = super()._create(incoming, *others, **named)  # type: ignore[misc]
        state._incoming = incoming
        return state

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002, ARG002
        # As the standard library does it, without one more call; uvloop never gives a buffer.
        data = self._sslobj.read(len)  # type: ignore[attr-defined]
        if data or self._incoming.pending:
            return data
        raise ssl.SSLWantReadError
