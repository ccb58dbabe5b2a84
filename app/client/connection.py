"""One HTTPS connection to an admin API, kept while it lasts: whom it trusts, how long, how much.

What an answer means is judged elsewhere. The name look-up is the system's and has its own bounds;
everything after it ends by the deadline.
"""

import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlsplit

from app.errors import Invalid, Unavailable

LARGEST_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""A page of 500 grants with all that a grant may carry is some 6 MiB."""
_HTTPS: Final = 443
_PIECE: Final = 64 * 1024
_LONGEST_SECONDS: Final = 6  # digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, whole; the body may hold a secret. `retry_after` is in seconds."""

    status: int
    media_type: str
    etag: str | None
    retry_after: int | None
    body: bytes = field(repr=False)


class Connection:
    """A connection to one server, opened when it is needed; not for several threads at once."""

    def __init__(self, url: str, *, ca_pem: str, monotonic: Callable[[], float]) -> None:
        """Take the base URL of a server and the only certificates that are trusted.

        Raises Invalid("server", …) for what is no `https://HOST[:PORT]`, and Invalid("ca", …).
        """
        self._host, self._port = _target(url)
        self._context = _context(ca_pem)
        self._monotonic = monotonic
        self._http: HTTPSConnection | None = None
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.where = f"{shown}:{self._port}"

    def open(self, deadline: float) -> None:
        """Connect, unless there is a connection; nothing is asked before this has succeeded.

        Raises Invalid("ca", …) when the server shows a certificate that is not vouched for, and
        Unavailable when there is no connection by the deadline.
        """
        if self._http is not None and self._http.sock is not None:
            return
        http = HTTPSConnection(self._host, self._port, context=self._context)
        http.auto_open = 0  # it would connect without our deadline
        try:
            http.sock = self._shake_hands(deadline)
        except ssl.SSLCertVerificationError as error:
            what = f"{self.where} shows a certificate that it does not vouch for"
            raise Invalid("ca", f"{what} ({error.verify_message.rstrip('.')})") from error
        except TimeoutError as error:
            raise Unavailable(f"{self.where} cannot be reached in time") from error
        except ssl.SSLError as error:
            raise Unavailable(f"{self.where} does not speak TLS 1.3 as we do") from error
        except OSError as error:
            raise Unavailable(f"{self.where} cannot be reached: {_why(error)}") from error
        self._http = http

    def exchange(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        deadline: float,
    ) -> Answer:
        """Ask over the connection that is open, and read the whole answer.

        Raises Unavailable when it does not come whole by the deadline, or is too long: what was
        asked for may have been done even so.
        """
        http = self._http
        if http is None or not isinstance(http.sock, _Timely):
            raise Unavailable(f"{self.where} is not connected")
        http.sock.left = lambda: deadline - self._monotonic()
        try:
            http.request(method, path, body=body, headers=dict(headers))
            response = http.getresponse()
            return Answer(
                status=response.status,
                media_type=response.headers.get_content_type(),
                etag=response.headers.get("ETag"),
                retry_after=_seconds(response.headers.get("Retry-After", "")),
                body=self._whole(response),
            )
        except TimeoutError as error:
            self.close()
            raise Unavailable(f"{self.where} did not answer in time") from error
        except OSError as error:
            self.close()
            raise Unavailable(f"{self.where} broke off: {_why(error)}") from error
        except HTTPException:
            # Some hold what the other side has sent, which may be anything.
            self.close()
            raise Unavailable(f"{self.where} broke off, or does not answer in HTTP") from None
        except Unavailable:
            self.close()
            raise

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._http is not None:
            self._http.close()
        self._http = None

    def _shake_hands(self, deadline: float) -> ssl.SSLSocket:
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        trouble: OSError = OSError("it has no address")
        for _, _, _, _, address in found:
            left = deadline - self._monotonic()
            if left <= 0:
                raise TimeoutError
            try:
                raw = socket.create_connection((str(address[0]), self._port), timeout=left)
                break
            except OSError as error:
                trouble = error
        else:
            raise trouble
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # One timeout is for the whole handshake.
            raw.settimeout(max(deadline - self._monotonic(), 0.001))
            return self._context.wrap_socket(raw, server_hostname=self._host)
        except BaseException:
            raw.close()
            raise

    def _whole(self, response: HTTPResponse) -> bytes:
        if response.length is None and not response.chunked:
            raise Unavailable(f"{self.where} did not say how long its answer is")
        body = bytearray()
        while piece := response.read(_PIECE):
            body += piece
            if len(body) > LARGEST_ANSWER_BYTES:
                raise Unavailable(
                    f"{self.where} answered with more than {LARGEST_ANSWER_BYTES} bytes"
                )
        if response.length:
            raise Unavailable(f"{self.where} broke off in the middle of its answer")
        return bytes(body)


class _Timely(ssl.SSLSocket):
    """A socket whose every step may take no longer than what is left for all of them."""

    left: Callable[[], float] | None = None

    def recv_into(self, *arguments: Any, **further: Any) -> int:
        self._bound()
        return super().recv_into(*arguments, **further)

    def send(self, *arguments: Any, **further: Any) -> int:
        self._bound()
        return super().send(*arguments, **further)

    def _bound(self) -> None:
        if self.left is not None:
            left = self.left()
            if left <= 0:
                raise TimeoutError
            self.settimeout(left)


def _target(url: str) -> tuple[str, int]:
    """Take a base URL apart. What is wrong with it is said without repeating it."""
    expected = "expected https://HOST or https://HOST:PORT"
    if not url.isascii() or not url.isprintable() or " " in url:
        raise Invalid("server", expected)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Invalid("server", expected) from None
    if parts.scheme != "https":
        raise Invalid("server", f"the admin API is spoken over https only: {expected}")
    if parts.username is not None or parts.password is not None:
        raise Invalid("server", f"it must not carry a user name or a password: {expected}")
    if not host or port == 0 or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise Invalid("server", expected)
    try:
        host.encode("idna")  # what the look-up does, which raises anything
    except UnicodeError:
        raise Invalid("server", expected) from None
    return host, port or _HTTPS


def _context(ca_pem: str) -> ssl.SSLContext:
    """Trust the given certificates, whatever their place in a chain, and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the chain and the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.hostname_checks_common_name = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.sslsocket_class = _Timely
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError, TypeError):  # the last is for what is not in ASCII
        raise Invalid("ca", "expected certificates in PEM") from None
    return context


def _seconds(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= _LONGEST_SECONDS:
        return int(text)
    return None


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
