import errno
import gc
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.web import connections
from app.web.connection import Connection
from app.web.listeners import Limits, bind
from tests.web.served import Process, served
from tests.web.serving import (
    PATIENCE,
    REQUEST,
    Held,
    Server,
    read_all,
    serving,
    status_of,
    trusting,
)

HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01"


@contextmanager
def stalled(server: Server | Process, count: int) -> Iterator[list[socket.socket]]:
    """Open connections that never get on with their handshake; every other one begins it."""
    with ExitStack() as stack:
        opened = []
        for number in range(count):
            connection = stack.enter_context(server.connect())
            if number % 2:
                connection.sendall(HALF_A_HELLO)
            opened.append(connection)
        yield opened


def was_cut(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def is_cut_in_time(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], PATIENCE)
    return bool(readable) and was_cut(connection)


def test_500_handshakes_that_never_end_do_not_disturb_others() -> None:
    with serving(limits=Limits(max_connections=1000)) as server, stalled(server, 500) as those:
        assert [status_of(server.ask()) for _ in range(50)] == [200] * 50
        assert server.open_connections() >= 500
        assert not any(was_cut(connection) for connection in those)


def test_past_the_cap_those_that_have_stalled_longest_make_room() -> None:
    with serving(limits=Limits(max_connections=1000)) as server, stalled(server, 1500) as those:
        assert [status_of(server.ask()) for _ in range(50)] == [200] * 50
        assert server.open_connections() <= 1000
        cut = [was_cut(connection) for connection in those]
        assert sum(cut) >= 500
        # Behind the first that was left alone, none was cut.
        assert not any(cut[cut.index(False) :])


def test_a_client_that_trickles_its_request_makes_room_too() -> None:
    limits = Limits(max_connections=1, request_seconds=3 * PATIENCE)
    with serving(limits=limits) as server, server.shake() as slow:
        slow.sendall(REQUEST[:-1])
        assert status_of(server.ask()) == 200
        assert is_cut_in_time(slow)


def test_a_request_that_is_worked_on_is_never_cut_for_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.0)
    held = Held()
    with serving(held, limits=Limits(max_connections=1)) as server, server.shake() as first:
        first.sendall(REQUEST)
        assert held.asked.wait(PATIENCE)
        with server.connect() as second:
            assert server.open_connections() == 1
            held.go()
            assert status_of(read_all(first)) == 200
            # Only now there is a place for the other.
            with trusting().wrap_socket(second, server_hostname="localhost") as secured:
                secured.sendall(REQUEST)
                assert status_of(read_all(secured)) == 200


def test_a_rush_of_good_clients_waits_its_turn_and_none_is_cut() -> None:
    with serving(limits=Limits(max_connections=2)) as server, ExitStack() as stack:
        rush = [stack.enter_context(server.connect()) for _ in range(40)]
        for connection in rush:
            with trusting().wrap_socket(connection, server_hostname="localhost") as secured:
                secured.sendall(REQUEST)
                assert status_of(read_all(secured)) == 200


def test_a_handshake_that_takes_too_long_is_cut() -> None:
    with (
        serving(limits=Limits(handshake_seconds=0.2)) as server,
        stalled(server, 2) as those,
    ):
        assert all(is_cut_in_time(connection) for connection in those)
        assert server.is_left_alone()


def test_a_connection_is_not_delayed_by_nagle() -> None:
    def delays(server: Server) -> list[int]:
        return [
            connection._accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for connection in server.listener._roll
        ]

    with serving() as server, server.shake():
        assert server.call(lambda: delays(server)) == [1]


class Unlucky(socket.socket):
    """A listening socket that hands out trouble before it hands out connections."""

    troubles: list[int]

    def accept(self) -> tuple[socket.socket, Any]:
        if self.troubles:
            raise OSError(self.troubles.pop(0), "trouble")
        return super().accept()


def test_trouble_with_accepting_passes_and_is_logged_once_unless_it_is_the_clients(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def bound(address: str) -> socket.socket:
        listening = Unlucky(fileno=bind(address).detach())
        listening.troubles = [errno.ECONNABORTED, errno.EMFILE, errno.ENOMEM]
        return listening

    with serving(bound=bound) as server:
        assert [status_of(server.ask()) for _ in range(2)] == [200] * 2
    assert len(caplog.records) == 1
    assert "EMFILE" in caplog.text


def test_a_full_listener_can_be_stopped() -> None:
    with (
        serving(limits=Limits(max_connections=1)) as server,
        stalled(server, 3) as those,
    ):
        assert server.open_connections() == 1
        server.begin(server.listener.stop(0.0)).result(PATIENCE)
        assert all(is_cut_in_time(connection) for connection in those)


def test_a_connection_whose_handshake_failed_leaves_nothing_behind() -> None:
    with serving() as server:
        gc.collect()
        gc.disable()
        try:
            with server.connect() as connection:
                connection.sendall(b"no TLS at all\r\n\r\n")
                assert read_all(connection) == b""
            assert status_of(server.ask()) == 200
            assert server.is_left_alone()
            left = [thing for thing in gc.get_objects() if isinstance(thing, Connection)]
        finally:
            gc.enable()
    assert left == []


def test_running_out_of_descriptors_is_said_once_and_passes(tmp_path: Path) -> None:
    with served(tmp_path / "log", max_connections=1000, descriptors=40) as process:
        with stalled(process, 100):
            before = process.cpu_seconds()
            # Those that stalled are cut, so that there are descriptors again.
            assert [status_of(process.ask(REQUEST)) for _ in range(3)] == [200] * 3
            assert process.cpu_seconds() - before < 1.0
        assert status_of(process.ask(REQUEST)) == 200
        assert process.log.read_text().count("connections cannot be accepted") == 1
        assert "EMFILE" in process.log.read_text()


def test_memory_stays_bounded_under_all_that_at_once(tmp_path: Path) -> None:
    head = b"POST /grant HTTP/1.1\r\nhost: localhost\r\n"
    body = head + b"content-length: 50000000\r\n\r\n" + b"x" * 50_000_000
    header = head + b"name: " + b"x" * 65536 + b"\r\n\r\n"
    with served(tmp_path / "log", max_connections=1000) as process:
        assert status_of(process.ask(REQUEST)) == 200
        before = process.status("VmRSS")
        with stalled(process, 500), ExitStack() as stack:
            for _ in range(200):
                # As much as the server is ready to take of a request, and then no more.
                slow = stack.enter_context(process.shake())
                slow.sendall(head + b"name: " + b"x" * 16_000)
            assert [status_of(process.ask(header)) for _ in range(20)] == [431] * 20
            assert [status_of(process.ask(body)) for _ in range(5)] == [400] * 5
            assert [status_of(process.ask(REQUEST)) for _ in range(20)] == [200] * 20
            growth = process.status("VmHWM") - before
    assert growth < 100 * 1024 * 1024
    print(f"the server grew by at most {growth / 2**20:.1f} MiB")  # noqa: T201
