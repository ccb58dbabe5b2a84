"""One connection, from accept to close: uvicorn's HTTP protocol with a bound on everything.

Which connections are accepted is the acceptor's matter, what is answered the application's.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

import httptools
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.web.connections import Roll

MAX_HEADERS = 100
"""More header fields than this are refused: unmodified clients send six."""

LINGER_SECONDS = 1.0
"""How long a client that is still sending may take to notice that it has been answered."""

DISCARDED_BYTES = 64 * 1024 * 1024
"""How much is read and thrown away of what nobody asked for; then the client has to wait."""

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) [!-~]+ HTTP/1\.[01]\r\n")
"""Its method is any token, and not only one that llhttp has heard of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all connections of one listener have in common.

    `server` is the listener's own address; `keep_alive` says whether a connection may carry
    a second request. With `client_certificates` the application finds what a client has shown (DER)
    in `extensions`, under `tls` and `client_cert`. `on_handshake` is told how long a TLS handshake
    took, in seconds from accept.
    """

    server: tuple[str, int]
    scheme: Literal["http", "https"]
    header_bytes: int
    keep_alive: bool
    client_certificates: bool = False
    on_handshake: Callable[[float], None] | None = None


class _Phase(Enum):
    """How far the reading of the present request has come.

    UPGRADE: the head is whole, and will be read again without its wish for another protocol.
    DEAF: nothing more is understood, and what still comes is thrown away.
    """

    HANDSHAKE = auto()
    HEAD = auto()
    UPGRADE = auto()
    BODY = auto()
    WHOLE = auto()
    DEAF = auto()


class _Enough(Exception):
    """Stops the parser from inside one of its callbacks."""


class Connection(HttpToolsProtocol):
    """An HTTP connection that cannot cost more than it should.

    Against uvicorn's own it bounds the bytes and the number of header fields, and of trailers
    (which uvicorn appends to the headers of a request that has begun), never serves pipelined
    requests, lets a client that is still sending read the answer, and answers one that has
    stopped sending. It passes on methods of which llhttp does not know, and serves requests
    that would like another protocol in this one. Its time is kept by the roll, without a timer
    of its own.
    """

    def __init__(
        self,
        *,
        config: Config,
        state: ServerState,
        roll: Roll,
        terms: Terms,
        accepted: socket.socket,
        client: tuple[str, int],
    ) -> None:
        super().__init__(config, state, {}, roll.loop)
        self._roll = roll
        self._terms = terms
        self._accepted = accepted
        self._phase = _Phase.HANDSHAKE
        self._asked = False  # whether the application has ever been asked
        self._room = terms.header_bytes
        self._discardable = DISCARDED_BYTES
        self._too_large = False
        self._method: str | None = None  # in place of the one that was told to the parser
        self._linger_timer: asyncio.TimerHandle | None = None
        self.client = client
        # The root's handler counts as one of the access log, whose lines would be composed for
        # every request only to be thrown away.
        self.access_log = False

    # Life

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, after the TLS handshake; uvicorn's own would ask the kernel what we know."""
        self.transport = transport
        self.flow = FlowControl(transport)
        self.server = self._terms.server
        self.scheme = self._terms.scheme
        self._phase = _Phase.HEAD
        if self._terms.on_handshake is not None:
            self._terms.on_handshake(self._roll.waited(self))

    def connection_lost(self, exc: Exception | None) -> None:
        """End, whoever ended it."""
        self._roll.leave(self)
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        if self._asked:
            # Else the outlet would keep the connection alive until the garbage collector comes.
            self.cycle.transport = self.transport
        super().connection_lost(exc)

    def drop(self) -> None:
        """Cut the connection at once, in whatever state it is."""
        if self._phase is not _Phase.HANDSHAKE:
            self.transport.abort()
            return
        # In its handshake there is no transport yet; the end of the stream makes uvloop give up.
        with contextlib.suppress(OSError):  # it may be gone already
            self._accepted.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """End without ever having begun: it was no TLS, or not ours, or too slow, or it is gone.

        That is not our trouble, and anybody could fill the log with it.
        """
        if self._phase is _Phase.HANDSHAKE:
            self._roll.leave(self)
            # It points back here, as in uvicorn's own connection_lost.
            self.parser = None  # type: ignore[assignment]

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Stay open as long as there is something to answer; TLS has asked before (`Secured`)."""
        return self._terms.scheme == "http" and self.half_close()

    def half_close(self) -> bool:
        """Tell whether a client that sends no more is still to be answered: its request is whole.

        It may wait for that or have left: only the answer can find out.
        """
        if not self._asked or self.transport.is_closing():
            return False
        cycle = self.cycle
        if cycle.more_body or cycle.response_complete:
            return False
        cycle.keep_alive = False
        return True

    def shutdown(self) -> None:
        """Ask for the end: at once between two requests, else after the present answer."""
        if not self._asked:
            return
        if self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    # Reading

    def data_received(self, data: bytes) -> None:
        """Take what has come, as far as it is allowed to go."""
        self._unset_keepalive_if_required()
        match self._phase:
            case _Phase.HEAD:
                self._read_head(data)
            case _Phase.BODY:
                self._read_body(data)
            case _Phase.WHOLE if self._terms.keep_alive:
                self._read_head(data)
            case _:
                self._discard(len(data))

    def _read_head(self, data: bytes) -> None:
        room = self._room
        if len(data) <= room:
            self._room = room - len(data)
            self._feed(data)
            return
        self._room = 0
        self._feed(data[:room])
        if self._phase is _Phase.HEAD:
            self._refuse_too_large()
        elif self._phase is _Phase.BODY:
            self._read_body(data[room:])
        else:
            self._phase = _Phase.DEAF

    def _read_body(self, data: bytes) -> None:
        held = len(self.cycle.body)
        self._feed(data)
        if self._phase is _Phase.BODY and len(self.cycle.body) == held:
            # Chunk sizes and trailers: the application sees nothing of them, and could
            # not stop them.
            self._room -= len(data)
            if self._room < 0:
                self._refuse_too_large()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._phase is _Phase.UPGRADE:
                self._ignore_upgrade(data[upgrade.args[0] :])
            else:
                self._phase = _Phase.DEAF  # a tunnel; the request itself has been read
        except httptools.HttpParserError:
            if self._phase is _Phase.WHOLE:
                self._phase = _Phase.DEAF
            elif self._too_large:
                self._refuse_too_large()
            elif (line := self._strange_line(data)) is not None:
                self._read_as_post(line, data)
            else:
                self.send_400_response("Invalid HTTP request received.\n")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the request as if it did not ask for another protocol (RFC 9110, section 7.8).

        llhttp stops after its head and takes its body for the other protocol already.
        """
        version = self.parser.get_http_version().encode()
        head = [b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)]
        head += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self._read_anew(b"%b\r\n%b" % (b"".join(head), rest))

    def _strange_line(self, data: bytes) -> re.Match[bytes] | None:
        """Find the request line whose method may be all that is wrong with it.

        It must be in one piece, and nothing of the request before it.
        """
        begins_here = self._room + len(data) == self._terms.header_bytes
        return _REQUEST_LINE.match(data) if begins_here and self._method is None else None

    def _read_as_post(self, line: re.Match[bytes], data: bytes) -> None:
        """Read a request whose method llhttp does not know; the application sees it as it came.

        Any token is a method, and to refuse it is the application's matter (RFC 9110, section 9.1).
        """
        self._method = line[1].decode("ascii")
        self._read_anew(b"POST" + data[line.end(1) :])

    def _read_anew(self, data: bytes) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self._feed(data)

    def _discard(self, count: int) -> None:
        self._discardable -= count
        if self._discardable < 0:
            self.flow.pause_reading()

    # What the parser finds

    def on_message_begin(self) -> None:
        """Begin a request, unless the one before is not done with, or was to be the only one."""
        if self._asked and not (self._terms.keep_alive and self.cycle.response_complete):
            raise _Enough
        self._phase = _Phase.HEAD
        super().on_message_begin()
        if self._terms.client_certificates:
            shown = self.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            self.scope["extensions"] = {"tls": {"client_cert": shown}}

    def on_headers_complete(self) -> None:
        """Hand the request to the application; its body may still be on the way."""
        if len(self.headers) > MAX_HEADERS:
            self._too_large = True
            raise _Enough
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._phase = _Phase.UPGRADE
            return
        super().on_headers_complete()
        if self._method is not None:
            self.scope["method"], self._method = self._method, None
        self._phase = _Phase.BODY
        self._asked = True
        self._room = self._terms.header_bytes
        # The application holds the list; trailers must not become headers behind its back.
        self.headers = []
        # The application may answer, and the cycle then close, before the request is whole.
        self.cycle.transport = _Outlet(self)  # type: ignore[assignment]
        if not self._terms.keep_alive:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Note that the request is whole: from here on it is ours to be quick."""
        if self._phase is _Phase.UPGRADE:
            return
        self._phase = _Phase.WHOLE
        self._roll.settle(self)
        super().on_message_complete()

    # Answering

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not HTTP."""
        self._refuse(b"400 Bad Request", msg.encode("ascii"))

    def _refuse_too_large(self) -> None:
        self._refuse(
            b"431 Request Header Fields Too Large", b"Request header fields are too large\n"
        )

    def _refuse(self, status: bytes, text: bytes) -> None:
        """Answer in place of the application, if it has not begun to answer itself."""
        under_way = self._asked and not self.cycle.response_complete
        if under_way:
            self.cycle.disconnected = True
        if not (under_way and self.cycle.transport.has_begun()):  # type: ignore[attr-defined]
            head = [b"HTTP/1.1 ", status, b"\r\n"]
            for name, value in self.server_state.default_headers:
                head += [name, b": ", value, b"\r\n"]
            self.transport.write(
                b"%bcontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b"
                % (b"".join(head), len(text), text)
            )
        self.linger()

    def on_response_complete(self) -> None:
        """Close, or wait for the next request."""
        if self._phase is _Phase.BODY:
            self.linger()
        elif self._phase is _Phase.DEAF:
            if self._linger_timer is None:
                self.transport.close()
        elif not self.transport.is_closing():
            self._roll.wait(self)
            super().on_response_complete()

    def close(self) -> None:
        """Close after an answer: at once, or as soon as the client has stopped sending."""
        if self._phase is _Phase.BODY:
            self.linger()
        elif self._linger_timer is None:
            self.transport.close()
            self._roll.wait(self)

    def linger(self) -> None:
        """Say that this was all, and go on reading for a moment.

        To close while the client is sending would make the kernel reset the connection, and
        the answer would be lost on its way (RFC 9112, section 9.6).
        """
        self._phase = _Phase.DEAF
        self.flow.resume_reading()
        if self._terms.scheme == "https":
            # uvloop sends close_notify, then reads and forgets until the client does the same
            # or has taken too long: the acceptor has set how long.
            self.transport.close()
        elif self._linger_timer is None and not self.transport.is_closing():
            self.transport.write_eof()
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.drop)


class _Outlet:
    """The transport as an answer sees it: its close may have to linger.

    uvicorn writes the head and the body of an answer one after the other, which would be two
    TLS records. The head waits for the body here, as ASGI wants it: nothing of an answer is
    sent before a part of its body has come. An answer that breaks off before has not begun.
    """

    is_closing: Callable[[], bool]
    close: Callable[[], None]

    __slots__ = ("_connection", "_head", "_write", "close", "is_closing")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._write = connection.transport.write
        self._head: bytes | None = None
        self.is_closing = connection.transport.is_closing
        self.close = connection.close

    def write(self, data: bytes) -> None:
        """Write to the client; the head of an answer only with what comes next."""
        head = self._head
        if head is None:
            cycle = self._connection.cycle
            if not cycle.response_started:  # "100 Continue", which the client is waiting for
                self._write(data)
                return
            if cycle.scope["method"] != "HEAD":  # after that nothing would come
                self._head = data
                return
            head = b""
        self._head = b""
        self._write(head + data)

    def has_begun(self) -> bool:
        """Tell whether anything of the answer was written."""
        return self._head == b""
