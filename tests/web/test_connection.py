import asyncio
import logging
import select
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.web import acceptor
from app.web import connection as module
from app.web.listeners import Limits
from tests.web.raw import CLOSE_NOTIFY_BYTES, RawTls
from tests.web.serving import (
    PATIENCE,
    REQUEST,
    Held,
    Server,
    answer,
    converse,
    obliging,
    read_all,
    serving,
    status_of,
)

HEAD = b"POST /grant HTTP/1.1\r\nhost: localhost\r\n"
MALFORMED = b"Invalid HTTP request received.\n"
TOO_LARGE = b"Request header fields are too large\n"
BODY = b"x" * 50_000_000


async def refusing_at_once(_scope: Scope, _receive: Receive, send: Send) -> None:
    await answer(send, 400, b"not this\n")


async def refusing_at_4096(_scope: Scope, receive: Receive, send: Send) -> None:
    size = 0
    while size < 4096:
        size += len((await receive())["body"])
    await answer(send, 400, b"not this\n")


async def echoing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was asked, and how."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            line = f"{scope['method']} {scope['path']} {scope['http_version']} "
            await answer(send, 200, line.encode() + body)
            return


async def ok(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer without an end of the connection."""
    headers = [(b"content-length", b"3")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok\n"})


class Showing:
    """Answers with the headers that it sees after it has read the body."""

    def __init__(self) -> None:
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if not message["more_body"]:
                break
        await answer(send, 200, b"\n".join(b"%b=%b" % header for header in scope["headers"]))


def body_of(received: bytes) -> bytes:
    return received.partition(b"\r\n\r\n")[2]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def test_a_request_is_answered_with_the_date_and_without_advertisement(server: Server) -> None:
    head, _, body = server.ask().partition(b"\r\n\r\n")
    names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
    assert status_of(head) == 200
    assert body == b"code"
    assert names.count(b"date") == 1
    assert b"server" not in names
    assert b"connection: close" in head.lower()


def test_a_body_may_come_in_pieces_and_chunks(server: Server) -> None:
    with server.shake() as connection:
        for piece in (HEAD, b"content-length: 4\r\n", b"\r\n", b"co", b"de"):
            connection.sendall(piece)
        assert body_of(read_all(connection)) == b"code"
    chunked = HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nco\r\n2\r\nde\r\n0\r\n\r\n"
    assert body_of(server.ask(chunked)) == b"code"


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"\x00\x01\x02\r\n\r\n", id="no HTTP"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n", id="tunnel"),
        pytest.param(
            HEAD + b"content-length: 4\r\ncontent-length: 5\r\n\r\ncode", id="two lengths"
        ),
        pytest.param(
            HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            id="two framings",
        ),
        pytest.param(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", id="bad chunk"),
        pytest.param(b"POST /\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n", id="path of no ASCII"),
    ],
)
def test_what_is_not_http_is_refused_with_a_constant_text(
    server: Server, request_bytes: bytes
) -> None:
    received = server.ask(request_bytes)
    assert status_of(received) == 400
    assert body_of(received) == MALFORMED


def test_whatever_is_sent_the_server_goes_on() -> None:
    with serving(tls=False) as server:

        @settings(max_examples=100, deadline=None)
        @given(data=st.binary(min_size=1, max_size=200))
        def check(data: bytes) -> None:
            with server.connect() as connection:
                connection.sendall(data + b"\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                assert read_all(connection)[:5] in {b"HTTP/", b""}
            assert status_of(server.ask()) == 200

        check()


def test_what_stops_being_http_after_the_answer_has_begun_gets_no_second_one() -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    with serving(app) as server, server.shake() as connection:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        received = connection.recv(4096)
        while b"begun" not in received:
            received += connection.recv(4096)
        connection.sendall(b"zz\r\n")
        assert (received + read_all(connection)).count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("tls", [True, False])
def test_an_application_that_answers_too_late_to_a_request_gone_bad_is_not_heard(
    tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    with serving(held, tls=tls) as server:
        with server.shake() as connection:
            connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\ncode\r\n")
            assert held.asked.wait(PATIENCE)
            connection.sendall(b"zz\r\n")
            received = connection.recv(4096)
            held.go()
            received += read_all(connection)
        server.begin(server.listener.stop(PATIENCE)).result(PATIENCE)
    assert status_of(received) == 400
    assert received.count(b"HTTP/1.1") == 1
    assert caplog.records == []


def test_an_application_that_fails_is_logged_and_its_client_answered(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise LookupError("inside")

    with serving(app) as server:
        received = server.ask()
    assert status_of(received) == 500
    assert b"inside" not in received
    assert [record.name for record in caplog.records] == ["uvicorn.error"]
    assert capfd.readouterr() == ("", "")


def test_a_header_of_64_kb_gets_a_quick_refusal(server: Server) -> None:
    received = server.ask(HEAD + b"name: " + b"x" * 65536 + b"\r\n\r\n")
    assert status_of(received) == 431
    assert body_of(received) == TOO_LARGE
    received = server.ask(b"POST /" + b"x" * 65536 + b" HTTP/1.1\r\nhost: a\r\n\r\n")
    assert status_of(received) == 431


def test_the_bound_of_the_header_is_exact_however_it_is_cut() -> None:
    with serving(limits=Limits(header_bytes=1024)) as server:
        head = HEAD + b"content-length: 4\r\n"
        fitting = head + b"name: " + b"x" * (1024 - len(head) - 10) + b"\r\n\r\n"
        assert len(fitting) == 1024
        assert body_of(server.ask(fitting + b"code")) == b"code"
        with server.shake() as connection:
            for start in range(0, 1024, 100):
                connection.sendall(fitting[start : start + 100])
            connection.sendall(b"code")
            assert body_of(read_all(connection)) == b"code"
        assert status_of(server.ask(fitting[:-4] + b"x\r\n\r\ncode")) == 431
        chunked = fitting.replace(b"content-length: 4", b"transfer-encoding: chunked")
        chunked = chunked.replace(b"x" * 9, b"", 1)
        assert len(chunked) == 1024
        with server.shake() as connection:
            for piece in (chunked, b"4\r\n", b"code", b"\r\n", b"0\r\n\r\n"):
                connection.sendall(piece)
                server.call(lambda: None)  # so that the pieces come one by one
            assert body_of(read_all(connection)) == b"code"


def test_the_number_of_header_fields_is_bounded(server: Server) -> None:
    fields = b"".join(b"x-%d: y\r\n" % number for number in range(module.MAX_HEADERS - 2))
    assert status_of(server.ask(HEAD + b"content-length: 0\r\n" + fields + b"\r\n")) == 200
    assert (
        status_of(server.ask(HEAD + b"content-length: 0\r\n" + fields + b"one: more\r\n\r\n"))
        == 431
    )


def test_trailers_are_bounded_and_never_become_headers() -> None:
    app = Showing()
    chunked = HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\ncode\r\n0\r\n"
    with serving(app) as server:
        received = server.ask(chunked + b"subject: somebody-else\r\n\r\n")
        assert status_of(received) == 200
        assert b"somebody-else" not in received
        with server.shake() as connection:
            received = converse(connection, chunked + b"x: " + b"y" * 2_000_000)
        assert status_of(received) == 431


def test_a_header_that_trickles_in_is_cut() -> None:
    with (
        serving(limits=Limits(request_seconds=0.5)) as server,
        server.shake() as connection,
    ):
        connection.sendall(HEAD + b"name: ")
        while not select.select([connection], [], [], 0.05)[0]:
            connection.sendall(b"x")
        assert read_all(connection) == b""
        assert server.is_left_alone()


def test_a_body_that_trickles_in_is_cut_and_the_application_told() -> None:
    app = Showing()
    with serving(app, limits=Limits(request_seconds=0.5)) as server, server.shake() as connection:
        connection.sendall(HEAD + b"content-length: 1000\r\n\r\n")
        while not select.select([connection], [], [], 0.05)[0]:
            connection.sendall(b"x")
        assert read_all(connection) == b""
        assert server.is_left_alone()
        assert server.call(lambda: len(server.listener._state.tasks)) == 0
    assert app.requests == 1


def test_the_time_of_a_request_does_not_cut_the_work_on_it() -> None:
    held = Held()
    with (
        serving(held, limits=Limits(request_seconds=0.2)) as server,
        server.shake() as first,
        server.shake() as idle,
    ):
        first.sendall(REQUEST)
        assert held.asked.wait(PATIENCE)
        assert read_all(idle) == b""  # its time was over after the first's would have been
        held.go()
        assert status_of(read_all(first)) == 200


def test_a_second_request_on_a_connection_is_never_served() -> None:
    app = Showing()
    with serving(app) as server:
        assert server.ask(REQUEST + REQUEST).count(b"HTTP/1.1") == 1
        assert app.requests == 1
        with server.shake() as connection:
            connection.sendall(REQUEST)
            connection.sendall(REQUEST)
            assert read_all(connection).count(b"HTTP/1.1") == 1
        assert app.requests == 2


UPGRADES = [
    pytest.param(b"connection: upgrade\r\nupgrade: websocket\r\n", id="websocket"),
    pytest.param(
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        id="HTTP/2",
    ),
    pytest.param(b"upgrade: a\r\nupgrade: b/1\r\nconnection: close, upgrade\r\n", id="anything"),
]
BODIES = [
    pytest.param(b"content-length: 4\r\n\r\ncode", id="whole"),
    pytest.param(
        b"transfer-encoding: chunked\r\n\r\n2\r\nco\r\n2\r\nde\r\n0\r\n\r\n", id="chunked"
    ),
]


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("body", BODIES)
def test_who_asks_for_another_protocol_is_served_in_this_one(
    upgrade: bytes, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    request = b"POST //gr%61nt?x HTTP/1.1\r\nhost: localhost\r\n" + upgrade + body
    with serving(echoing) as server:
        assert body_of(server.ask(request)) == b"POST //grant 1.1 code"
        older = request.replace(b"1.1", b"1.0", 1)
        assert body_of(server.ask(older)) == b"POST //grant 1.0 code"
        assert server.ask(request + request).count(b"HTTP/1.1") == 1
    assert caplog.records == []


@pytest.mark.parametrize("body", BODIES)
def test_it_is_wherever_the_request_is_cut(body: bytes) -> None:
    request = HEAD + b"connection: upgrade\r\nupgrade: h2c\r\n" + body
    with serving(tls=False) as server:
        for cut in range(1, len(request)):
            with server.connect() as connection:
                connection.sendall(request[:cut])
                server.call(lambda: None)
                connection.sendall(request[cut:])
                assert body_of(read_all(connection)) == b"code"


def test_a_kept_connection_goes_on_after_a_wish_for_another_protocol() -> None:
    upgrade = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    with serving(ok, tls=False, keep_alive=True) as server, server.connect() as connection:
        for request in (upgrade, REQUEST, upgrade):
            connection.sendall(request)
            assert body_of(connection.recv(4096)) == b"ok\n"


def test_a_wish_for_another_protocol_opens_no_way_around_the_bounds() -> None:
    upgrade = HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: chunked\r\n"
    fields = b"".join(b"x-%d: y\r\n" % number for number in range(module.MAX_HEADERS))
    app = Showing()
    with serving(app) as server:
        assert status_of(server.ask(upgrade + fields + b"\r\n0\r\n\r\n")) == 431
        assert status_of(server.ask(upgrade + b"x: " + b"y" * 65536 + b"\r\n\r\n")) == 431
        assert status_of(server.ask(upgrade + b"\r\nzz\r\n")) == 400
        received = server.ask(upgrade + b"\r\n4\r\ncode\r\n0\r\nsubject: another\r\n\r\n")
        assert status_of(received) == 200
        assert b"another" not in received


def test_a_tunnel_is_the_applications_to_refuse() -> None:
    tunnel = b"CONNECT http://localhost/x HTTP/1.1\r\nhost: a\r\n\r\n"
    with serving(echoing) as server:
        assert body_of(server.ask(tunnel + REQUEST)) == b"CONNECT /x 1.1 "


METHOD = st.text(alphabet="!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=20)


def test_a_method_is_any_token_and_the_application_sees_it_as_it_came() -> None:
    rest = b" /x?y HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\ncode"
    with serving(echoing, tls=False) as server:

        @settings(max_examples=100, deadline=None)
        @given(method=METHOD)
        @example(method="post")
        @example(method="POSTS")
        @example(method="FOO")
        @example(method="SETUP")  # of RTSP, which llhttp speaks too
        def check(method: str) -> None:
            received = server.ask(method.encode() + rest)
            assert body_of(received) == f"{method} /x 1.1 code".encode()

        check()
        long = b"FOO / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 65536 + b"\r\n\r\n"
        assert status_of(server.ask(long)) == 431
        both = b"FOO / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: b\r\n"
        assert body_of(server.ask(both + b"content-length: 4\r\n\r\ncode")) == b"FOO / 1.1 code"


def test_a_strange_method_whose_head_comes_in_two_pieces_keeps_its_name() -> None:
    with serving(echoing, tls=False) as server, server.connect() as connection:
        connection.sendall(b"post / HTTP/1.1\r\nhost:")
        server.call(lambda: None)
        connection.sendall(b" a\r\ncontent-length: 4\r\n\r\ncode")
        assert body_of(read_all(connection)) == b"post / 1.1 code"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"FOO / HTTP/2.0\r\nhost: a\r\n\r\n"], id="another version"),
        pytest.param([b"FOO /\r\n\r\n"], id="no version"),
        pytest.param([b"F:O / HTTP/1.1\r\nhost: a\r\n\r\n"], id="no token"),
        pytest.param([b"FOO  / HTTP/1.1\r\nhost: a\r\n\r\n"], id="no target"),
        pytest.param([b"FOO / HTTP/1.1\r\nno header\r\n\r\n"], id="no header"),
        pytest.param([b"FOO / HTTP/1.1\r\nhost: a\r\n", b"no header\r\n\r\n"], id="none later"),
        pytest.param([b"P", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"], id="begun before"),
        pytest.param([HEAD, b"FOO / HTTP/1.1\r\nhost: a\r\n\r\n"], id="not the first line"),
    ],
)
def test_a_strange_method_is_refused_with_what_is_not_http(
    server: Server, pieces: list[bytes]
) -> None:
    with server.shake() as connection:
        for piece in pieces:
            connection.sendall(piece)
            server.call(lambda: None)
        received = read_all(connection)
    assert status_of(received) == 400
    assert body_of(received) == MALFORMED


def test_a_kept_connection_may_bring_strange_methods_between_others() -> None:
    strange = b"FOO / HTTP/1.1\r\nhost: a\r\n\r\n"
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["method"])
        await ok(scope, receive, send)

    with serving(app, tls=False, keep_alive=True) as server, server.connect() as connection:
        for request in (strange, REQUEST, strange):
            connection.sendall(request)
            assert body_of(connection.recv(4096)) == b"ok\n"
    assert seen == ["FOO", "POST", "FOO"]


def test_hostile_input_leaves_no_line_in_the_log(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for data in (b"\x00\r\n\r\n", HEAD + b"x: " + b"y" * 65536, REQUEST * 3):
        server.ask(data)
    assert caplog.records == []


@pytest.mark.parametrize("app", [refusing_at_once, refusing_at_4096])
@pytest.mark.parametrize("tls", [True, False])
class TestAnAnswerGivenWhileTheClientSends50Mb:
    def test_is_read_by_a_client_that_reads_and_writes(self, app: object, tls: bool) -> None:
        with serving(app, tls=tls) as server, server.shake() as connection:  # type: ignore[arg-type]
            request = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
            assert body_of(converse(connection, request)) == b"not this\n"

    def test_is_read_by_a_client_that_writes_everything_first(self, app: object, tls: bool) -> None:
        with serving(app, tls=tls) as server, server.shake() as connection:  # type: ignore[arg-type]
            connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(BODY))
            connection.sendall(BODY)
            assert body_of(read_all(connection)) == b"not this\n"


def test_a_client_that_waits_to_be_told_to_send_is_answered_without_its_body() -> None:
    expecting = HEAD + b"content-length: 50000000\r\nexpect: 100-continue\r\n\r\n"
    with serving(refusing_at_once) as server:
        received = server.ask(expecting)
        assert status_of(received) == 400
        assert body_of(received) == b"not this\n"
    with serving() as server, server.shake() as connection:
        connection.sendall(HEAD + b"content-length: 4\r\nexpect: 100-continue\r\n\r\n")
        assert status_of(connection.recv(4096)) == 100
        connection.sendall(b"code")
        assert body_of(read_all(connection)) == b"code"


def test_an_answer_is_one_tls_record() -> None:
    for app in (obliging, ok):
        with serving(app) as server, RawTls(server) as client:
            client.socket.sendall(client.seal(REQUEST))
            received = client.read_all()
            size = len(received) + 1 + 16  # the kind, the tag of the cipher
            assert client.records == [size, CLOSE_NOTIFY_BYTES]
            assert status_of(received) == 200


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("keep_alive", [True, False])
def test_an_answer_without_a_body_is_sent(tls: bool, keep_alive: bool) -> None:
    async def empty(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with serving(tls=tls, keep_alive=keep_alive) as server, server.shake() as connection:
        connection.sendall(b"HEAD" + REQUEST[4:])
        received = connection.recv(4096)
        assert status_of(received) == 200
        assert body_of(received) == b""
        assert b"content-length: 4" in received
    with serving(empty, tls=tls, keep_alive=keep_alive) as server, server.shake() as connection:
        connection.sendall(REQUEST)
        assert status_of(connection.recv(4096)) == 204


def test_an_answer_that_comes_in_pieces_is_sent_in_pieces() -> None:
    go = threading.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for body in (b"first", b"second"):
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await asyncio.to_thread(go.wait, PATIENCE)
        await send({"type": "http.response.body", "body": b"last"})

    with serving(app) as server, server.shake() as connection:
        connection.sendall(REQUEST)
        received = connection.recv(4096)
        assert received.endswith(b"\r\n\r\n5\r\nfirst\r\n")
        go.set()
        assert read_all(connection) == b"6\r\nsecond\r\n4\r\nlast\r\n0\r\n\r\n"


@pytest.mark.parametrize("tls", [True, False])
def test_an_answer_that_breaks_off_before_its_body_has_not_begun(
    tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise LookupError("inside")

    with serving(app, tls=tls) as server:
        assert server.ask() == b""
        assert server.is_left_alone()
    assert [record.name for record in caplog.records] == ["uvicorn.error"]


@pytest.mark.parametrize("method", [b"POST", b"HEAD"])
def test_a_request_gone_bad_has_one_answer_whether_the_other_was_only_begun(method: bytes) -> None:
    begun = threading.Event()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"late"})

    with serving(app) as server, server.shake() as connection:
        connection.sendall(method + HEAD[4:] + b"transfer-encoding: chunked\r\n\r\n")
        assert begun.wait(PATIENCE)
        connection.sendall(b"zz\r\n")
        received = read_all(connection)
        assert received.count(b"HTTP/1.1") == 1
        assert status_of(received) == (200 if method == b"HEAD" else 400)
        assert b"late" not in received


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep uvicorn from ending kept connections by its own clock."""
    monkeypatch.setattr(HttpToolsProtocol, "timeout_keep_alive_handler", lambda _: None)


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_plain_client_that_has_stopped_sending_is_answered(keep_alive: bool) -> None:
    asked, go = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await asyncio.to_thread(go.wait, PATIENCE)
        await ok(scope, receive, send)

    limits = Limits(request_seconds=3 * PATIENCE)
    with (
        serving(app, tls=False, keep_alive=keep_alive, limits=limits) as server,
        server.connect() as connection,
    ):
        connection.sendall(REQUEST)
        connection.shutdown(socket.SHUT_WR)
        assert asked.wait(PATIENCE)
        for _ in range(3):
            server.call(lambda: None)  # so that it sees the end
        go.set()
        assert body_of(read_all(connection)) == b"ok\n"
        assert server.is_left_alone()


def test_a_plain_client_that_stops_before_its_request_is_whole_is_gone() -> None:
    with serving(tls=False) as server, server.connect() as connection:
        connection.sendall(REQUEST[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
        assert server.is_left_alone()


@pytest.mark.usefixtures("_patient")
def test_a_kept_connection_whose_client_stops_sending_is_closed() -> None:
    limits = Limits(request_seconds=3 * PATIENCE)
    with (
        serving(ok, tls=False, keep_alive=True, limits=limits) as server,
        server.connect() as connection,
    ):
        connection.sendall(REQUEST)
        assert body_of(connection.recv(4096)) == b"ok\n"
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
        assert server.is_left_alone()


@pytest.mark.parametrize("tls", [True, False])
def test_a_client_that_never_stops_sending_is_cut_in_the_end(
    tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.2)
    monkeypatch.setattr(acceptor, "SHUTDOWN_SECONDS", 0.2)
    endless = HEAD + b"transfer-encoding: chunked\r\n\r\n"
    with serving(refusing_at_once, tls=tls) as server, server.shake() as connection:
        connection.sendall(endless)
        with pytest.raises((OSError, ssl.SSLError)):  # noqa: PT012
            while True:
                connection.sendall(b"4\r\ncode\r\n" * 1000)
        assert body_of(read_all(connection)) == b"not this\n"
        assert server.is_left_alone()


def test_a_client_that_neither_reads_nor_closes_is_forgotten() -> None:
    with (
        serving(limits=Limits(request_seconds=0.3), tls=False) as server,
        server.connect() as connection,
        server.connect() as other,
    ):
        connection.sendall(REQUEST)
        assert status_of(read_all(connection)) == 200
        assert read_all(other) == b""
        assert server.is_left_alone()


def test_a_client_that_does_not_read_its_answer_is_forgotten() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, 200, BODY)

    with (
        serving(app, limits=Limits(request_seconds=0.3), tls=False) as server,
        server.connect() as connection,
    ):
        connection.sendall(REQUEST)
        assert connection.recv(12) == b"HTTP/1.1 200"
        with server.connect() as other:
            assert read_all(other) == b""  # its time was over after the first's
            assert server.is_left_alone()


def test_who_is_refused_before_its_request_is_whole_knows_at_once_that_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 2 * PATIENCE)
    limits = Limits(request_seconds=3 * PATIENCE)
    with serving(refusing_at_once, tls=False, limits=limits) as server:
        received = server.ask(HEAD + b"content-length: 1000\r\n\r\n")
        assert body_of(received) == b"not this\n"


def test_a_plain_listener_may_keep_connections_and_its_requests_are_bounded_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    get = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"
    caplog.set_level(logging.INFO)
    with (
        serving(
            ok,
            tls=False,
            keep_alive=True,
            limits=Limits(request_seconds=0.5, header_bytes=1024),
        ) as server,
        server.connect() as connection,
    ):
        for _ in range(50):  # in all more than the header of one may have
            connection.sendall(get)
            assert body_of(connection.recv(4096)) == b"ok\n"
        connection.sendall(get[:-2] + b"x: " + b"y" * 65536)
        assert status_of(read_all(connection)) == 431
        with server.connect() as silly:
            silly.sendall(get)
            assert body_of(silly.recv(4096)) == b"ok\n"
            silly.sendall(b"\r\n" * 20_000)
            assert read_all(silly) == b""
        with server.connect() as idle:
            idle.settimeout(PATIENCE / 5)  # uvicorn's own limit is 5 seconds
            idle.sendall(get)
            assert body_of(idle.recv(4096)) == b"ok\n"
            assert read_all(idle) == b""
        with server.connect() as early:
            # Answered before its body is there: no use to wait for the rest of it.
            early.sendall(HEAD + b"content-length: 1000\r\n\r\n")
            assert body_of(read_all(early)) == b"ok\n"
        with server.connect() as pipelining:
            pipelining.sendall(get * 5)
            assert read_all(pipelining).count(b"HTTP/1.1 200") == 1
    assert caplog.records == []
