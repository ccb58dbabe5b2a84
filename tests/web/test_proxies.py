import asyncio
import gc
import socket
import ssl
import struct
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from app.web import acceptor, connections, proxies
from app.web.connection import Connection
from app.web.listeners import Limits, Listener, bind, run
from app.web.proxies import Proxies
from app.web.proxy_header import MOST_BYTES, SIGNATURE
from app.web.secured import Secured
from tests.web.serving import (
    PATIENCE,
    REQUEST,
    Server,
    answer,
    obliging,
    read_all,
    serving,
    status_of,
    trusting,
)

PORTS = struct.pack("!HH", 56324, 9090)
LINE = b"PROXY TCP4 192.0.2.7 10.0.0.9 56324 9090\r\n"
LINE_6 = b"PROXY TCP6 2001:db8::7 fd00::9 56324 9090\r\n"
BINARY = (
    SIGNATURE
    + b"\x21\x11\x00\x0c"
    + IPv4Address("192.0.2.7").packed
    + IPv4Address("10.0.0.9").packed
    + PORTS
)
BINARY_6 = (
    SIGNATURE
    + b"\x21\x21\x00\x24"
    + IPv6Address("2001:db8::7").packed
    + IPv6Address("fd00::9").packed
    + PORTS
)
EXTENDED = BINARY[:14] + struct.pack("!H", 12 + 2003) + BINARY[16:] + b"\xea\x07\xd0" + bytes(2000)
MAPPED = b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.9 56324 9090\r\n"
FOUR, SIX = "192.0.2.7 56324", "2001:db8::7 56324"
NAMED = [
    (LINE, FOUR),
    (LINE_6, SIX),
    (MAPPED, FOUR),
    (BINARY, FOUR),
    (BINARY_6, SIX),
    (EXTENDED, FOUR),
]
NAMELESS = [
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN 192.0.2.7 10.0.0.9 1 2\r\n",
    SIGNATURE + b"\x20\x00\x00\x00",
    SIGNATURE + b"\x20\x11" + BINARY[14:],
    SIGNATURE + b"\x21\x00\x00\x03" + b"\x04\x00\x00",
]


async def telling_who_asks(scope: Scope, _receive: Receive, send: Send) -> None:
    await answer(send, 200, "{} {}".format(*scope["client"]).encode())


def text_of(received: bytes) -> str:
    return received.rpartition(b"\r\n")[2].decode()


def let_it_see(server: Server) -> None:
    """Let the server see what the kernel has for it, before more comes."""
    for _ in range(3):
        server.call(lambda: None)


def was_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


class Client:
    """A TLS client whose first words are there before its connection is; see `hello`."""

    def __init__(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trusting().wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self.hello = self._outgoing.read()

    def ask(self, connection: socket.socket) -> str:
        """Go on once `hello` was sent: end the handshake, ask, and read the answer."""
        self._incoming.write(connection.recv(65536))
        self._tls.do_handshake()
        self._tls.write(REQUEST)
        connection.sendall(self._outgoing.read())
        self._incoming.write(read_all(connection))
        return text_of(self._tls.read(65536))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of these clients do not acknowledge the end of their TLS."""
    monkeypatch.setattr(acceptor, "SHUTDOWN_SECONDS", 0.1)


def ask_behind(server: Server, header: bytes) -> str:
    with server.connect() as connection:
        connection.sendall(header)
        with server.secure(connection) as secured:
            secured.sendall(REQUEST)
            return text_of(read_all(secured))


@pytest.mark.parametrize(("header", "told"), NAMED)
def test_the_peer_is_who_the_header_names(header: bytes, told: str) -> None:
    with serving(telling_who_asks, proxies=Proxies()) as server:
        assert ask_behind(server, header) == told
        assert server.is_left_alone()


@pytest.mark.parametrize("header", NAMELESS)
def test_who_is_not_named_is_who_connects(header: bytes) -> None:
    with serving(telling_who_asks, proxies=Proxies()) as server, server.connect() as connection:
        own = "{} {}".format(*connection.getsockname())
        connection.sendall(header)
        with server.secure(connection) as secured:
            secured.sendall(REQUEST)
            assert text_of(read_all(secured)) == own


def test_a_client_has_one_address_whichever_way_the_load_balancer_came() -> None:
    with serving(telling_who_asks, address="[::]:0", proxies=Proxies()) as server:
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, server.port), PATIENCE) as connection:
                connection.sendall(SIGNATURE + b"\x20\x00\x00\x00")
                with server.secure(connection) as secured:
                    secured.sendall(REQUEST)
                    assert text_of(read_all(secured)).startswith(f"{host} ")


@pytest.mark.parametrize(("header", "told"), NAMED[:-1])
def test_a_header_may_come_byte_by_byte(header: bytes, told: str) -> None:
    with serving(telling_who_asks, proxies=Proxies()) as server, server.connect() as connection:
        for byte in header:
            connection.sendall(bytes([byte]))
            let_it_see(server)
        with server.secure(connection) as secured:
            secured.sendall(REQUEST)
            assert text_of(read_all(secured)) == told


@pytest.mark.parametrize(("header", "told"), NAMED)
@pytest.mark.parametrize("apart", [0, 1, 11, 17, 40])
def test_the_handshake_may_come_with_the_header_or_a_part_of_it(
    header: bytes, told: str, apart: int
) -> None:
    client = Client()
    stream = header + client.hello
    with serving(telling_who_asks, proxies=Proxies()) as server, server.connect() as connection:
        if apart:
            connection.sendall(stream[:apart])
            let_it_see(server)
        connection.sendall(stream[apart:])
        assert client.ask(connection) == told


@pytest.mark.parametrize("apart", [len(LINE) - 2, len(LINE) - 1, len(LINE) + 1])
def test_without_tls_nothing_behind_the_header_is_lost_either(apart: int) -> None:
    stream = LINE + REQUEST
    with (
        serving(telling_who_asks, tls=False, proxies=Proxies()) as server,
        server.connect() as connection,
    ):
        connection.sendall(stream[:apart])
        let_it_see(server)
        connection.sendall(stream[apart:])
        assert text_of(read_all(connection)) == FOUR


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (Client().hello, "it begins with something else"),
        (REQUEST, "it begins with something else"),
        (b"PROXY UNKNOWN " + b"x" * 93, "no end of line within 107 bytes"),
        (b"PROXY TCP4 localhost 10.0.0.9 1 2\r\n", "an address that is none of its family"),
        (SIGNATURE + b"\x31\x11" + BINARY[14:], "another version than 2"),
        (SIGNATURE + b"\x21\x11\x10\x00", f"more than {MOST_BYTES} bytes"),
    ],
)
def test_who_begins_with_anything_else_is_cut(
    sent: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(telling_who_asks, proxies=Proxies()) as server:
        for _ in range(3):
            with server.connect() as connection:
                connection.sendall(sent)
                assert was_closed(connection)
        assert server.is_left_alone()
        assert ask_behind(server, LINE) == FOUR
    # Once for all of them: anybody could fill the log.
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "begin with no PROXY header" in caplog.text
    assert why in caplog.text
    assert "127.0.0.1" in caplog.text


def test_without_the_setting_a_header_is_no_handshake() -> None:
    with serving(telling_who_asks) as server:
        with server.connect() as connection:
            connection.sendall(LINE)
            assert was_closed(connection)
        assert status_of(server.ask()) == 200


@pytest.mark.parametrize("part", [0, 1, 15, 20, 40])
@pytest.mark.parametrize("header", [LINE, BINARY_6])
def test_a_header_that_does_not_come_is_cut_in_the_time_of_a_handshake(
    header: bytes, part: int, caplog: pytest.LogCaptureFixture
) -> None:
    limits = Limits(handshake_seconds=0.2, request_seconds=3 * PATIENCE)
    with (
        serving(limits=limits, proxies=Proxies()) as server,
        server.connect() as connection,
    ):
        connection.sendall(header[:part])
        assert was_closed(connection)
        assert server.is_left_alone()
    assert caplog.records == []


@pytest.mark.parametrize(("late", "least", "most"), [(0.002, 1.0, 59.999), (61.0, 0.0, 0.001)])
def test_header_and_handshake_have_one_time_together(
    late: float, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []

    class Clock:
        """The loop with a clock that jumps at each look."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self.loop = loop
            self.now = 0.0

        def time(self) -> float:
            self.now += late
            return self.now

        def __getattr__(self, name: str) -> Any:
            return getattr(self.loop, name)

    class Watched(Secured):
        def __init__(
            self, clock: Clock, *args: Any, handshake_seconds: float, **named: Any
        ) -> None:
            left.append(handshake_seconds)
            super().__init__(clock.loop, *args, handshake_seconds=PATIENCE, **named)

    monkeypatch.setattr(acceptor, "Secured", Watched)
    limits = Limits(handshake_seconds=60.0)
    with serving(telling_who_asks, limits=limits, proxies=Proxies()) as server:
        assert server.listener._acceptor is not None
        server.listener._acceptor._loop = Clock(server.loop)  # type: ignore[assignment]
        assert ask_behind(server, LINE) == FOUR
    [seconds] = left
    assert least < seconds <= most


@pytest.mark.parametrize("part", [0, 7, 16])
def test_who_leaves_before_the_header_is_whole_is_forgotten(
    part: int, caplog: pytest.LogCaptureFixture
) -> None:
    limits = Limits(handshake_seconds=3 * PATIENCE, request_seconds=3 * PATIENCE)
    with serving(limits=limits, proxies=Proxies()) as server:
        with server.connect() as connection:
            connection.sendall(BINARY[:part])
            let_it_see(server)
            assert server.open_connections() == 1
        assert server.is_left_alone()
        with server.connect() as connection:
            connection.sendall(BINARY[:part])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            let_it_see(server)
        assert server.is_left_alone()
    # A check of health that only connects is nothing to speak of.
    assert caplog.records == []


def test_those_without_a_header_make_room_and_disturb_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.0)
    limits = Limits(max_connections=4, handshake_seconds=3 * PATIENCE, request_seconds=3 * PATIENCE)
    with (
        serving(telling_who_asks, limits=limits, proxies=Proxies()) as server,
        ExitStack() as those,
    ):
        stalled = [those.enter_context(server.connect()) for _ in range(12)]
        for connection in stalled[::2]:
            connection.sendall(LINE[:9])
        assert ask_behind(server, LINE) == FOUR
        assert server.open_connections() <= 4
        assert all(was_closed(connection) for connection in stalled[:8])


def test_a_part_of_a_header_does_not_keep_the_loop_busy() -> None:
    limits = Limits(handshake_seconds=3 * PATIENCE, request_seconds=3 * PATIENCE)
    with serving(limits=limits, proxies=Proxies()) as server, server.connect() as connection:
        connection.sendall(BINARY[:-1])
        let_it_see(server)
        [accepted] = [one._accepted for one in server.call(lambda: list(server.listener._roll))]
        # Nothing is left behind that the loop would be told of again and again.
        with pytest.raises(BlockingIOError):
            server.call(lambda: accepted.recv(1, socket.MSG_PEEK))


def test_a_listener_stops_though_headers_are_still_awaited() -> None:
    limits = Limits(handshake_seconds=3 * PATIENCE, request_seconds=3 * PATIENCE)
    with serving(limits=limits, proxies=Proxies()) as server, server.connect() as connection:
        connection.sendall(LINE[:9])
        let_it_see(server)
        server.begin(server.listener.stop(0.0)).result(PATIENCE)
        assert was_closed(connection)


def test_a_process_that_ends_while_a_header_is_awaited_gives_the_socket_back() -> None:
    async def main() -> socket.socket:
        listener = Listener(obliging, bind("127.0.0.1:0"), proxies=Proxies())
        await listener.start()
        assert listener._acceptor is not None
        client = socket.create_connection(listener.address)
        listener._acceptor._accept()
        [connection] = listener._roll
        await asyncio.sleep(0)
        listener._acceptor.close()
        client.close()
        return connection._accepted

    assert run(main).fileno() == -1


@pytest.mark.parametrize("sent", [b"no header at all\r\n", LINE[:9], b"", LINE + b"no TLS\r\n\r\n"])
def test_a_connection_without_a_header_leaves_nothing_behind(sent: bytes) -> None:
    limits = Limits(handshake_seconds=0.2)
    with serving(limits=limits, proxies=Proxies()) as server:
        gc.collect()
        gc.disable()
        try:
            with server.connect() as connection:
                connection.sendall(sent)
                assert was_closed(connection)
            assert server.is_left_alone()
            let_it_see(server)
            left = [one for one in gc.get_objects() if isinstance(one, Connection)]
        finally:
            gc.enable()
    assert left == []


def test_only_the_load_balancers_may_connect(caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = Proxies(sources=[ip_network("192.0.2.0/24"), ip_network("::/0")])
    with serving(telling_who_asks, proxies=elsewhere) as server:
        for _ in range(3):
            with server.connect() as connection:
                connection.sendall(LINE)
                assert was_closed(connection)
        assert server.is_left_alone()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "come from no load balancer" in caplog.text
    assert "127.0.0.1" in caplog.text


@pytest.mark.parametrize(
    ("address", "host", "source"),
    [
        ("127.0.0.1:0", "127.0.0.1", "127.0.0.0/8"),
        ("[::]:0", "127.0.0.1", "127.0.0.1/32"),
        ("[::]:0", "::1", "::1/128"),
    ],
)
def test_a_load_balancer_is_known_by_the_address_it_comes_from(
    address: str, host: str, source: str
) -> None:
    here = Proxies(sources=[ip_network("192.0.2.0/24"), ip_network(source)])
    with (
        serving(telling_who_asks, address=address, proxies=here) as server,
        socket.create_connection((host, server.port), PATIENCE) as connection,
    ):
        connection.sendall(LINE_6)
        with server.secure(connection) as secured:
            secured.sendall(REQUEST)
            assert text_of(read_all(secured)) == SIX


def test_the_sources_hold_for_connections_without_a_header_too() -> None:
    for network, status in (("127.0.0.1/32", 200), ("127.0.0.2/32", 0)):
        bare = Proxies(sources=[ip_network(network)], headers=False)
        with serving(obliging, tls=False, proxies=bare) as server:
            assert status_of(server.ask()) == status


def test_strangers_take_nobody_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.0)
    limits = Limits(max_connections=1, handshake_seconds=3 * PATIENCE, request_seconds=3 * PATIENCE)
    here = Proxies(sources=[ip_network("127.0.0.1/32")])
    with (
        serving(telling_who_asks, limits=limits, proxies=here) as server,
        server.connect() as slow,
    ):
        slow.sendall(LINE)
        let_it_see(server)
        for _ in range(5):
            with socket.create_connection(
                ("127.0.0.1", server.port), PATIENCE, ("127.0.0.2", 0)
            ) as stranger:
                assert was_closed(stranger)
        with server.secure(slow) as secured:
            secured.sendall(REQUEST)
            assert text_of(read_all(secured)) == FOUR


def test_what_is_cut_for_is_said_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(proxies, "QUIET_SECONDS", -1.0)
    with serving(proxies=Proxies()) as server:
        for _ in range(2):
            with server.connect() as connection:
                connection.sendall(REQUEST)
                assert was_closed(connection)
    assert len(caplog.records) == 2
