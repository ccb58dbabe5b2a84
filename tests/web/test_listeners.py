import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from app import logs
from app.errors import Misconfigured
from app.web.listeners import Limits, Listener, bind, run
from tests.web.serving import (
    PATIENCE,
    REQUEST,
    Held,
    answer,
    obliging,
    read_all,
    serving,
    status_of,
)


async def telling_who_asks(scope: Scope, _receive: Receive, send: Send) -> None:
    host, port = scope["client"]
    own = "{}:{}".format(*scope["server"])
    await answer(send, 200, f"{host} {port} {own} {scope['scheme']}".encode())


def test_the_application_learns_who_asks_and_where() -> None:
    for tls, scheme in ((True, "https"), (False, "http")):
        with serving(telling_who_asks, tls=tls) as server, server.shake() as connection:
            peer = connection.getsockname()[1]
            connection.sendall(REQUEST)
            told = read_all(connection).rpartition(b"\r\n")[2].decode()
            assert told == f"127.0.0.1 {peer} 127.0.0.1:{server.port} {scheme}"


def test_both_families_are_served_and_a_client_has_one_address() -> None:
    with serving(telling_who_asks, tls=False, address="[::]:0") as server:
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, server.port), PATIENCE) as connection:
                connection.sendall(REQUEST)
                assert f"\r\n\r\n{host} ".encode() in read_all(connection)


def test_a_request_in_flight_is_finished_before_the_stop() -> None:
    held = Held()
    with serving(held) as server, server.shake() as connection:
        connection.sendall(REQUEST)
        assert held.asked.wait(PATIENCE)
        stopping = server.begin(server.listener.stop(PATIENCE))
        server.call(lambda: None)
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        assert not stopping.done()
        held.go()
        assert status_of(read_all(connection)) == 200
        connection.close()
        stopping.result(PATIENCE)
        assert server.is_left_alone()


def test_a_handshake_in_flight_is_finished_before_the_stop_too() -> None:
    with serving() as server, server.connect() as connection:
        assert server.open_connections() == 1
        stopping = server.begin(server.listener.stop(PATIENCE))
        server.call(lambda: None)
        with server.secure(connection) as secured:
            secured.sendall(REQUEST)
            assert status_of(read_all(secured)) == 200
        stopping.result(PATIENCE)


def test_who_has_nothing_to_ask_does_not_hold_up_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.web.listeners.HURRY_SECONDS", 0.05)
    limits = Limits(handshake_seconds=3 * PATIENCE, request_seconds=3 * PATIENCE)
    with serving(limits=limits) as server, server.shake() as idle, server.connect():
        server.begin(server.listener.stop(PATIENCE)).result(PATIENCE / 2)
        assert read_all(idle) == b""


def test_an_idle_connection_that_was_kept_is_closed_at_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.web.listeners.HURRY_SECONDS", 3 * PATIENCE)
    monkeypatch.setattr(
        "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol.timeout_keep_alive_handler",
        lambda _: None,
    )

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"3")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok\n"})

    with serving(app, tls=False, keep_alive=True) as server, server.connect() as connection:
        connection.sendall(REQUEST)
        assert status_of(connection.recv(4096)) == 200
        server.begin(server.listener.stop(PATIENCE)).result(PATIENCE / 2)
        assert read_all(connection) == b""


def test_past_its_grace_a_request_is_cut_and_that_is_said_without_a_stack_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    held = Held()
    with serving(held) as server, server.shake() as connection:
        connection.sendall(REQUEST)
        assert held.asked.wait(PATIENCE)
        server.begin(server.listener.stop(0.0)).result(PATIENCE)
        assert read_all(connection) == b""
        assert held.gone.is_set()
        assert server.call(lambda: len(server.listener._state.tasks)) == 0
        held.go()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "connections were cut at the end" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_listener_that_was_never_started_gives_its_socket_back() -> None:
    async def main() -> None:
        listening = bind("127.0.0.1:0")
        await Listener(obliging, listening).stop(1.0)
        assert listening.fileno() == -1

    run(main)


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """Give back the root logger as it was, and list what reaches it meanwhile."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[assignment, method-assign]
    root.addHandler(handler)
    yield seen
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_no_line_is_logged_for_a_request_however_logging_is_set_up(
    logged: list[logging.LogRecord],
) -> None:
    with Path("/dev/null").open("w") as nowhere, serving() as server:
        assert status_of(server.ask()) == 200
        logs.configure(logs.Format.TEXT, logs.Level.DEBUG, nowhere)
        assert status_of(server.ask()) == 200
    assert [record for record in logged if record.name.startswith("uvicorn")] == []


@pytest.mark.parametrize(
    ("address", "family", "host"),
    [
        ("127.0.0.1:0", socket.AF_INET, "127.0.0.1"),
        ("localhost:0", socket.AF_INET, "127.0.0.1"),
        ("[::1]:0", socket.AF_INET6, "::1"),
        ("[::]:0", socket.AF_INET6, "::"),
    ],
)
def test_an_address_is_bound(address: str, family: int, host: str) -> None:
    with bind(address) as listening:
        assert listening.family == family
        assert listening.getsockname()[0] == host
        assert not listening.getblocking()
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        # The kernel doubles what it is asked for (socket(7)).
        kernel = listening.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert kernel <= 128 * 1024


def test_a_port_that_is_taken_is_refused_with_the_address_and_the_remedy() -> None:
    with bind("127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Misconfigured) as refusal:
            bind(address)
    (problem,) = refusal.value.problems
    assert f'"{address}"' in problem
    assert "choose another port" in problem
    with bind(address):
        pass


@pytest.mark.parametrize(
    "address",
    [
        "",
        "9090",
        ":9090",
        "localhost",
        "localhost:",
        "localhost:http",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "::1:9090",
        "[::1]",
        "[::1:9090",
        "[not-an-address]:0",
        "127.0.0.1 :0",
        "192.0.2.1:0",
        "[2001:db8::1]:0",
        "no-such-host.invalid:0",
        "a" * 300 + ":0",
        "\u0000:0",
    ],
)
def test_what_is_no_address_of_ours_is_refused_with_what_to_do(address: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        bind(address)
    (problem,) = refusal.value.problems
    assert address in problem


@given(st.text(max_size=12), st.text(alphabet="0123456789٣", max_size=7))
def test_no_text_makes_it_raise_anything_else(host: str, port: str) -> None:
    with contextlib.suppress(Misconfigured):
        bind(f"[{host}]:{port}").close()


def test_run_gives_the_answer_back_and_raises_what_was_raised() -> None:
    async def seven() -> int:
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        return 7

    async def fails() -> None:
        raise Misconfigured(["no"])

    assert run(seven) == 7
    with pytest.raises(Misconfigured):
        run(fails)


def test_run_asks_for_as_many_descriptors_as_it_may_have() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def limit() -> int:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
        assert run(limit) == (65536 if hard == resource.RLIM_INFINITY else min(hard, 65536))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_limits_have_the_documented_defaults() -> None:
    assert Limits() == Limits(
        max_connections=1000, handshake_seconds=5.0, request_seconds=10.0, header_bytes=16384
    )
