"""The ops listener's application: whether the process lives, whether it is ready, its metrics.

It answers anyone who can reach it, so what it says of a trouble is its class and nothing more; the
details go to the log. Its answers cost little however often it is asked.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from app import ambient
from app.errors import GrantServerError
from app.logs import get_logger

Check = Callable[[], None]
"""Raises to say that the server is not ready."""

_OK = "ok"
_HEADERS = {"cache-control": "no-store"}
_LONGEST_ACCEPT = 1024  # characters of an Accept header that are looked at

_log = get_logger(__name__)


def create_app(
    *,
    registry: CollectorRegistry,
    checks: Mapping[str, Check],
    check_seconds: float = 2.0,
    fresh_seconds: float = 1.0,
    monotonic: Callable[[], float] = ambient.monotonic,
) -> Starlette:
    """Make the application with /healthz, /readyz and /metrics.

    Each check runs in a thread of its own and has `check_seconds`; what they found holds for
    `fresh_seconds`, because a check may cost an fsync and anyone may ask.
    """
    readiness = _Readiness(checks, check_seconds, fresh_seconds, monotonic)
    scraping = asyncio.Lock()  # one scrape at a time: a scrape counts rows

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse(_OK, headers=_HEADERS)

    async def readyz(_request: Request) -> Response:
        found = await readiness.ask()
        ready = all(answer == _OK for answer in found.values())
        return JSONResponse(
            {"ready": ready, "checks": found}, status_code=200 if ready else 503, headers=_HEADERS
        )

    async def metrics(request: Request) -> Response:
        accept = ",".join(request.headers.getlist("accept"))[:_LONGEST_ACCEPT]
        encode, content_type = choose_encoder(accept)
        async with scraping:
            body = await asyncio.to_thread(encode, registry)
        return Response(body, headers={**_HEADERS, "content-type": content_type})

    app = Starlette(
        routes=[
            Route("/healthz", healthz, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
        ]
    )
    app.router.redirect_slashes = False
    return app


class _Readiness:
    """Ask the checks, at most once in a while and each by at most one thread at a time."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        check_seconds: float,
        fresh_seconds: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._checks = dict(checks)
        self._check_seconds = check_seconds
        self._fresh_seconds = fresh_seconds
        self._monotonic = monotonic
        self._asking = asyncio.Lock()
        self._running: dict[str, asyncio.Future[Exception | None]] = {}
        self._found: dict[str, str] = dict.fromkeys(checks, _OK)
        self._found_at: float | None = None

    async def ask(self) -> dict[str, str]:
        """Tell of each check "ok" or the class of its trouble."""
        async with self._asking:
            if self._found_at is None or self._monotonic() - self._found_at >= self._fresh_seconds:
                answers = await asyncio.gather(*map(self._answer, self._checks))
                self._found = dict(zip(self._checks, answers, strict=True))
                self._found_at = self._monotonic()
            return self._found

    async def _answer(self, name: str) -> str:
        # A check that hangs keeps its thread, and is not asked again before that has come back:
        # one thread would be lost with each question.
        running = self._running.get(name)
        if running is None or running.done():
            running = self._running[name] = _in_thread(name, self._checks[name])
        done, _ = await asyncio.wait([running], timeout=self._check_seconds)
        error = running.result() if done else None
        answer = _class_of(error) if done else "timeout"
        if answer != self._found[name]:  # a change only, or the questions would fill the log
            write = _log.info if answer == _OK else _log.warning
            write("readiness changed", check=name, answer=answer, why=error)
        return answer


def _in_thread(name: str, check: Check) -> asyncio.Future[Exception | None]:
    """Run a check in a daemon thread, which cannot hold up the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Exception | None] = loop.create_future()

    def run() -> None:
        trouble = None
        try:
            check()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server is not ready
            trouble = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(future.set_result, trouble)

    threading.Thread(target=run, name=f"check-{name}", daemon=True).start()
    return future


def _class_of(error: Exception | None) -> str:
    if error is None:
        return _OK
    return type(error).__name__.lower() if isinstance(error, GrantServerError) else "failed"
