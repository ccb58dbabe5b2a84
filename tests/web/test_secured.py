import asyncio
import gc
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from starlette.types import Receive, Scope, Send

from app.web import acceptor
from app.web.connection import Connection
from app.web.listeners import Limits
from app.web.secured import Secured
from tests.web.raw import RawTls
from tests.web.serving import PATIENCE, REQUEST, Held, Server, answer, serving, status_of

UNFINISHED = REQUEST[:-1]


class Judging:
    """Answers whole requests, and counts them."""

    def __init__(self) -> None:
        self.judged = 0
        self.gone = 0

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            if not message["more_body"]:
                self.judged += 1
                await answer(send, 200, b"judged\n")
                return
        self.gone += 1


@contextmanager
def held_up(server: Server) -> Iterator[None]:
    """Keep the server from looking, so that it finds everything at once."""
    entered, over = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        over.wait(PATIENCE)

    server.loop.call_soon_threadsafe(hold)
    assert entered.wait(PATIENCE)
    try:
        yield
    finally:
        over.set()


def settle(server: Server) -> None:
    """Let the server see what the kernel has for it."""
    for _ in range(3):
        server.call(lambda: None)


def ends_its_tls_with_the_request(client: RawTls, request: bytes) -> None:
    client.socket.sendall(client.seal(request) + client.end())


def ends_its_tls_later(client: RawTls, request: bytes) -> None:
    client.socket.sendall(client.seal(request))
    client.socket.sendall(client.end())


def ends_its_tcp(client: RawTls, request: bytes) -> None:
    client.socket.sendall(client.seal(request))
    client.socket.shutdown(socket.SHUT_WR)


def ends_both(client: RawTls, request: bytes) -> None:
    client.socket.sendall(client.seal(request) + client.end())
    client.socket.shutdown(socket.SHUT_WR)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has closed its socket will not acknowledge the end of its TLS."""
    monkeypatch.setattr(acceptor, "SHUTDOWN_SECONDS", 0.1)


WAYS = [ends_its_tls_with_the_request, ends_its_tls_later, ends_its_tcp, ends_both]
Way = Callable[[RawTls, bytes], None]


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_has_stopped_sending_is_answered(way: Way) -> None:
    app = Judging()
    with serving(app) as server:
        with RawTls(server) as client:
            way(client, REQUEST)
            assert client.read_all().endswith(b"judged\n")
        with RawTls(server) as client:
            with held_up(server):
                way(client, REQUEST)
            assert client.read_all().endswith(b"judged\n")
        assert server.is_left_alone()
    assert app.judged == 2


@pytest.mark.parametrize("way", WAYS)
def test_it_may_have_stopped_long_before_the_answer(way: Way) -> None:
    held = Held()
    with serving(held) as server, RawTls(server) as client:
        way(client, REQUEST)
        assert held.asked.wait(PATIENCE)
        settle(server)
        held.go()
        assert client.read_all().endswith(b"held\n")
        assert server.is_left_alone()


@pytest.mark.parametrize("way", [ends_its_tcp, ends_both])
def test_who_stops_before_the_request_is_whole_is_gone_at_once(way: Way) -> None:
    app = Judging()
    with (
        serving(app, limits=Limits(request_seconds=3 * PATIENCE)) as server,
        RawTls(server) as client,
        RawTls(server) as silent,
    ):
        way(client, UNFINISHED)
        assert client.read_all() == b""
        way(silent, b"POST")
        assert silent.read_all() == b""
        assert server.is_left_alone()
    assert (app.judged, app.gone) == (0, 1)


def test_who_ends_its_tls_alone_before_the_request_is_whole_has_the_time_of_a_request() -> None:
    app = Judging()
    with (
        serving(app, limits=Limits(request_seconds=0.2)) as server,
        RawTls(server) as client,
    ):
        ends_its_tls_later(client, UNFINISHED)
        assert client.read_all() == b""
        assert server.is_left_alone()
    assert (app.judged, app.gone) == (0, 1)


def test_a_client_that_leaves_during_the_work_on_its_answer_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = Held()
    with serving(held) as server:
        client = RawTls(server)
        client.socket.sendall(client.seal(REQUEST) + client.end())
        assert held.asked.wait(PATIENCE)
        client.reset()
        settle(server)
        held.go()
        assert server.is_left_alone()
    assert caplog.records == []


@pytest.mark.parametrize("at_once", [True, False])
def test_who_goes_on_sending_after_its_end_is_let_go(
    at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    limits = Limits(request_seconds=3 * PATIENCE)
    with serving(held, limits=limits) as server, RawTls(server) as client:
        end = client.seal(REQUEST) + client.end()
        more = b"x" * 10_000
        client.socket.sendall(end + more if at_once else end)
        assert held.asked.wait(PATIENCE)
        if not at_once:
            client.socket.sendall(more)
        assert client.read_all() == b""
        held.go()
        assert server.is_left_alone()
    assert caplog.records == []


def test_a_failed_application_is_not_waited_for_when_its_client_ends_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acceptor, "SHUTDOWN_SECONDS", 3 * PATIENCE)
    fail, failed = threading.Event(), threading.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.to_thread(fail.wait, PATIENCE)
        asyncio.get_running_loop().call_soon(failed.set)

    limits = Limits(request_seconds=3 * PATIENCE)
    with serving(app, limits=limits) as server, RawTls(server) as client:
        client.socket.sendall(client.seal(REQUEST))
        fail.set()
        assert failed.wait(PATIENCE)
        client.socket.shutdown(socket.SHUT_WR)
        assert server.is_left_alone()


def test_a_request_that_is_refused_is_refused_to_a_client_that_has_stopped_sending_too() -> None:
    with serving() as server:
        for way in WAYS:
            with RawTls(server) as client:
                way(client, b"no HTTP\r\n\r\n")
                assert status_of(client.read_all()) == 400
        assert server.is_left_alone()


@pytest.mark.parametrize("way", WAYS)
def test_such_a_connection_is_let_go_without_the_garbage_collector(way: Way) -> None:
    with serving() as server:
        gc.collect()
        gc.disable()
        try:
            with RawTls(server) as client:
                way(client, REQUEST)
                assert status_of(client.read_all()) == 200
            assert server.is_left_alone()
            settle(server)
            left = [one for one in gc.get_objects() if isinstance(one, Connection | Secured)]
        finally:
            gc.enable()
    assert left == []
