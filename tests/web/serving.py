"""A real listener in a thread of its own, and the plain blocking clients that try it."""

import asyncio
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.listeners import Limits, Listener, bind, run
from app.web.proxies import Proxies
from app.web.tls import server_context

PATIENCE = 20.0
"""Seconds after which a test gives up on the server."""

REQUEST = b"POST /grant HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\ncode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A self-signed server certificate for localhost and its key."""

    certificate: bytes
    key: bytes
    serial: int


def make_identity(key: Any = None) -> Identity:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=36500))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    return Identity(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        serial=certificate.serial_number,
    )


IDENTITY = make_identity()


async def answer(send: Send, status: int, text: bytes) -> None:
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(text)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def obliging(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, then answer with it."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    await answer(send, 200, bytes(body))


class Held:
    """An application that says when it was asked, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.gone = threading.Event()
        self._go = threading.Event()

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        self.asked.set()
        try:
            await asyncio.to_thread(self._go.wait, PATIENCE)
        except asyncio.CancelledError:
            self.gone.set()
            raise
        await answer(send, 200, b"held\n")

    def go(self) -> None:
        self._go.set()


class Server:
    """A started listener; `port` is where it listens."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: Listener,
        context: ssl.SSLContext | None,
    ) -> None:
        self.loop = loop
        self.listener = listener
        self.context = context
        self.host, self.port = listener.address

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, function: Callable[[], Any]) -> Any:
        """What `function` answers inside the server's loop."""

        async def there() -> Any:
            return function()

        return self.begin(there()).result(PATIENCE)

    def connect(self) -> socket.socket:
        return connect(self.host, self.port)

    def shake(self, context: ssl.SSLContext | None = None) -> socket.socket:
        """Open a connection ready for HTTP: with its handshake done, where there is TLS."""
        connection = self.connect()
        return connection if self.context is None else self.secure(connection, context)

    def secure(
        self, connection: socket.socket, context: ssl.SSLContext | None = None
    ) -> ssl.SSLSocket:
        try:
            return (context or trusting()).wrap_socket(connection, server_hostname="localhost")
        except BaseException:
            connection.close()
            raise

    def ask(self, request: bytes = REQUEST) -> bytes:
        """One request on a connection of its own, answered until the end of the stream."""
        with self.shake() as connection:
            connection.sendall(request)
            return read_all(connection)

    def swap(self, identity: Identity) -> None:
        """Show another certificate from now on."""
        context = server_context(identity.certificate, identity.key)
        self.call(lambda: self.listener.secure(context))

    def is_left_alone(self) -> bool:
        """Wait until there is no connection any more, if that comes."""
        return bool(self.begin(self.listener._ended(PATIENCE)).result(2 * PATIENCE))

    def open_connections(self) -> int:
        return int(self.call(lambda: len(self.listener._roll)))


@contextmanager
def serving(
    app: ASGIApp = obliging,
    *,
    limits: Limits | None = None,
    tls: bool = True,
    keep_alive: bool = False,
    address: str = "127.0.0.1:0",
    bound: Callable[[str], socket.socket] = bind,
    proxies: Proxies | None = None,
) -> Iterator[Server]:
    """Run a listener in a thread until the block ends; it must be able to stop then."""
    context = server_context(IDENTITY.certificate, IDENTITY.key) if tls else None
    listener = Listener(
        app,
        bound(address),
        context=context,
        limits=limits or Limits(),
        keep_alive=keep_alive,
        proxies=proxies,
    )
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        await listener.start()
        over = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), over))
        await over.wait()
        await listener.stop(0.0)

    thread = threading.Thread(target=run, args=(main,))
    thread.start()
    loop, over = started.result(PATIENCE)
    try:
        yield Server(loop, listener, context)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(PATIENCE)
        assert not thread.is_alive()


def connect(host: str, port: int) -> socket.socket:
    """Open a connection as Go and curl do: without this its request would wait for an ACK."""
    connection = socket.create_connection((host, port), PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def trusting(identity: Identity = IDENTITY) -> ssl.SSLContext:
    """Make the context of a client that trusts `identity` alone."""
    return ssl.create_default_context(cadata=identity.certificate.decode())


def read_all(connection: socket.socket) -> bytes:
    """Read until the server has nothing more to say."""
    received = bytearray()
    while True:
        try:
            chunk = connection.recv(65536)
        except (ConnectionError, ssl.SSLError):
            return bytes(received)
        if not chunk:
            return bytes(received)
        received += chunk


def converse(connection: socket.socket, data: bytes) -> bytes:
    """Write `data` and read at the same time, until the server has nothing more to say."""
    connection.setblocking(False)
    received = bytearray()
    unsent = memoryview(data)
    while True:
        if not any(select.select([connection], [connection] if unsent else [], [], PATIENCE)):
            raise TimeoutError
        try:
            chunk = connection.recv(65536)
        except _WOULD_BLOCK:
            pass
        except OSError:
            return bytes(received)
        else:
            if not chunk:
                return bytes(received)
            received += chunk
        try:
            unsent = unsent[connection.send(unsent[:65536]) :] if unsent else unsent
        except _WOULD_BLOCK:
            pass
        except OSError:
            unsent = memoryview(b"")


_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def status_of(received: bytes) -> int:
    """Read the status of an answer; 0 when there is none."""
    return int(received.split(b" ", 2)[1]) if received else 0
