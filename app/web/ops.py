"""The ops listener's application: whether the process lives, whether it is ready, its metrics.

It answers anyone who can reach it, so what it says of a trouble is its class and nothing more; all
else goes to the log. Its answers cost little however often it is asked.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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

Detail = Callable[[], str]
"""Gives one word of what is worth knowing, but does not decide whether the server is ready."""

_OK = "ok"
_TIMEOUT = "timeout"
_HEADERS = {"cache-control": "no-store"}
_LONGEST_ACCEPT = 1024  # characters of an Accept header that are looked at

_log = get_logger(__name__)


def create_app(
    *,
    registry: CollectorRegistry,
    checks: Mapping[str, Check],
    details: Mapping[str, Detail] | None = None,
    check_seconds: float = 2.0,
    fresh_seconds: float = 1.0,
    monotonic: Callable[[], float] = ambient.monotonic,
) -> Starlette:
    """Make the application with /healthz, /readyz and /metrics.

    Each check and each detail runs in a thread of its own and has `check_seconds`; what they
    found holds for `fresh_seconds`, because a check may cost an fsync and anyone may ask.
    """
    readiness = _Readiness(checks, details or {}, check_seconds, fresh_seconds, monotonic)
    scraping = asyncio.Lock()  # one scrape at a time: a scrape counts rows

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse(_OK, headers=_HEADERS)

    async def readyz(_request: Request) -> Response:
        found, details = await readiness.ask()
        ready = all(answer == _OK for answer in found.values())
        return JSONResponse(
            {"ready": ready, "checks": found, "details": details},
            status_code=200 if ready else 503,
            headers=_HEADERS,
        )

    async def metrics(request: Request) -> Response:
        accept = ",".join(request.headers.getlist("accept"))[:_LONGEST_ACCEPT]
        encode, content_type = _encoder_for(accept)
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


def _encoder_for(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version that the library takes for a number, and is none
        return choose_encoder("")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What came of a question: a word where it has one, or trouble."""

    word: str | None = None
    trouble: Exception | None = None


class _Readiness:
    """Ask the checks, at most once in a while and each by at most one thread at a time."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        details: Mapping[str, Detail],
        check_seconds: float,
        fresh_seconds: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._checks = dict(checks)
        self._details = dict(details)
        self._check_seconds = check_seconds
        self._fresh_seconds = fresh_seconds
        self._monotonic = monotonic
        self._asking = asyncio.Lock()
        self._running: dict[str, asyncio.Future[_Given]] = {}
        self._found: dict[str, str] = dict.fromkeys(checks, _OK)
        self._told: dict[str, str] = {}
        self._found_at: float | None = None

    async def ask(self) -> tuple[dict[str, str], dict[str, str]]:
        """Tell of each check "ok" or the class of its trouble, and each detail."""
        async with self._asking:
            if self._found_at is None or self._monotonic() - self._found_at >= self._fresh_seconds:
                answers, details = await asyncio.gather(
                    asyncio.gather(*map(self._answer, self._checks)),
                    asyncio.gather(*map(self._detail, self._details)),
                )
                self._found = dict(zip(self._checks, answers, strict=True))
                self._told = dict(zip(self._details, details, strict=True))
                self._found_at = self._monotonic()
            return self._found, self._told

    async def _answer(self, name: str) -> str:
        given = await self._put(f"check-{name}", self._checks[name])
        answer = _TIMEOUT if given is None else _class_of(given.trouble)
        if answer != self._found[name]:  # a change only, or the questions would fill the log
            write = _log.info if answer == _OK else _log.warning
            why = None if given is None else given.trouble
            write("readiness changed", check=name, answer=answer, why=why)
        return answer

    async def _detail(self, name: str) -> str:
        given = await self._put(f"detail-{name}", self._details[name])
        if given is None:
            return _TIMEOUT
        return _class_of(given.trouble) if given.word is None else given.word

    async def _put(self, name: str, question: Callable[[], str | None]) -> _Given | None:
        """Put a question in a thread of this name; None where there is no answer in time.

        One that hangs keeps its thread, and is not asked again before that has come back: one
        thread would be lost with each question.
        """
        running = self._running.get(name)
        if running is None or running.done():
            running = self._running[name] = _in_thread(name, question)
        done, _ = await asyncio.wait([running], timeout=self._check_seconds)
        return running.result() if done else None


def _in_thread(name: str, question: Callable[[], str | None]) -> asyncio.Future[_Given]:
    """Put a question in a daemon thread, which cannot hold up the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Given] = loop.create_future()

    def run() -> None:
        try:
            given = _Given(word=question())
        except Exception as error:  # noqa: BLE001 - whatever it is, the server is not ready
            given = _Given(trouble=error)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(future.set_result, given)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _class_of(error: Exception | None) -> str:
    if error is None:
        return _OK
    return type(error).__name__.lower() if isinstance(error, GrantServerError) else "failed"
