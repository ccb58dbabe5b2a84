"""Post a message to somebody else's server, once, and tell in one word what came of it.

What the other side says beside its status is not read: nothing of it is of use here.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from app.domain.webhooks import Failure
from app.errors import Invalid
from app.outbound import Resolver

TIME_LIMIT_SECONDS: Final = 10.0  # from the name look-up to the status of the answer
_KEPT_CONTEXTS: Final = 64
_HTTPS: Final = "https"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What came of it: the `status` of the answer, if there was one, and why it is no success."""

    status: int | None = None
    failure: Failure | None = None


def check_ca(ca_pem: str) -> None:
    """Raise Invalid("ca", …) unless there is a certificate in it that can be trusted."""
    wrong = Invalid("ca", "it holds no certificate in PEM")
    if not ca_pem or not ca_pem.isascii():
        raise wrong
    try:
        _context(ca_pem)
    except (ValueError, ssl.SSLError):
        raise wrong from None


async def post(
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes,
    ca_pem: str | None,
    seconds: float = TIME_LIMIT_SECONDS,
) -> Posted:
    """Post `body`; whatever happens is an outcome, and no exception.

    `ca_pem` holds the only certificates that are trusted; None trusts those that the system does.
    A redirect is followed nowhere: an answer like any other that is no success.
    """
    target = URL(url)
    try:
        async with asyncio.timeout(seconds):
            # Reading the system's CAs takes a while: in a thread, and once.
            context = (
                await asyncio.to_thread(_context, ca_pem) if target.scheme == _HTTPS else False
            )
            status = await _status(target, headers, body, context)
    except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
        # Nothing of the error is handed on: it holds the URL, and what the other side has sent.
        return Posted(failure=_sorted(error))
    good = HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
    return Posted(status=status, failure=None if good else Failure.STATUS)


async def _status(
    target: URL, headers: Mapping[str, str], body: bytes, context: ssl.SSLContext | bool
) -> int:
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, force_close=True, resolver=Resolver()),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # its own would be rounded up to whole seconds
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
        ) as session,
        session.post(target, headers=headers, data=body, allow_redirects=False) as response,
    ):
        return response.status


@lru_cache(maxsize=_KEPT_CONTEXTS)
def _context(ca_pem: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca_pem)  # verifies the chain and the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_pem is not None:
        # An intermediate certificate is enough, as it is for tokens.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _sorted(error: Exception) -> Failure:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    for kinds, failure in _KINDS:
        if isinstance(error, kinds) or isinstance(cause, kinds):
            return failure
    return Failure.CONNECTION


_KINDS: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], Failure], ...]] = (
    (TimeoutError, Failure.TIMEOUT),
    (aiohttp.ClientConnectorCertificateError, Failure.CERTIFICATE),
    (aiohttp.ClientConnectorDNSError, Failure.ADDRESS),
    (ssl.SSLError, Failure.TLS),
    ((aiohttp.ClientResponseError, HttpProcessingError, aiohttp.InvalidURL), Failure.PROTOCOL),
)
