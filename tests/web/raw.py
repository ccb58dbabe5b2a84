"""A TLS client that decides what goes into which segment and sees the records that come back."""

import contextlib
import socket
import ssl
import struct
from types import TracebackType
from typing import Self

from tests.web.serving import IDENTITY, Identity, Server, trusting

CLOSE_NOTIFY_BYTES = 2 + 1 + 16  # the alert, its kind, the tag of the cipher
_HEADER = struct.Struct("!BHH")


class RawTls:
    """A connection whose handshake is done.

    `records` are the sizes of what came back; the last is the server's close_notify.
    """

    def __init__(self, server: Server, identity: Identity = IDENTITY) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trusting(identity).wrap_bio(
            self._incoming, self._outgoing, server_hostname="localhost"
        )
        self.socket = server.connect()
        self._unread = bytearray()
        self.records: list[int] = []
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.sendall(self._outgoing.read())
                self._incoming.write(self.socket.recv(65536))
            else:
                self.socket.sendall(self._outgoing.read())
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.socket.close()

    def seal(self, data: bytes) -> bytes:
        """Make the record that carries `data`."""
        self._tls.write(data)
        return self._outgoing.read()

    def end(self) -> bytes:
        """Make the record that ends the client's side (close_notify)."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._outgoing.read()

    def reset(self) -> None:
        """Leave without a word: the kernel sends RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read_all(self) -> bytes:
        """Read until the server has nothing more to say."""
        received = bytearray()
        while True:
            try:
                chunk = self.socket.recv(65536)
            except ConnectionError:
                return bytes(received)
            if not chunk:
                return bytes(received)
            self._count(chunk)
            self._incoming.write(chunk)
            try:
                while more := self._tls.read(65536):
                    received += more
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLZeroReturnError:  # instead of nothing, when the client has ended too
                pass
            return bytes(received)

    def _count(self, chunk: bytes) -> None:
        self._unread += chunk
        while len(self._unread) >= _HEADER.size:
            _, _, size = _HEADER.unpack_from(self._unread)
            if len(self._unread) < _HEADER.size + size:
                return
            self.records.append(size)
            del self._unread[: _HEADER.size + size]
