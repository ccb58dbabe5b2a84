"""The server at the far end of a token: it speaks the wire contract as it is told to.

It keeps what it is sent, and counts what it gives out. Redeemed again by the same name, subject and
key, it gives the same answer again; the plain contract knows no such thing.
"""

import base64
import http.server
import itertools
import json
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.pki import KINDS, Certified, a_root

HOST: Final = "127.0.0.1"
CODE: Final = "open-sesame-open-sesame"
GRANT: Final = "0b9e6a7e-6d2f-4c53-8d0e-3a3a3e0b7d11"
OLD: Final = timedelta(hours=2)
"""The age of the certificates that are given out."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def key(self) -> Any:
        """The key that is asked for; None without a certificate request."""
        sent = self.headers.get("csr")
        if sent is None:
            return None
        request = x509.load_der_x509_csr(base64.b64decode(sent, validate=True))
        assert request.is_signature_valid
        return request.public_key()


@dataclass(frozen=True, kw_only=True)
class Said:
    """An answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class FarSide:
    """A server of one grant, in a thread; `plain` makes keys itself, as Skupper's does.

    `answers` are said instead of what would be, one after the other; one may be an event that is
    waited for. `groups` are those of the site's endpoints, `cost` what is put into its Links.
    """

    directory: Path
    plain: bool = False
    groups: Sequence[str] = ("skupper-router",)
    cost: int | None = None
    life: timedelta = timedelta(days=30)
    answers: list[Said | threading.Event] = field(default_factory=list)
    always: Said | None = None
    claims: list[Claim] = field(default_factory=list)
    renewals: list[Claim] = field(default_factory=list)
    given: int = 0

    def __post_init__(self) -> None:
        self.ca: Certified = a_root("site ca")
        self._root = a_root("far side")
        self._kept: dict[object, bytes] = {}
        self._turn = threading.Lock()
        self._serials = itertools.count(100)
        shown = self._root.certify(HOST)
        pem = self.directory / "far-side.pem"
        pem.write_bytes(shown.key_pem + shown.pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(pem)
        self._server: http.server.ThreadingHTTPServer | None = None
        self.port = 0
        self._bind()

    @property
    def ca_pem(self) -> str:
        """Whom to trust."""
        return self._root.pem.decode()

    @property
    def url(self) -> str:
        """Where the grant is redeemed."""
        return f"https://{HOST}:{self.port}/{GRANT}"

    def token(self, name: str = "west", namespace: str = "east", **spec: Any) -> dict[str, Any]:
        """An AccessToken for it."""
        given = {"url": self.url, "code": CODE, "ca": self.ca_pem} | spec
        return {
            "apiVersion": "skupper.io/v2alpha1",
            "kind": "AccessToken",
            "metadata": {"namespace": namespace, "name": name},
            "spec": given,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.answers:
            if isinstance(one, threading.Event):
                one.set()
        self.stop()

    def start(self) -> None:
        """Serve, at the same port as before."""
        server = self._server or self._bind()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _bind(self) -> http.server.ThreadingHTTPServer:
        far = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                # The handshake in the thread of the connection: one that hangs stops nobody.
                self.request = far._context.wrap_socket(self.request, server_side=True)
                super().setup()

            def finish(self) -> None:
                super().finish()
                self.request.close()

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                claim = Claim(path=self.path, headers=headers, body=self.rfile.read(length))
                said = far._answer(claim)
                self.send_response_only(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said.body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(said.body)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: object) -> None:
                """Whoever goes away in the middle is no matter."""

        self._server = server = Server((HOST, self.port), Handler)
        self.port = server.server_address[1]
        return server

    def _answer(self, claim: Claim) -> Said:
        renewal = claim.path == "/renew"
        (self.renewals if renewal else self.claims).append(claim)
        if self.answers:
            said = self.answers.pop(0)
            if isinstance(said, Said):
                return said
            said.wait(30)
        if self.always is not None:
            return self.always
        with self._turn:  # as a database would see to it
            return self._renewed(claim) if renewal else self._redeemed(claim)

    def _redeemed(self, claim: Claim) -> Said:
        if claim.body.decode() != CODE:
            return Said(status=403, body=b"Redemption of access token refused\n")
        key = None if self.plain else claim.key
        identity: object = object()
        if key is not None:
            identity = (claim.headers["name"], claim.headers["subject"], _der(key))
        if identity not in self._kept:
            self.given += 1
            self._kept[identity] = self._bundle(claim, key)
        return Said(body=self._kept[identity], headers={"Content-Type": "text/plain"})

    def _bundle(self, claim: Claim, key: Any) -> bytes:
        data = {"ca.crt": self.ca.pem}
        if key is None:
            own = KINDS["p256"]()
            key = own.public_key()
            data["tls.key"] = own.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        name = claim.headers["name"]
        data["tls.crt"] = self._sign(key, claim.headers["subject"])
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "creationTimestamp": None},
            "type": "kubernetes.io/tls",
            "data": {entry: base64.b64encode(one).decode() for entry, one in data.items()},
        }
        many = len(self.groups) > 1
        links = [
            {
                "apiVersion": "skupper.io/v2alpha1",
                "kind": "Link",
                "metadata": {"name": f"{name}-{number}" if many else name},
                "spec": {
                    "endpoints": [
                        {"name": "inter-router", "host": "192.0.2.4", "port": "55671"}
                        | {"group": group}
                    ],
                    "tlsCredentials": name,
                }
                | ({} if self.cost is None else {"cost": self.cost}),
                "status": {},
            }
            for number, group in enumerate(self.groups, start=1)
        ]
        return "".join(f"---\n{yaml.safe_dump(one)}" for one in (secret, *links)).encode()

    def _renewed(self, claim: Claim) -> Said:
        asked = json.loads(claim.body)
        old = x509.load_pem_x509_certificate(asked["certificate"].encode())
        request = x509.load_der_x509_csr(base64.b64decode(asked["csr"]))
        key: Any = old.public_key()
        signed = b"grantserver renew 1\0" + base64.b64decode(asked["csr"])
        key.verify(base64.b64decode(asked["signature"]), signed, _ecdsa())
        identity = old.serial_number, _der(request.public_key())
        if identity not in self._kept:
            self.given += 1
            subject = old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
            self._kept[identity] = self._sign(request.public_key(), str(subject), timedelta())
        told = {
            "certificate": self._kept[identity].decode(),
            "ca": self.ca.pem.decode(),
            "notAfter": "2100-01-01T00:00:00Z",
            "supersededAt": "2100-01-01T00:00:00Z",
            "server": {"url": f"https://{HOST}:{self.port}", "ca": self.ca_pem},
        }
        return Said(body=json.dumps(told).encode(), headers={"Content-Type": "application/json"})

    def _sign(self, key: Any, subject: str, age: timedelta = OLD) -> bytes:
        begin = datetime.now(UTC) - age  # noqa: TID251 - real programs look at it
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(self.ca.certificate.subject)
            .public_key(key)
            .serial_number(next(self._serials))
            .not_valid_before(begin)
            .not_valid_after(begin + self.life)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.key.public_key()),
                critical=False,
            )
            .sign(self.ca.key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)


def _ecdsa() -> Any:
    return ec.ECDSA(hashes.SHA256())


def _der(key: Any) -> bytes:
    return bytes(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def refusal(status: int, text: str) -> Said:
    """A refusal as servers of the contract say it."""
    return Said(status=HTTPStatus(status), body=f"{text}\n".encode())
