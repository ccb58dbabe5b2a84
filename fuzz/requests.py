"""Requests as strangers may send them, a client that sends any bytes, and the judge of answers."""

import contextlib
import itertools
import json
import re
import socket
import ssl
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from hypothesis import strategies as st

from app.domain.names import check_claimed_name, common_name
from app.errors import Refused
from app.web.wire import REFUSALS
from fuzz.mutations import Damaged

SECONDS: Final = 20.0
"""Time for one answer. The server gives a request one or two; the rest is for a loaded machine."""

LONGEST_ANSWER: Final = 32 * 1024
_ENDED: Final = 0.95  # of the clients say when they have sent all; the others have to be cut
READ_BYTES: Final = 65_536
MALFORMED: Final = "Invalid HTTP request received."
TOO_LARGE: Final = "Request header fields are too large"
TEXTS: Final = {
    **{refusal.text: refusal.status for refusal in REFUSALS.values()},
    MALFORMED: 400,
    TOO_LARGE: 431,
}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEAD: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+\r\n((?:[a-z-]+: [!-~ ]*\r\n)+)\r\n")

WORDS: Final = (
    *(b"GET ", b"HEAD ", b"PUT ", b"CONNECT ", b"OPTIONS ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    *(b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/9.9", b"\r\n", b"\n", b"\r"),
    *(b"\r\n\r\n", b"\x00", b"\xff", b"\x7f", b"\t", b" ", b":", b"/", b"//", b"%", b"%2F", b"%00"),
    *(
        b"%ff",
        b"%zz",
        b"?",
        b"#",
        b"*",
        b"http://",
        b"https://a:b@[::1]:9/",
        b"\xc3\xa9",
        b";",
        b",",
    ),
    *(b"Content-Length: 0\r\n", b"Content-Length: 4\r\n", b"Content-Length: -1\r\n"),
    *(b"Content-Length: 99999999999999999999\r\n", b"Content-Length: 5000\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    *(b"Transfer-Encoding: identity\r\n", b"5;a=b\r\n", b"ffffffffffffffff\r\n", b"-1\r\n"),
    *(
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: close\r\n",
    ),
    *(b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"Host: a\r\n", b"Host:\r\n"),
    *(
        b"name: \r\n",
        b"subject: \r\n",
        b"Name: ../../x\r\n",
        b"Subject: \xff\xfe\r\n",
        b" folded\r\n",
    ),
    *(b"Authorization: Bearer x\r\n", b"Authorization: bearer\r\n", b"x: y\r\n" * 101),
    *(
        b"X: " + b"y" * 17_000 + b"\r\n",
        b"y" * 5000,
        b"trailer: x\r\n",
        b"Content-Encoding: gzip\r\n",
    ),
)

Pieces = tuple[bytes, ...]
Sent = tuple[Pieces, bool]
"""What is sent, piece by piece, and whether the client then says that this was all."""


def request(target: str, code: bytes, *headers: bytes) -> bytes:
    """Write a claim as an unmodified client does."""
    head = (
        f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1:9090\r\nUser-Agent: Go-http-client/1.1\r\n"
        f"Content-Length: {len(code)}\r\n"
    )
    return b"".join([head.encode(), *headers, b"Accept-Encoding: gzip\r\n\r\n", code])


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedRequests:
    """Damaged requests, cut into pieces anywhere; `code` comes last, and whole."""

    requests: Damaged
    code: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, *originals: bytes, code: bytes = b"") -> "DamagedRequests":
        """Damage these."""
        return cls(requests=Damaged(originals=originals, words=WORDS), code=code)

    def draw(self, random: Random) -> Sent:
        """Make one."""
        data = self.requests.draw(random) + self.code
        places = [random.randint(0, len(data)) for _ in range(random.choice((0, 0, 1, 2)))]
        return _cut(data, places, random.random() < _ENDED)

    def strategy(self) -> st.SearchStrategy[Sent]:
        """Give the same to hypothesis."""
        return st.builds(
            _cut,
            self.requests.strategy().map(lambda data: data + self.code),
            st.lists(st.integers(0, 0xFFFF), max_size=3),
            st.just(value=True),
        )


def _cut(data: bytes, places: Sequence[int], ended: bool) -> Sent:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    return tuple(piece for piece in pieces if piece), ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: one whole answer."""

    status: int
    body: bytes


def judge(received: bytes) -> Answer | None:
    """Make sure that it is one whole answer that the server may give, or nothing at all."""
    assert len(received) <= LONGEST_ANSWER, f"an answer of {len(received)} bytes"
    if not received:
        return None
    rest = received.removeprefix(CONTINUE)
    if not rest:
        return None
    head = _HEAD.match(rest)
    assert head is not None, f"no head of an answer: {rest[:200]!r}"
    status, body = int(head[1]), rest[head.end() :]
    fields = [line.split(b": ", 1) for line in head[2].splitlines()]
    values = {name: value for name, value in fields}  # noqa: C416 - lists of two
    assert len(values) == len(fields), f"a header twice: {fields}"
    assert values[b"connection"] == b"close"
    length = int(values[b"content-length"])
    assert len(body) in {length, 0}, f"{len(body)} bytes of {length}"
    assert body or status == TEXTS["Only POST is supported"], "an answer without its body"
    if status == 200:
        assert body.startswith(b"---\n") or json.loads(body)
    elif body:
        text = body.decode("ascii").removesuffix("\n")
        assert TEXTS.get(text) == status, (status, text)
    return Answer(status=status, body=body)


class Door:
    """Where a server listens; with a context, behind TLS."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext | None) -> None:
        self.address = address
        self.context = context

    def exchange(self, sent: Sent) -> bytes:
        """Send the pieces over a new connection and read until the server ends it.

        Raises TimeoutError when it does not; AssertionError when it breaks TLS.
        """
        pieces, ended = sent
        with socket.create_connection(self.address, SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context is None:
                return _exchange_plain(connection, pieces, ended=ended)
            return _Tls(connection, self.context).exchange(pieces, ended=ended)

    def ask(self, sent: Sent) -> Answer | None:
        """Send, and judge what comes back."""
        return judge(self.exchange(sent))


def _exchange_plain(connection: socket.socket, pieces: Pieces, *, ended: bool) -> bytes:
    with contextlib.suppress(ConnectionError):  # it need not listen to all of it
        for piece in pieces:
            connection.sendall(piece)
    if ended:
        with contextlib.suppress(OSError):  # it may be over already
            connection.shutdown(socket.SHUT_WR)
    return b"".join(_chunks(connection))


def _chunks(connection: socket.socket) -> Iterator[bytes]:
    """Give what comes until the end, within the time for one answer."""
    end = time.monotonic() + SECONDS
    while True:
        connection.settimeout(max(0.001, end - time.monotonic()))
        try:
            chunk = connection.recv(READ_BYTES)
        except ConnectionError:
            return
        if not chunk:
            return
        yield chunk


class _Tls:
    """A client that may say that it has sent all, and still read: `ssl` on sockets cannot."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                chunk = connection.recv(READ_BYTES)
                assert chunk, "the connection ended in the handshake"
                self._incoming.write(chunk)
            else:
                self._flush()
                return

    def _flush(self) -> None:
        self._connection.sendall(self._outgoing.read())

    def exchange(self, pieces: Pieces, *, ended: bool) -> bytes:
        with contextlib.suppress(OSError):
            for piece in pieces:
                self._tls.write(piece)
                self._flush()
            if ended:
                with contextlib.suppress(ssl.SSLWantReadError):
                    self._tls.unwrap()
                self._flush()
                self._connection.shutdown(socket.SHUT_WR)
        received = bytearray()
        for chunk in _chunks(self._connection):
            self._incoming.write(chunk)
            try:
                while more := self._tls.read(READ_BYTES):
                    received += more
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLZeroReturnError:
                pass
            break
        return bytes(received)


def client_hello(context: ssl.SSLContext) -> bytes:
    """Write the first message of a handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()


TLS_WORDS: Final = (
    *(
        b"\x16\x03\x01",
        b"\x16\x03\x03",
        b"\x15\x03\x03\x00\x02\x01\x00",
        b"\x14\x03\x03\x00\x01\x01",
    ),
    *(b"\x17\x03\x03\x40\x00", b"\xff\xff", b"\x00\x00", b"\x03\x04", b"\x03\x02", b"\x80\x2e"),
    *(
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
        b"\x00\x1d",
        b"\x11\xec",
    ),
)


# Paths and headers, with what must become of them


def targets(grant_id: str) -> st.SearchStrategy[str]:
    """Draw request targets that may or may not lead to the grant."""
    parts = st.sampled_from(
        [
            *(grant_id, grant_id[:8], grant_id[8:], grant_id.upper(), urllib.parse.quote(grant_id)),
            "".join(f"%{ord(character):02x}" for character in grant_id),
            *("/", "//", "%2F", "%2f", "?", "?a=b", "#", "#x", ".", "..", ";", ":", "%", "%00"),
            *("%ff", "%zz", "%c3%a9", "%252F", "+", "&", "=", "@", "[", "]", "|", "\\", '"', "~"),
        ]
    )
    printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=5)
    return st.lists(st.one_of(parts, parts, printable), max_size=6).map(
        lambda found: "/" + "".join(found)
    )


def leads_to(target: str, grant_id: str) -> bool:
    """Tell whether a target is the grant's, as the wire contract has it."""
    path = re.split("[?#]", target, maxsplit=1)[0]
    return urllib.parse.unquote(path).replace("/", "") == grant_id


_FIELD_BYTES: Final = st.binary(max_size=12).map(
    lambda value: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", value)
)
NAME_FIELDS: Final = st.sampled_from(
    [
        *(b"lab", b"123", b"null", b"a.b", b"x-1", b"a" * 253, b"a" * 254, b"", b" lab\t", b"Lab"),
        *(b"../x", b"a b", b"a\tb", b"a_b", b"-a", b"a.", b"\xc3\xa9", b"\xff", b"lab, lab"),
    ]
)
SUBJECT_FIELDS: Final = st.sampled_from(
    [
        *(b"5f0f8f8e-3f3b-4f7a-9a55-6f2f1c6f3a77", b"east", b"", b"s" * 64, b"s" * 65, b"s" * 254),
        *("\u00f1and\u00fa".encode(), "\U0001f600".encode() * 17, "\u2028".encode(), b"CN=a,O=b"),
        *(b"a\tb", b"\xff", b"a b", b'"', b"\\", b"+", b"#", "\u202e".encode(), b"a=b"),
    ]
)
Field = tuple[bytes, bytes]
FIELDS: Final[st.SearchStrategy[list[Field]]] = st.lists(
    st.tuples(st.sampled_from([b"name", b"Name", b"NAME"]), NAME_FIELDS | _FIELD_BYTES)
    | st.tuples(st.sampled_from([b"subject", b"Subject"]), SUBJECT_FIELDS | _FIELD_BYTES)
    | st.tuples(st.just(b"x"), _FIELD_BYTES),
    max_size=4,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What the headers of a claim come to: the name of Secret and Links, the common name."""

    name: str
    common_name: str


def claimed(fields: Sequence[Field], grant_name: str) -> Claimed | None:
    """Say what must come of headers, as the wire contract has it; None is a refusal."""
    first: dict[bytes, bytes] = {}
    for key, value in fields:
        first.setdefault(key.lower(), value.strip(b" \t"))
    try:
        name = first.get(b"name", b"").decode() or grant_name
        subject = first.get(b"subject", b"").decode() or name
        check_claimed_name(name)
        return Claimed(name=name, common_name=common_name(subject))
    except (UnicodeDecodeError, Refused):
        return None
