import asyncio
import json
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import aiohttp
import pytest
import uvicorn
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from app.errors import Lack, Unavailable, Unready
from app.web.ops import create_app


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


async def ask(
    app: Starlette, path: str, *, method: str = "GET", accept: str | None = None
) -> Reply:
    """Speak to the application as a server would."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if accept is None else [(b"accept", accept.encode("latin-1"))]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
    }
    await app(scope, receive, send)
    start, *rest = sent
    found = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Reply(start["status"], found, b"".join(part.get("body", b"") for part in rest))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def application(
    checks: Mapping[str, Callable[[], None]] | None = None,
    *,
    registry: CollectorRegistry | None = None,
    clock: Clock | None = None,
    check_seconds: float = 30,
    details: Mapping[str, Callable[[], str]] | None = None,
) -> Starlette:
    return create_app(
        registry=registry or CollectorRegistry(),
        checks=checks or {},
        details=details,
        monotonic=clock or Clock(),
        check_seconds=check_seconds,
    )


def good() -> None:
    pass


def failing(error: Exception) -> Callable[[], None]:
    def check() -> None:
        raise error

    return check


def test_the_living_process_says_ok() -> None:
    reply = asyncio.run(ask(application({"database": failing(Unavailable("x"))}), "/healthz"))
    assert (reply.status, reply.body) == (200, b"ok")
    assert reply.headers["cache-control"] == "no-store"


def test_a_server_is_ready_when_every_check_passes() -> None:
    reply = asyncio.run(ask(application({"database": good, "certificate": good}), "/readyz"))
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert json.loads(reply.body) == {
        "ready": True,
        "checks": {"database": "ok", "certificate": "ok"},
        "details": {},
    }


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (Unavailable("database at /srv/secret-place is away"), "unavailable"),
        (Unready(Lack.ISSUER, "secret-place"), "unready"),
        (RuntimeError("secret-place"), "failed"),
    ],
)
def test_a_check_that_fails_is_told_by_the_class_of_its_trouble(
    error: Exception, answer: str
) -> None:
    reply = asyncio.run(ask(application({"database": failing(error), "other": good}), "/readyz"))
    assert reply.status == 503
    assert json.loads(reply.body) == {
        "ready": False,
        "checks": {"database": answer, "other": "ok"},
        "details": {},
    }
    assert b"secret-place" not in reply.body


def lost() -> str:
    raise RuntimeError("secret-place")


@pytest.mark.parametrize("word", ["unreachable", "", "ok"])
def test_a_detail_is_told_and_makes_no_server_unready(word: str) -> None:
    app = application({"database": good}, details={"public_address": lambda: word, "x": lost})
    reply = asyncio.run(ask(app, "/readyz"))
    assert reply.status == 200
    assert json.loads(reply.body) == {
        "ready": True,
        "checks": {"database": "ok"},
        "details": {"public_address": word, "x": "failed"},
    }
    assert b"secret-place" not in reply.body


def test_a_detail_of_the_name_of_a_check_is_another_thing() -> None:
    app = application({"disk": failing(Unavailable("x"))}, details={"disk": lambda: "full"})
    told = json.loads(asyncio.run(ask(app, "/readyz")).body)
    assert told == {"ready": False, "checks": {"disk": "unavailable"}, "details": {"disk": "full"}}


def test_a_detail_is_asked_for_anew_when_the_checks_are() -> None:
    clock = Clock()
    words = ["unknown", "reachable"]
    app = application(clock=clock, details={"public_address": lambda: words.pop(0)})

    async def story() -> list[str]:
        told = []
        for _ in range(3):
            body = (await ask(app, "/readyz")).body
            told.append(json.loads(body)["details"]["public_address"])
            clock.now += 0.5
        return told

    assert asyncio.run(story()) == ["unknown", "unknown", "reachable"]


def test_a_detail_that_hangs_is_a_timeout_and_takes_one_thread_only() -> None:
    release = threading.Event()
    entered = []
    clock = Clock()

    def hang() -> str:
        entered.append(1)
        release.wait(60)
        return "late"

    app = application({"other": good}, clock=clock, check_seconds=0.05, details={"slow": hang})

    async def story() -> None:
        for _ in range(2):
            reply = await ask(app, "/readyz")
            assert reply.status == 200
            assert json.loads(reply.body)["details"] == {"slow": "timeout"}
            clock.now += 1
        assert len(entered) == 1
        (thread,) = (t for t in threading.enumerate() if t.name == "detail-slow")
        release.set()
        await asyncio.to_thread(thread.join)

    asyncio.run(story())


def test_what_the_checks_found_holds_for_a_second() -> None:
    asked = []
    clock = Clock()
    app = application({"database": lambda: asked.append(1)}, clock=clock)

    async def story() -> None:
        await asyncio.gather(*(ask(app, "/readyz") for _ in range(50)))
        assert len(asked) == 1
        clock.now += 0.99
        await ask(app, "/readyz")
        assert len(asked) == 1
        clock.now += 0.01
        await ask(app, "/readyz")
        assert len(asked) == 2

    asyncio.run(story())


def test_a_server_becomes_ready_again() -> None:
    clock = Clock()
    troubles = [Unavailable("x"), Unavailable("x")]

    def check() -> None:
        if troubles:
            raise troubles.pop()

    app = application({"database": check}, clock=clock)

    async def story() -> list[int]:
        statuses = []
        for _ in range(3):
            statuses.append((await ask(app, "/readyz")).status)
            clock.now += 1
        return statuses

    assert asyncio.run(story()) == [503, 503, 200]


def test_a_check_that_hangs_is_a_timeout_and_takes_one_thread_only() -> None:
    release = threading.Event()
    entered = []
    clock = Clock()

    def hang() -> None:
        entered.append(1)
        release.wait(60)

    app = application({"disk": hang, "other": good}, clock=clock, check_seconds=0.05)

    async def story() -> None:
        for _ in range(3):
            reply = await ask(app, "/readyz")
            assert reply.status == 503
            assert json.loads(reply.body)["checks"] == {"disk": "timeout", "other": "ok"}
            assert (await ask(app, "/healthz")).status == 200
            clock.now += 1
        assert len(entered) == 1
        (thread,) = (t for t in threading.enumerate() if t.name == "check-disk")
        assert thread.daemon
        release.set()
        await asyncio.to_thread(thread.join)
        await asyncio.sleep(0)
        assert (await ask(app, "/readyz")).status == 200
        assert len(entered) == 2  # what came back late is not taken for an answer of now

    asyncio.run(story())


def test_a_check_that_outlives_the_server_harms_nobody() -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(60)

    app = application({"disk": hang}, check_seconds=0.01)
    asyncio.run(ask(app, "/readyz"))
    (thread,) = (t for t in threading.enumerate() if t.name == "check-disk")
    release.set()
    thread.join(60)
    assert not thread.is_alive()


def counted() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("things_total", "Things.", registry=registry).inc(3)
    return registry


@pytest.mark.parametrize("accept", [None, "text/plain", "*/*", "application/json"])
def test_metrics_come_as_prometheus_text(accept: str | None) -> None:
    reply = asyncio.run(ask(application(registry=counted()), "/metrics", accept=accept))
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name for family in text_string_to_metric_families(reply.body.decode())}
    assert "things" in families


def test_metrics_come_as_openmetrics_when_asked_for() -> None:
    # What Prometheus itself sends.
    accept = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
        "text/plain;version=1.0.0;q=0.4,*/*;q=0.1"
    )
    reply = asyncio.run(ask(application(registry=counted()), "/metrics", accept=accept))
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert b"things_total 3.0\n" in reply.body
    assert reply.body.endswith(b"# EOF\n")


ACCEPT = st.lists(
    st.sampled_from(
        [
            *("application/openmetrics-text", "text/plain", ";", ",", "=", "version=", "1.0.0"),
            *("escaping=", "dots", "values", "q=0.5", "2", ".", "x", "-1", " ", "9" * 2000),
        ]
    )
).map("".join) | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\x00"))


@given(accept=ACCEPT)
@example(accept="application/openmetrics-text;version=application/openmetrics-text")
def test_no_accept_header_breaks_the_scrape(accept: str) -> None:
    reply = asyncio.run(ask(application(registry=counted()), "/metrics", accept=accept))
    assert reply.status == 200
    assert b"things" in reply.body


@pytest.mark.parametrize("path", ["/", "/healthz/", "/nothing", "//metrics", "/readyz/database"])
def test_another_path_is_not_found_in_plain_words(path: str) -> None:
    reply = asyncio.run(ask(application(), path))
    assert (reply.status, reply.body) == (404, b"Not Found")
    assert reply.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_another_method_is_not_allowed(path: str, method: str) -> None:
    reply = asyncio.run(ask(application(), path, method=method))
    assert (reply.status, reply.body) == (405, b"Method Not Allowed")
    assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_a_real_server_answers_head_like_get_without_the_body() -> None:
    app = application({"database": good, "disk": failing(Unavailable("x"))}, registry=counted())

    async def story() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        serving = asyncio.create_task(server._serve([listener]))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            for path, status in (("/healthz", 200), ("/readyz", 503), ("/metrics", 200)):
                async with session.get(path) as got, session.head(path) as head:
                    assert got.status == head.status == status
                    body = await got.read()
                    assert head.headers["content-length"] == str(len(body))
                    assert await head.read() == b""
        server.should_exit = True
        await serving
        listener.close()

    asyncio.run(story())
