"""Post a code to a grant's URL, or ask what is left of it, as the wire contract asks of a client.

Only what the server's answer looks like on the wire is judged here: what is in it is the caller's.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPMethod, HTTPStatus
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from app.errors import Invalid, Unavailable

TIME_LIMIT_SECONDS: Final = 10.0  # for everything, from the name look-up to the end of the body
LONGEST_BODY_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said; `reason` is the standard phrase of `status`, not the server's words.

    The body of a success holds a private key.
    """

    status: int
    reason: str
    body: bytes = field(repr=False)


async def post_code(
    url: str,
    *,
    code: bytes,
    ca_pem: bytes,
    name: str | None,
    subject: str | None,
    seconds: float = TIME_LIMIT_SECONDS,
) -> Answer:
    """Redeem a code: post it to the token's `url` and give back what is answered, once.

    `ca_pem` holds the only certificates that are trusted; `name` and `subject` become headers
    where they are given. A redirect is an answer like any other.
    Raises Invalid("url" | "ca" | "name" | "subject", …) before anything is sent, also when the
    server's certificate is none that `ca_pem` vouches for, and Unavailable when there is no
    complete answer within `seconds`: the code may have been spent even so.
    """
    headers = {
        field: _header(field, value)
        for field, value in (("name", name), ("subject", subject))
        if value is not None
    }
    return await _ask(HTTPMethod.POST, url, headers, code, ca_pem, seconds)


async def inspect(
    url: str, *, code: bytes, ca_pem: bytes, seconds: float = TIME_LIMIT_SECONDS
) -> Answer:
    """Ask what is left of a grant without using it, under the rules of `post_code`.

    Raises also Invalid("code", …) when the code cannot stand in a header.
    """
    try:
        credentials = _header("code", code.decode())
    except UnicodeDecodeError:
        # The decoder's error holds the code, so it is not handed on.
        raise Invalid("code", "it has characters that cannot be sent in a header") from None
    if not credentials:
        raise Invalid("code", "it is empty")
    headers = {"Authorization": f"Bearer {credentials}"}
    return await _ask(HTTPMethod.GET, url, headers, None, ca_pem, seconds)


def was_not_sent(error: Unavailable) -> bool:
    """Tell whether a question of ours surely never left: there was no connection to send it by.

    A connection that was made (or may have been, when time ran out) proves nothing.
    """
    return isinstance(error.__cause__, aiohttp.ClientConnectorError)


async def _ask(
    method: HTTPMethod,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    ca_pem: bytes,
    seconds: float,
) -> Answer:
    target = _target(url)
    context = _context(ca_pem)
    where = f"{target.host_subcomponent}:{target.port}"

    async def once(
        request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            return await send(request)
        except aiohttp.ClientConnectorCertificateError as error:
            raise Invalid("ca", f"{where} {_not_vouched_for(error)}") from error
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            # Left alone, the library would try a broken GET again; it does not know this error.
            raise Unavailable(f"{where} {_what_happened(error, seconds)}") from error

    try:
        async with (
            asyncio.timeout(seconds),
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),  # its own would be rounded up to whole seconds
                trust_env=False,
                auto_decompress=False,  # 1 MiB stays 1 MiB
                skip_auto_headers=("Accept-Encoding", "Content-Type", "User-Agent"),
                middlewares=(once,),
            ) as session,
            session.request(
                method, target, headers=headers, data=body, allow_redirects=False
            ) as response,
        ):
            return Answer(
                status=response.status,
                reason=_phrase(response.status),
                body=await _whole_body(response, where),
            )
    except aiohttp.ClientResponseError:
        # This one holds the request's headers, the code among them, so it is not handed on.
        raise Unavailable(f"{where} does not answer in HTTP") from None
    except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
        raise Unavailable(f"{where} {_what_happened(error, seconds)}") from error


async def _whole_body(response: aiohttp.ClientResponse, where: str) -> bytes:
    if (
        response.status == HTTPStatus.OK
        and "Content-Length" not in response.headers
        and "chunked" not in response.headers.get("Transfer-Encoding", "").lower()
    ):
        raise Unavailable(f"{where} did not say how long its answer is, so it may be cut off")
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > LONGEST_BODY_BYTES:
            raise Unavailable(f"{where} answered with more than {LONGEST_BODY_BYTES} bytes")
    return bytes(body)


def _target(url: str) -> URL:
    try:
        target = URL(url)
        port = target.port
    except ValueError as error:
        raise Invalid("url", "token url is not a URL") from error
    if target.scheme != "https":
        raise Invalid("url", "token url scheme must be https")
    if not url.isprintable() or " " in url or not target.host or not port:
        raise Invalid("url", "token url is not a URL")
    if target.user is not None or target.password is not None:
        raise Invalid("url", "token url must not carry a user name or password")
    return target


def _context(ca_pem: bytes) -> ssl.SSLContext:
    """Trust the given certificates, whatever their place in a chain, and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the chain and the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.hostname_checks_common_name = False
    # An intermediate certificate in the token is enough, as it is for unmodified clients.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    except (ValueError, ssl.SSLError) as error:
        raise Invalid("ca", "token does not have a CA") from error
    return context


def _header(field: str, value: str) -> str:
    # A line break would let the value add headers of its own; blanks at the ends get lost.
    if not value.isprintable() or value != value.strip():
        raise Invalid(field, "it has characters that cannot be sent in a header")
    return value


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _not_vouched_for(error: aiohttp.ClientConnectorCertificateError) -> str:
    why = getattr(error.certificate_error, "verify_message", "") or "no reason given"
    what = f"shows a certificate that the token's CA does not vouch for ({why})"
    return f"{what}; the code was not sent"


def _what_happened(error: Exception, seconds: float) -> str:
    """Say it in words of ours: those of libraries hold addresses and bytes of the answer."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLError):
        return f"does not speak TLS 1.3 with us ({cause.reason or 'no reason given'})"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(cause, ConnectionResetError):
        return "broke the connection off during the TLS handshake; it may not speak TLS 1.3"
    for kinds, what in _TROUBLES:
        if isinstance(error, kinds) or isinstance(cause, kinds):
            return what.format(seconds=seconds)
    why = cause.strerror if isinstance(cause, OSError) else None
    return f"cannot be reached ({why or type(error).__name__})"


_TROUBLES: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...]] = (
    (aiohttp.ClientConnectorDNSError, "has no address: the host name is not known"),
    (ConnectionRefusedError, "refuses the connection"),
    ((ConnectionResetError, BrokenPipeError), "broke the connection off"),
    (aiohttp.ClientPayloadError, "broke its answer off before the end"),
    (aiohttp.ServerDisconnectedError, "closed the connection without an answer"),
    (TimeoutError, "did not answer completely within {seconds:g} s"),
)
