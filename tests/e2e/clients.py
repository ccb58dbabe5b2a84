"""Clients that have nothing but a token: its URL, its code, and its CA as all that they trust."""

import http.client
import socket
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from app import ambient
from app.crypto.facts import facts
from app.domain.tokens import Token, read_token
from app.home import Home
from app.services import grants
from app.services.grants import Issued, Wish
from tests.running import PATIENCE


def trusting(ca_pem: str) -> ssl.SSLContext:
    """Make the context of a client that trusts this alone, and speaks TLS 1.3 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.hostname_checks_common_name = False
    context.load_verify_locations(cadata=ca_pem)
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Somebody with a token. Whatever its URL says, the connection goes to `at`.

    The name in the URL is what the certificate has to carry all the same.
    """

    token: Token
    at: tuple[str, int]
    context: ssl.SSLContext = field(repr=False)

    def redeem(self, subject: str) -> int:
        """Redeem; the status of the answer. Raises what the handshake raises."""
        status, _ = self.redeem_and_look(subject)
        return status

    def redeem_and_look(self, subject: str) -> tuple[int, str]:
        """Redeem; also tell the fingerprint of the certificate that was shown."""
        url = urlsplit(self.token.url)
        with socket.create_connection(self.at, PATIENCE) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.context.wrap_socket(plain, server_hostname=url.hostname) as secured:
                assert secured.version() == "TLSv1.3"
                shown = ssl.DER_cert_to_PEM_cert(secured.getpeercert(binary_form=True) or b"")
                code = self.token.code
                secured.sendall(
                    f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nname: link\r\n"
                    f"subject: {subject}\r\nContent-Length: {len(code)}\r\n\r\n{code}".encode()
                )
                response = http.client.HTTPResponse(secured, method="POST")
                response.begin()
                response.read()
                return response.status, facts(shown.encode()).fingerprint


def takes(ca_pem: str, host: str, at: tuple[str, int]) -> bool:
    """Tell whether a client that trusts this takes what is shown at `at` for `host`."""
    try:
        with (
            socket.create_connection(at, PATIENCE) as plain,
            trusting(ca_pem).wrap_socket(plain, server_hostname=host),
        ):
            return True
    except ssl.SSLCertVerificationError:
        return False


def holder(text: str, at: tuple[str, int], *, ca_pem: str | None = None) -> Holder:
    """Give a token to somebody, who may have been told of another CA."""
    token = read_token(text.encode())
    return Holder(token=token, at=at, context=trusting(ca_pem or token.ca_pem))


def issue(home: Home, name: str, *, redemptions: int = 1) -> str:
    """Make a token as `token issue` does, for a site `west`."""
    made: Issued = grants.create(
        home.database,
        Wish(name=name, site="west", redemptions=redemptions, window_seconds=3600, cost=1),
        code_keys=home.code_keys,
        actor="test",
        now=ambient.utc_now(),
        random_bytes=ambient.random_bytes,
    )
    return grants.token(made, home.reach(), made.grant.created_at)


def shown_at(at: tuple[str, int]) -> str:
    """The fingerprint of the certificate that is shown there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(at, PATIENCE) as plain, context.wrap_socket(plain) as secured:
        shown = ssl.DER_cert_to_PEM_cert(secured.getpeercert(binary_form=True) or b"")
    return facts(shown.encode()).fingerprint
