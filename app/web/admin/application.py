"""The admin API's application: who asks is known before anything is read of what they ask.

Around FastAPI's routes: admission, bounds of the body, one form of problems, one line in the log
for each request. Only `GET /healthz` is answered to whoever comes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import Message, Receive, Scope, Send
from structlog.stdlib import BoundLogger

from app.api.problems import Kind
from app.errors import Broken, GrantServerError
from app.metrics import AdminAnswer, Metrics
from app.services.admission import Admission, Admitted
from app.web.admin import (
    admin_tokens,
    audit,
    authorities,
    document,
    events,
    grants,
    info,
    problems,
    redemptions,
    sites,
    timelines,
    tokens,
    webhooks,
)
from app.web.admin.office import Office

HEALTH: Final = "/healthz"
DESCRIPTION: Final = "/openapi.json"
MOST_BODY_BYTES: Final = 64 * 1024
ROUTERS: Final[Sequence[APIRouter]] = (
    info.router,
    grants.router,
    tokens.router,
    redemptions.router,
    timelines.router,
    sites.router,
    authorities.router,
    audit.router,
    admin_tokens.router,
    webhooks.router,
    events.router,
)

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_JSON: Final = re.compile(r"\s*application/json\s*(;.*)?", re.IGNORECASE)
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


def create_app(office: Office) -> FastAPI:
    """Build the routes with their description; `AdminApp` lets nobody in without asking."""
    app = FastAPI(
        title="GrantServer",
        version=office.version,
        description="Manage grants and who may link, and prove afterwards who did what.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.office = office
    for router in ROUTERS:
        app.router.routes.extend(router.routes)
    described = document.describe(app)
    app.openapi = lambda: described  # type: ignore[method-assign]

    async def describe(_: Request) -> Response:
        return JSONResponse(described)

    app.add_route(DESCRIPTION, describe, methods=["GET"])
    app.state.parameters = _parameters(described)

    async def known(_: Request, error: Exception) -> Response:
        if not isinstance(error, GrantServerError):
            raise error
        return problems.of(error)

    async def malformed(_: Request, error: Exception) -> Response:
        if not isinstance(error, RequestValidationError):
            raise error
        return problems.malformed(error.errors())

    async def unreadable(_: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        return problems.malformed([{"loc": ("body",), "msg": "it is no JSON"}])

    async def unforeseen(_: Request, error: Exception) -> Response:
        return problems.of(Broken(type(error).__name__))  # and goes on to whoever logs it

    app.add_exception_handler(Exception, unforeseen)
    app.add_exception_handler(GrantServerError, known)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, unreadable)
    return app


class _Refusal(Exception):
    """A request that is answered before it gets to a route."""

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__(str(response.status_code))


@dataclass(slots=True)
class _Told:
    """What is known of a request so far, and of its answer."""

    caller: str | None = None
    route: str | None = None
    status: int = 0
    started: bool = False
    finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminApp:
    """Answers the admin listener's requests."""

    app: FastAPI
    admission: Admission
    metrics: Metrics
    log: BoundLogger
    monotonic: Callable[[], float]
    request_ids: Iterator[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        began = self.monotonic()
        request_id = next(self.request_ids)
        told = _Told()
        scope["state"] = {}
        bodiless = scope["method"] == "HEAD"
        if bodiless:  # it is a GET of which only the head is sent (RFC 9110, section 9.3.2)
            scope = {**scope, "method": "GET"}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.status, told.started = message["status"], True
                identified = (b"x-request-id", request_id.encode())
                message["headers"] = [*message["headers"], *_HEADERS, identified]
            else:
                told.finished = not message.get("more_body", False)
                if bodiless:
                    message = {**message, "body": b""}
            await send(message)

        try:
            await self._serve(scope, receive, answer, told)
        except _Refusal as refusal:
            await refusal.response(scope, receive, answer)
        except GrantServerError as error:
            await problems.of(error)(scope, receive, answer)
        except Exception as error:
            self.log.exception(
                "a request failed in a way that nobody foresaw", request_id=request_id
            )
            if told.started and not told.finished:  # a client sees that it was cut off
                raise
            if not told.started:
                await problems.of(Broken(type(error).__name__))(scope, receive, answer)
        finally:
            self._note(scope, told, request_id, self.monotonic() - began, bodiless=bodiless)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, told: _Told) -> None:
        if scope["path"] == HEALTH and scope["method"] == "GET":
            told.caller = ""
            await PlainTextResponse("ok\n")(scope, receive, send)
            return
        headers = dict(reversed(scope["headers"]))  # the first of each
        admitted = await self._admit(scope, headers)
        told.caller = admitted.caller.actor
        scope["state"]["admitted"] = admitted
        scope["state"]["readmit"] = lambda: self._admit(scope, headers)
        self._check_route(scope, told)
        if scope["method"] in _WITH_BODY:
            receive = await _bounded(headers, receive)
        await self.app(scope, receive, send)

    async def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> Admitted:
        shown = headers.get(b"authorization")
        certificate = scope.get("extensions", {}).get("tls", {}).get("client_cert")
        return await self.admission.admit(
            peer=scope["client"][0] if scope["client"] else "",
            authorization=None if shown is None else shown.decode("latin-1"),
            certificate=certificate,
        )

    def _check_route(self, scope: Scope, told: _Told) -> None:
        """Refuse what no route is for, and what the route does not know in the query.

        A parameter that is not known may be a word that was spelt wrong.
        """
        allowed: list[str] = []
        for route in self.app.routes:
            match, _ = route.matches(scope)
            if not isinstance(route, Route | APIRoute) or match is Match.NONE:
                continue
            if match is Match.FULL:
                told.route = route.path
                break
            allowed += sorted(route.methods or ())
        else:
            if allowed:
                listed = ", ".join(allowed)
                headers = {"Allow": listed}
                raise _Refusal(problems.problem(Kind.METHOD, f"use {listed}", headers=headers))
            raise _Refusal(problems.problem(Kind.MISSING, "there is nothing at this path"))
        known = self.app.state.parameters.get((told.route, scope["method"]), frozenset())
        unknown = [name for name in Request(scope).query_params if name not in known]
        if unknown:
            raise _Refusal(
                problems.malformed(
                    [
                        {"loc": ("query", name), "msg": "there is none of this name"}
                        for name in unknown
                    ]
                )
            )

    def _note(
        self, scope: Scope, told: _Told, request_id: str, seconds: float, *, bodiless: bool
    ) -> None:
        if told.caller == "" and told.status < _CLIENT_ERROR:
            return  # somebody looks whether we live
        if told.status >= _SERVER_ERROR or not told.started:
            outcome = AdminAnswer.FAILED
        elif told.caller is None:
            outcome = AdminAnswer.UNKNOWN_CALLER
        elif told.status >= _CLIENT_ERROR:
            outcome = AdminAnswer.REFUSED
        else:
            outcome = AdminAnswer.SERVED
        self.metrics.administered(outcome, seconds)
        # Who is not known is in the log already, once for each that presented something.
        level = self.log.debug if outcome is AdminAnswer.UNKNOWN_CALLER else self.log.info
        level(
            "request",
            request_id=request_id,
            peer=scope["client"][0] if scope["client"] else "",
            caller=told.caller,
            method="HEAD" if bodiless else scope["method"][:20],
            route=told.route,
            status=told.status,
            microseconds=int(seconds * 1_000_000),
        )


async def _bounded(headers: dict[bytes, bytes], receive: Receive) -> Receive:
    """Read the whole body, of bounded size and of the one form that we know."""
    announced = headers.get(b"content-length", b"0")
    body, more = b"", True
    if len(announced) > len(str(MOST_BODY_BYTES)) or int(announced) > MOST_BODY_BYTES:
        raise _too_large()
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            more = False
            continue
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BODY_BYTES:
            raise _too_large()
    if body and _JSON.fullmatch(headers.get(b"content-type", b"").decode("latin-1")) is None:
        raise _Refusal(problems.problem(Kind.MEDIA_TYPE, "say Content-Type: application/json"))
    whole = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def give() -> Message:
        return next(whole, None) or await receive()

    return give


def _too_large() -> _Refusal:
    return _Refusal(problems.problem(Kind.TOO_LARGE, f"it has {MOST_BODY_BYTES} bytes at most"))


def _parameters(described: dict[str, Any]) -> dict[tuple[str, str], frozenset[str]]:
    """Name the query parameters of each operation, as the description has them."""
    return {
        (path, method.upper()): frozenset(
            one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"
        )
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    }
