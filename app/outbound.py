"""Post a code to a grant's URL, ask what is left of it, or renew, as the wire contract wants it.

Only what the server's answer looks like on the wire is judged here: what is in it is the caller's.
So is whose certificate is shown to one who only looks.
"""

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPMethod, HTTPStatus
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from app.domain.self_check import Misfit
from app.errors import Invalid, Unavailable

TIME_LIMIT_SECONDS: Final = 10.0  # for everything, from the name look-up to the end of the body
LONGEST_BODY_BYTES: Final = 96 * 1024
"""A Link to 256 endpoints has some 55 KiB; what is longer takes seconds to be read as YAML."""
_TLS_1_3: Final = "TLSv1.3"
_LONGEST_SECONDS: Final = 6  # digits
_Found = tuple[
    socket.AddressFamily,
    socket.SocketKind,
    int,
    str,
    tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
]
"""What `socket.getaddrinfo` gives; the last of it is the address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said; `reason` is the standard phrase of `status`, not the server's words.

    The body of a success may hold a private key. `retry_after` are the seconds after which it
    wants to be asked again, where it says so.
    """

    status: int
    reason: str
    body: bytes = field(repr=False)
    retry_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a server shows to a client that has nothing to tell it.

    `certificate_pem` is the certificate that it showed of itself, empty where none was seen;
    `old_tls` tells that it was shown in a version before TLS 1.3. Where a client does not take
    it, `misfit` says why. `answer` is what was said to a GET, which is sent to a server that is
    taken and to no other; without an answer, `trouble` says in words what happened.
    """

    certificate_pem: bytes = b""
    old_tls: bool = False
    misfit: Misfit | None = None
    answer: Answer | None = None
    trouble: str = ""


def check(url: str, ca_pem: bytes) -> None:
    """Raise Invalid("ca" | "url", …) where `post_code` would, whatever the answer."""
    _context(ca_pem)
    _target(url)


async def post_code(
    url: str,
    *,
    code: bytes,
    ca_pem: bytes,
    name: str | None,
    subject: str | None,
    csr: bytes | None = None,
    seconds: float = TIME_LIMIT_SECONDS,
) -> Answer:
    """Redeem a code: post it to the token's `url` and give back what is answered, once.

    `ca_pem` holds the only certificates that are trusted; `name` and `subject` become headers
    where they are given. So does `csr`, a certificate request (RFC 2986) in DER: a server that
    takes it answers without a private key, and any other as if it were not there. A redirect is
    an answer like any other.
    Raises Invalid("url" | "ca" | "name" | "subject", …) before anything is sent, also when the
    server's certificate is none that `ca_pem` vouches for, and Unavailable when there is no
    complete answer within `seconds`: the code may have been spent even so.
    """
    headers = {
        field: _header(field, value)
        for field, value in (("name", name), ("subject", subject))
        if value is not None
    }
    if csr is not None:
        headers["csr"] = base64.b64encode(csr).decode()
    return await _ask(HTTPMethod.POST, _target(url), headers, code, _context(ca_pem), seconds)


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
    return await _ask(HTTPMethod.GET, _target(url), headers, None, _context(ca_pem), seconds)


async def renew(
    url: str,
    *,
    ca_pem: bytes,
    certificate_pem: bytes,
    csr: bytes,
    signature: bytes,
    seconds: float = TIME_LIMIT_SECONDS,
) -> Answer:
    """Ask the server at the base `url` for a new certificate, under the rules of `post_code`.

    `certificate_pem` is the one in hand, whose key has signed the certificate request `csr` (DER).
    Raises also Invalid("certificate", …) when that is no text.
    """
    try:
        certificate = certificate_pem.decode("ascii")
    except UnicodeDecodeError:
        raise Invalid("certificate", "it is not in PEM") from None
    question = {
        "certificate": certificate,
        "csr": base64.b64encode(csr).decode(),
        "signature": base64.b64encode(signature).decode(),
    }
    return await _ask(
        HTTPMethod.POST,
        _target(f"{url.rstrip('/')}/renew"),
        {"Content-Type": "application/json"},
        json.dumps(question).encode(),
        _context(ca_pem),
        seconds,
    )


async def look(url: str, *, ca_pem: bytes, seconds: float) -> Sight:
    """See what a server shows at `url`, and whether a client that trusts `ca_pem` takes it.

    Whoever is not taken is not sent a byte beyond a handshake: a second one then, which trusts
    anybody and speaks TLS 1.2 as well, tells whose certificate it is. Both together have
    `seconds`. Raises Invalid("url" | "ca", …) before anything is sent, and nothing else.
    """
    target, context = _target(url), _context(ca_pem)
    shown = _note_what_is_shown(context)
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        answer = await _ask(HTTPMethod.GET, target, {}, None, context, seconds)
    except (Invalid, Unavailable) as error:
        if shown:
            return replace(shown[-1], trouble=str(error))
        cause = error.__cause__
        if isinstance(cause, aiohttp.ClientConnectorCertificateError):
            seen = await _see_anybody(target, deadline)
            what = f"shows a certificate that no client takes ({_verdict(cause)})"
            return replace(seen, misfit=_misfit(cause), trouble=f"{_where(target)} {what}")
        if isinstance(cause, aiohttp.ClientConnectorError) and isinstance(
            cause.os_error, ssl.SSLError | ConnectionResetError
        ):
            return replace(await _see_anybody(target, deadline), trouble=str(error))
        return Sight(trouble=str(error))
    return replace(shown[-1], answer=answer)


def was_not_sent(error: Unavailable) -> bool:
    """Tell whether a question of ours surely never left: there was no connection to send it by.

    A connection that was made (or may have been, when time ran out) proves nothing.
    """
    return isinstance(error.__cause__, aiohttp.ClientConnectorError)


async def _ask(
    method: HTTPMethod,
    target: URL,
    headers: Mapping[str, str],
    body: bytes | None,
    context: ssl.SSLContext,
    seconds: float,
) -> Answer:
    where = _where(target)

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
                connector=aiohttp.TCPConnector(ssl=context, force_close=True, resolver=Resolver()),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),  # its own would be rounded up to whole seconds
                trust_env=False,
                auto_decompress=False,  # what is short stays short
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
                retry_after=_seconds(response.headers.get("Retry-After", "")),
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


async def _see_anybody(target: URL, deadline: float) -> Sight:
    """Shake hands with whoever is there, and say no more; it may be that nobody does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    shown = _note_what_is_shown(context)
    host, port = target.raw_host or "", target.port or 0  # `_target` has seen to both
    with contextlib.suppress(OSError):
        async with asyncio.timeout_at(deadline):
            for *_, address in await _look_up(host, port):
                with contextlib.suppress(OSError):
                    transport, _ = await asyncio.get_running_loop().create_connection(
                        asyncio.Protocol,
                        str(address[0]),
                        port,
                        ssl=context,
                        server_hostname=host.rstrip("."),
                    )
                    transport.abort()
                    break
    return shown[-1] if shown else Sight()


def _note_what_is_shown(context: ssl.SSLContext) -> list[Sight]:
    """Have a context note what it sees of every server with which it has shaken hands."""
    shown: list[Sight] = []

    class Handshake(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()  # raises until it is done
            certificate = self.getpeercert(binary_form=True)
            if certificate is not None:
                pem = ssl.DER_cert_to_PEM_cert(certificate).encode()
                shown.append(Sight(certificate_pem=pem, old_tls=self.version() != _TLS_1_3))

    context.sslobject_class = Handshake
    return shown


class Resolver(AbstractResolver):
    """Looks names up; the library's own way could hold up the end of the process."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Look a name up, as the library wants it. Raises what `socket.getaddrinfo` raises."""
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, protocol, _, address in await _look_up(
                host, port, family, flags=socket.AI_ADDRCONFIG
            )
        ]

    async def close(self) -> None:
        """Nothing is kept."""


async def _look_up(
    host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC, *, flags: int = 0
) -> Sequence[_Found]:
    """Find the addresses of a name in a daemon thread: nothing can break a look-up off.

    Where DNS is silent it takes the better part of a minute, and a pool of threads would be waited
    for when the process ends. Raises what `socket.getaddrinfo` raises.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[_Found]] = loop.create_future()

    def tell(addresses: Sequence[_Found], error: OSError | None) -> None:
        if found.done():  # nobody waits any more
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(error)

    def run() -> None:
        addresses: Sequence[_Found] = ()
        trouble = None
        try:
            addresses = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags)
        except OSError as error:
            trouble = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(tell, addresses, trouble)

    threading.Thread(target=run, name="look-up", daemon=True).start()
    return await found


def _where(target: URL) -> str:
    return f"{target.host_subcomponent}:{target.port}"


def _target(url: str) -> URL:
    try:
        target = URL(url)
        port = target.port
        (target.raw_host or "").encode("idna")  # what the resolver does, which raises anything
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


def _seconds(written: str) -> int | None:
    """Read a Retry-After in seconds; one that is a date is left alone, as one that is nothing."""
    short = len(written) <= _LONGEST_SECONDS
    return int(written) if short and written.isascii() and written.isdigit() else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _not_vouched_for(error: aiohttp.ClientConnectorCertificateError) -> str:
    what = f"shows a certificate that the token's CA does not vouch for ({_verdict(error)})"
    return f"{what}; the code was not sent"


def _verdict(error: aiohttp.ClientConnectorCertificateError) -> str:
    return getattr(error.certificate_error, "verify_message", "") or "no reason given"


def _misfit(error: aiohttp.ClientConnectorCertificateError) -> Misfit:
    """Sort what OpenSSL says; it looks at trust first, then at the name, then at the time."""
    return _MISFITS.get(getattr(error.certificate_error, "verify_code", 0), Misfit.TRUST)


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


_MISFITS: Final = {  # by the numbers of openssl/x509_vfy.h, as `openssl verify` tells them
    9: Misfit.TIME,  # not yet valid
    10: Misfit.TIME,  # has expired
    62: Misfit.NAME,  # host name
    64: Misfit.NAME,  # IP address
}

_TROUBLES: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...]] = (
    (aiohttp.ClientConnectorDNSError, "has no address: the host name is not known"),
    (ConnectionRefusedError, "refuses the connection"),
    ((ConnectionResetError, BrokenPipeError), "broke the connection off"),
    (aiohttp.ClientPayloadError, "broke its answer off before the end"),
    (aiohttp.ServerDisconnectedError, "closed the connection without an answer"),
    (TimeoutError, "did not answer completely within {seconds:g} s"),
)
