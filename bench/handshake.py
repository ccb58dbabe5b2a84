"""The client half of TLS 1.3 (RFC 8446), as little of it as a load generator needs.

It trusts anyone: neither the certificate nor its signature nor the server's Finished is looked
at, which is where a real client spends most of its time. That keeps the generator cheaper than
the server; it must never be used to talk to anything but a server under load on loopback.
On the wire it looks like the real clients: X25519, AES-256-GCM with SHA-384 (what Python's
server preference picks for them), the compatibility session id and ChangeCipherSpec, no SNI,
no ALPN, and the PSK mode that makes a server hand out tickets if it is inclined to.
"""

import hashlib
import hmac
import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HASH = "sha384"
HASH_BYTES = 48
AES_256_GCM_SHA384 = 0x1302
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION = 20, 21, 22, 23
SERVER_HELLO, FINISHED = 2, 20
RECORD_HEADER_BYTES = 5
COMPATIBILITY_RECORD = b"\x14\x03\x03\x00\x01\x01"
CLOSE_NOTIFY = b"\x01\x00"
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The `random` by which a ServerHello says that it is a HelloRetryRequest (RFC 8446, 4.1.3)."""


class HandshakeError(Exception):
    """The server sent what this client cannot follow."""


def _expand(secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label; every length asked for fits into one block of the hash."""
    label = b"tls13 " + label
    info = b"%b%b%b%b%b\x01" % (
        length.to_bytes(2, "big"),
        bytes((len(label),)),
        label,
        bytes((len(context),)),
        context,
    )
    return hmac.digest(secret, info, HASH)[:length]


NOTHING = hashlib.new(HASH).digest()
ZEROS = bytes(HASH_BYTES)
BEFORE_HANDSHAKE = _expand(hmac.digest(ZEROS, ZEROS, HASH), b"derived", NOTHING, HASH_BYTES)
"""The early secret is the same without a PSK, so what is derived from it is a constant."""

# One key share for every connection: the server cannot tell, and it saves a key each.
KEY = X25519PrivateKey.generate()


def _extension(kind: int, body: bytes) -> bytes:
    return struct.pack(">HH", kind, len(body)) + body


EXTENSIONS = b"".join(
    (
        _extension(10, bytes.fromhex("0004001d0017")),  # groups: X25519, P-256
        _extension(13, bytes.fromhex("000e0403080408070805080604010503")),  # signatures
        _extension(43, bytes.fromhex("020304")),  # versions: 1.3 alone
        _extension(45, bytes.fromhex("0101")),  # PSK mode: with (EC)DHE
        _extension(51, bytes.fromhex("0024001d0020") + KEY.public_key().public_bytes_raw()),
    )
)


def _protected(kind: int, length: int) -> bytes:
    return struct.pack(">BHH", kind, 0x0303, length)


class _Direction:
    """Keys for one direction: seals or opens records, and counts them."""

    __slots__ = ("_cipher", "_count", "_iv")

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(_expand(secret, b"key", b"", 32))
        self._iv = int.from_bytes(_expand(secret, b"iv", b"", 12), "big")
        self._count = 0

    def _nonce(self) -> bytes:
        nonce = (self._iv ^ self._count).to_bytes(12, "big")
        self._count += 1
        return nonce

    def seal(self, kind: int, content: bytes) -> bytes:
        header = _protected(APPLICATION, len(content) + 17)
        return header + self._cipher.encrypt(self._nonce(), content + bytes((kind,)), header)

    def open(self, header: bytes, sealed: bytes) -> tuple[int, bytes]:
        try:
            plain = self._cipher.decrypt(self._nonce(), sealed, header).rstrip(b"\x00")
        except InvalidTag as error:
            raise HandshakeError("a record does not open") from error
        return plain[-1], plain[:-1]


class ClientSession:
    """One connection's TLS: give it what arrived, send what it returns.

    `ready` is true once requests may be sealed, `closed` once the server said goodbye,
    `received` is everything the application was sent.
    """

    __slots__ = ("_buffer", "_inbound", "_messages", "_outbound", "_secret", "_transcript",
                 "_write_secret", "closed", "ready", "received")  # fmt: skip

    def __init__(self) -> None:
        self.ready = False
        self.closed = False
        self.received = b""
        self._buffer = b""
        self._messages = b""
        self._transcript = hashlib.new(HASH)
        self._secret = b""
        self._write_secret = b""
        self._inbound: _Direction | None = None
        self._outbound: _Direction | None = None

    def hello(self) -> bytes:
        """Return the ClientHello, with which every connection begins."""
        unique = os.urandom(64)
        body = b"".join(
            (
                b"\x03\x03",
                unique[:32],
                b"\x20",
                unique[32:],
                struct.pack(">HH", 2, AES_256_GCM_SHA384),
                b"\x01\x00",
                struct.pack(">H", len(EXTENSIONS)),
                EXTENSIONS,
            )
        )
        message = b"\x01" + len(body).to_bytes(3, "big") + body
        self._transcript.update(message)
        return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message

    def feed(self, data: bytes) -> bytes:
        """Take in what arrived; return what is to be sent in answer, if anything.

        Raises `HandshakeError` when the server alerts or speaks of something unknown here.
        """
        data = self._buffer + data
        at, answer = 0, b""
        while len(data) - at >= RECORD_HEADER_BYTES:
            begin = at + RECORD_HEADER_BYTES
            end = begin + int.from_bytes(data[at + 3 : begin], "big")
            if len(data) < end:
                break
            answer += self._record(data[at:begin], data[begin:end])
            at = end
        self._buffer = data[at:]
        return answer

    def seal(self, content: bytes) -> bytes:
        """Return `content` as one record of application data (at most 16 KiB)."""
        return self._sealer().seal(APPLICATION, content)

    def goodbye(self) -> bytes:
        """Return the alert that ends the connection in good order."""
        return self._sealer().seal(ALERT, CLOSE_NOTIFY)

    def _sealer(self) -> _Direction:
        if self._outbound is None:
            raise HandshakeError("not ready to send")
        return self._outbound

    def _record(self, header: bytes, content: bytes) -> bytes:
        kind = header[0]
        if kind == CHANGE_CIPHER_SPEC:
            return b""
        if self._inbound is not None:
            kind, content = self._inbound.open(header, content)
        if kind == APPLICATION:
            self.received += content
        elif kind == ALERT:
            if content != CLOSE_NOTIFY:
                raise HandshakeError(f"alert {content[-1]}")
            self.closed = True
        elif not self.ready:
            return self._handshake(content)
        # What is left are tickets, after the handshake: taken, and not used.
        return b""

    def _handshake(self, content: bytes) -> bytes:
        self._messages += content
        while len(self._messages) >= 4:
            end = 4 + int.from_bytes(self._messages[1:4], "big")
            if len(self._messages) < end:
                break
            message, self._messages = self._messages[:end], self._messages[end:]
            self._transcript.update(message)
            if message[0] == SERVER_HELLO:
                self._agree(message)
            elif message[0] == FINISHED:
                return self._finish()
        return b""

    def _agree(self, hello: bytes) -> None:
        """Derive the handshake keys (RFC 8446, 7.1)."""
        if hello[6:38] == RETRY_RANDOM:
            raise HandshakeError("the server does not take X25519")
        shared = KEY.exchange(X25519PublicKey.from_public_bytes(_key_share(hello)))
        self._secret = hmac.digest(BEFORE_HANDSHAKE, shared, HASH)
        so_far = self._transcript.digest()
        self._write_secret = _expand(self._secret, b"c hs traffic", so_far, HASH_BYTES)
        self._inbound = _Direction(_expand(self._secret, b"s hs traffic", so_far, HASH_BYTES))

    def _finish(self) -> bytes:
        """Derive the application's keys and return our Finished."""
        so_far = self._transcript.digest()
        key = _expand(self._write_secret, b"finished", b"", HASH_BYTES)
        finished = b"\x14\x00\x00\x30" + hmac.digest(key, so_far, HASH)
        sealed = _Direction(self._write_secret).seal(HANDSHAKE, finished)
        derived = _expand(self._secret, b"derived", NOTHING, HASH_BYTES)
        master = hmac.digest(derived, ZEROS, HASH)
        self._outbound = _Direction(_expand(master, b"c ap traffic", so_far, HASH_BYTES))
        self._inbound = _Direction(_expand(master, b"s ap traffic", so_far, HASH_BYTES))
        self.ready = True
        return COMPATIBILITY_RECORD + sealed


def _key_share(hello: bytes) -> bytes:
    """Return the server's X25519 key out of its ServerHello."""
    # Type and length 4, version 2, random 32, session id, suite 2, compression 1, length 2.
    at = 39 + hello[38]
    if int.from_bytes(hello[at : at + 2], "big") != AES_256_GCM_SHA384:
        raise HandshakeError("the server chose another cipher suite")
    at += 5
    while at < len(hello):
        kind, length = struct.unpack_from(">HH", hello, at)
        if kind == 51:
            return hello[at + 8 : at + 4 + length]
        at += 4 + length
    raise HandshakeError("no key share from the server")
