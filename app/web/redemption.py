"""The redemption listener's application: the wire contract of unmodified clients.

A bare ASGI callable, because this is the one path where a framework's overhead is felt. It parses
a request into a claim, hands it to the redeemer, and writes one whole answer with its length:
a client of Skupper that reads half an answer believes that it has succeeded.

`GET /<grant>` with the code in the `Authorization` header is an addition of ours: it tells the
holder of a code what is left, or why nothing is. Without that header it is refused like every other
method. Further additions are `POST /renew` and `GET /crl/<authority>.crl`, whose paths are no
grant's.
"""

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from structlog.stdlib import BoundLogger

from app.domain.grants import Claim
from app.errors import Broken, GrantServerError, Reason, Refused
from app.metrics import Metrics
from app.services.limits import PeerLimits
from app.services.redemption import Redeemer
from app.services.renewal import Renewer
from app.services.revocation_lists import RevocationLists
from app.traces import Traces
from app.web import inspection, renewal, revocation_lists
from app.web.wire import cause, refusal

Header = tuple[bytes, bytes]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST_BODY_BYTES: Final = 4096  # a code has 24 characters; nobody chooses one this long
BODY_SECONDS: Final = 5.0
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_JSON: Final = (b"content-type", b"application/json")
_LIST: Final = (b"content-type", revocation_lists.CONTENT_TYPE)
_FIXED_HEADERS: Final = (
    (b"connection", b"close"),  # clients open a new connection each time and never close it
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
_EXTRA_HEADERS: Final[dict[int, tuple[Header, ...]]] = {
    405: ((b"allow", b"POST"),),
    503: ((b"retry-after", b"5"),),  # unmodified clients ignore it, others need not
}
_BEARER: Final = b"bearer "
_TOO_MANY: Final = 429  # a limit that is reached must not leave a flood of traces instead
# What may be logged of a path. Anything else could be a code that was pasted into the URL.
_GRANT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def request_ids(random_bytes: Callable[[int], bytes]) -> Iterator[str]:
    """Number the requests of a process, under a prefix that no other process is likely to have."""
    prefix = random_bytes(4).hex()
    return (f"{prefix}-{number}" for number in itertools.count(1))


class _Gone(Exception):
    """The client has left before its request was whole."""


@dataclass(frozen=True, slots=True)
class _Headers:
    """The headers that mean something here, the first of each as it came."""

    name: bytes | None = None
    subject: bytes | None = None
    authorization: bytes | None = None
    csr: bytes | None = None
    content_length: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RedemptionApp:
    """Answers the redemption listener's requests.

    With `by_key`, `POST /<namespace>/<grant name>` is served as well, and then a path must be
    exact; without it all slashes are taken out of a path, as Skupper does. Certificates are renewed
    with a `renewer`, and their revocation lists given out with `lists`; no grant has such a path.
    """

    redeemer: Redeemer
    renewer: Renewer | None = None
    lists: RevocationLists | None = None
    peers: PeerLimits
    metrics: Metrics
    log: BoundLogger
    by_key: bool
    monotonic: Callable[[], float]
    request_ids: Iterator[str]
    traces: Traces | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = self.monotonic()
        request_id = next(self.request_ids)
        key = self._key(scope["path"])
        context: dict[str, object] = {
            "request_id": request_id,
            "peer": scope["client"][0] if scope["client"] else "",
            "grant": key if _GRANT_ID.fullmatch(key) else None,
        }
        extra: tuple[Header, ...]
        refused: str | None = None
        try:
            content, body = await self._serve(scope, key, receive, context)
        except _Gone:
            self.log.info("client left before its request was whole", **context)
            return
        except Exception as error:  # noqa: BLE001  # a stranger never sees what went wrong inside
            known = self._known(error)
            answer = refusal(known)
            status, content, extra = answer.status, _TEXT, _extra_headers(answer.status, known)
            body = f"{answer.text}\n".encode()
            self._note_refusal(known, status, context, started)
            refused = cause(known)
        else:
            status, extra = 200, ()
        if self.traces is not None and scope["method"] == "POST" and status != _TOO_MANY:
            self.traces.answered(
                "renew" if scope["path"] == renewal.PATH else "redeem",
                self.monotonic() - started,
                status=status,
                refused=refused,
                facts=context,
            )
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    content,
                    (b"content-length", str(len(body)).encode()),
                    (b"x-request-id", request_id.encode()),
                    *_FIXED_HEADERS,
                    *extra,
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _serve(
        self,
        scope: Message,
        key: str,
        receive: Receive,
        context: dict[str, object],
    ) -> tuple[Header, bytes]:
        """Answer a request that succeeds: its content type and body. Raises for all others."""
        headers = _parse(scope["headers"])
        peer = str(context["peer"])
        if scope["method"] == "POST":
            if self.renewer is not None and scope["path"] == renewal.PATH:
                return _JSON, await self._renew(self.renewer, headers, peer, receive, context)
            return _TEXT, await self._redeem(key, headers, peer, receive, context)
        self.peers.admit(peer)
        if scope["method"] == "GET" and headers.authorization is not None:
            return _JSON, await self._inspect(key, headers.authorization, peer)
        authority = revocation_lists.asked_for(scope["path"])
        if scope["method"] == "GET" and authority is not None and self.lists is not None:
            return _LIST, await self.lists.get(authority)
        raise Refused(Reason.METHOD)

    def _key(self, path: str) -> str:
        return path.removeprefix("/") if self.by_key else path.replace("/", "")

    async def _redeem(
        self,
        key: str,
        headers: _Headers,
        peer: str,
        receive: Receive,
        context: dict[str, object],
    ) -> bytes:
        code = await _read_body(headers, receive)
        # Only now, when the code is about to be tried: a body may have been long on its way.
        self.peers.admit(peer)
        started = self.monotonic()  # what the client takes to send its code is not our doing
        claim = Claim(
            key=key,
            presented_code=code,
            name=_text(headers.name, Reason.NAME),
            subject=_text(headers.subject, Reason.SUBJECT),
            peer=peer,
            csr=headers.csr,
        )
        redeemed = await self.redeemer.redeem(claim)
        seconds = self.monotonic() - started
        context["grant"] = redeemed.grant.id
        context["site"] = redeemed.grant.site
        context["name"] = redeemed.name
        context["subject"] = redeemed.subject
        context["redemption"] = f"{redeemed.ordinal} of {redeemed.grant.allowed}"
        microseconds = int(seconds * 1_000_000)
        if redeemed.serial is None:
            self.metrics.repeated()
            self.log.info("answered again", **context, microseconds=microseconds)
        else:
            self.metrics.redeemed(seconds)
            self.log.info("redeemed", **context, serial=redeemed.serial, microseconds=microseconds)
        return redeemed.bundle

    async def _renew(
        self,
        renewer: Renewer,
        headers: _Headers,
        peer: str,
        receive: Receive,
        context: dict[str, object],
    ) -> bytes:
        body = await _read_body(headers, receive, most=renewal.MOST_BODY_BYTES)
        self.peers.admit(peer)
        started = self.monotonic()
        renewed = await renewer.renew(renewal.read_wish(body, peer))
        seconds = self.monotonic() - started
        given = renewed.given
        context |= {
            "grant": given.grant_id,
            "name": given.name,
            "subject": given.subject,
            "replaces": given.serial,
            "microseconds": int(seconds * 1_000_000),
        }
        if renewed.serial is None:
            self.metrics.repeated()
            self.log.info("renewal answered again", **context)
        else:
            self.metrics.renewed()
            self.log.info("renewed", **context, serial=renewed.serial)
        return renewal.write_renewed(renewed)

    async def _inspect(self, key: str, authorization: bytes, peer: str) -> bytes:
        if authorization[: len(_BEARER)].lower() != _BEARER:
            raise Refused(Reason.WRONG_CODE)
        code = authorization[len(_BEARER) :].strip()
        claim = Claim(key=key, presented_code=code, name=None, subject=None, peer=peer)
        return inspection.write(await self.redeemer.inspect(claim))

    def _known(self, error: Exception) -> GrantServerError:
        if isinstance(error, GrantServerError):
            return error
        self.log.error("a claim failed in a way that nobody foresaw", exc_info=error)
        return Broken(type(error).__name__)

    def _note_refusal(
        self, error: GrantServerError, status: int, context: dict[str, object], started: float
    ) -> None:
        self.metrics.refused(cause(error))
        seconds = self.monotonic() - started
        level = self.log.error
        if isinstance(error, Refused):  # the client's affair; all else is ours
            self.peers.note(str(context["peer"]), error.reason)
            # A limit that is reached must not leave a flood in the log instead.
            limited = error.reason in {Reason.RATE_LIMITED, Reason.RENEWED_TOO_OFTEN}
            level = self.log.debug if limited else self.log.info
        level(
            "refused",
            **context,
            status=status,
            why=str(error),
            microseconds=int(seconds * 1_000_000),
        )


def _extra_headers(status: int, error: GrantServerError) -> tuple[Header, ...]:
    if isinstance(error, Refused) and error.retry_after is not None:
        return ((b"retry-after", str(error.retry_after).encode()),)
    return _EXTRA_HEADERS.get(status, ())


def _parse(headers: list[tuple[bytes, bytes]]) -> _Headers:
    """Pick the first of each header that means something (names are in lower case already)."""
    found: dict[str, bytes] = {}
    for name, value in headers:
        match name:
            case b"name" | b"subject" | b"authorization" | b"csr":
                found.setdefault(name.decode(), value)
            case b"content-length":
                found.setdefault("content_length", value)
            case _:
                pass
    return _Headers(**found)


def _text(value: bytes | None, reason: Reason) -> str | None:
    try:
        return None if value is None else value.strip(b" \t").decode()
    except UnicodeDecodeError as error:
        raise Refused(reason, f"the {reason} header is not UTF-8") from error


async def _read_body(headers: _Headers, receive: Receive, *, most: int = MOST_BODY_BYTES) -> bytes:
    """Read the code, or what else it is, bounded in bytes and in seconds.

    Raises Refused(BODY), _Gone.
    """
    too_long = Refused(Reason.BODY, f"the body is longer than {most} bytes")
    announced = headers.content_length
    if announced is not None and len(announced.lstrip(b"0")) > len(str(most)):
        raise too_long
    message = await receive()  # nearly always the whole body; the listener bounds the wait
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        body, message = await _read_rest(body, receive, most)
    if message["type"] == "http.disconnect":
        raise _Gone
    if len(body) > most:
        raise too_long
    return body


async def _read_rest(body: bytes, receive: Receive, most: int) -> tuple[bytes, Message]:
    """Read on, until the body ends, is too long, or takes too long."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body") or len(body) > most:
                    return body, message
    except TimeoutError as error:
        raise Refused(Reason.BODY, f"the body took over {BODY_SECONDS:g} s") from error
