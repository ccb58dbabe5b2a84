"""A way to a server on which an answer gets lost, and a client who finds out later what it said.

TLS goes through untouched: the proxy sees records and not what is in them. The client keeps its
side of the connection, so that the bytes that the proxy swallowed can be read after all.
"""

import contextlib
import selectors
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from tests.running import PATIENCE

_APPLICATION_DATA: Final = 23
_HEADER_BYTES: Final = 5
_GOODBYE_BYTES: Final = 24
"""Of a record with an alert in it (RFC 8446, 5.2): header 5, alert 2, its type 1, tag 16."""
_RESET: Final = struct.pack("ii", 1, 0)


class LossyProxy(socketserver.ThreadingTCPServer):
    """Passes connections on to `leads_to`, from the address that they come from.

    While it `loses`, it lets the request through, waits for the whole answer, and cuts the
    connection to the client without a byte of it; `lost` has what it kept back.
    """

    def __init__(self, leads_to: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Passage)
        self.leads_to = leads_to
        self.loses = False
        self.lost: list[bytes] = []

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.socket.getsockname()
        return host, port


class _Passage(socketserver.BaseRequestHandler):
    """One connection, from end to end."""

    server: LossyProxy
    request: socket.socket

    def handle(self) -> None:
        client, loses, whence = self.request, self.server.loses, (self.client_address[0], 0)
        asked, answer = b"", b""
        with (
            socket.create_connection(self.server.leads_to, PATIENCE, whence) as server,
            selectors.DefaultSelector() as either,
            contextlib.suppress(ConnectionError),  # whoever ends it, ends it for both
        ):
            either.register(client, selectors.EVENT_READ)
            either.register(server, selectors.EVENT_READ)
            while ready := either.select(PATIENCE):
                for key, _ in ready:
                    data = (client if key.fileobj is client else server).recv(65_536)
                    if not data:
                        return
                    if key.fileobj is client:
                        asked += data
                        server.sendall(data)
                    elif loses and _has_finished_its_handshake(asked):
                        answer += data
                        if _has_said_goodbye(answer):
                            self._lose(answer)
                            return
                    else:
                        client.sendall(data)

    def _lose(self, answer: bytes) -> None:
        self.server.lost.append(answer)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.request.close()


def _records(stream: bytes) -> Iterator[bytes]:
    """The records of TLS in a stream, as far as they are whole."""
    while len(stream) >= _HEADER_BYTES:
        end = _HEADER_BYTES + int.from_bytes(stream[3:_HEADER_BYTES], "big")
        if len(stream) < end:
            return
        yield stream[:end]
        stream = stream[end:]


def _has_finished_its_handshake(asked: bytes) -> bool:
    """Tell whether a client has sent its Finished: what comes back from then on is the answer."""
    return any(record[0] == _APPLICATION_DATA for record in _records(asked))


def _has_said_goodbye(answer: bytes) -> bool:
    """Tell whether a server has sent everything, its close_notify included."""
    return any(len(record) == _GOODBYE_BYTES for record in _records(answer))


@contextlib.contextmanager
def lossy(leads_to: tuple[str, int]) -> Iterator[LossyProxy]:
    """Run a proxy until the block ends."""
    with LossyProxy(leads_to) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join(PATIENCE)


def lose(proxy: LossyProxy, context: ssl.SSLContext, request: bytes, peer: str) -> bytes:
    """Send a request whose answer gets lost; return what the server had sent, headers and all."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=proxy.address[0])
    proxy.loses = True
    with socket.create_connection(proxy.address, PATIENCE, (peer, 0)) as connection:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65_536))
        tls.write(request)
        connection.sendall(outgoing.read())
        with pytest.raises(ConnectionResetError):
            connection.recv(65_536)
    proxy.loses = False
    incoming.write(proxy.lost.pop())
    said = b""
    while data := tls.read(65_536):
        said += data
    return said
