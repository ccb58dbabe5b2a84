"""Servers of somebody else: over real TLS they say what a test wants, and note what was asked."""

import base64
import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from ruamel.yaml import YAML

from app import ambient
from app.crypto import keys
from app.crypto.issuers import create_authority, load_issuer
from app.crypto.server_certificates import create_server_certificate
from app.domain.certificates import KeyType
from app.domain.times import rfc3339
from tests.builders import NOW


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request that a stranger's server has got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(kw_only=True)
class Stranger:
    """Some server that says what a test wants, over real TLS; it remembers what it was asked."""

    url: str
    ca_pem: str
    say: Callable[[Asked], tuple[int, bytes]] = lambda _asked: (404, b"No such claim\n")
    asked: list[Asked] = field(default_factory=list)

    def token(self, **changes: Any) -> str:
        """Write a token that leads here."""
        spec = {"url": f"{self.url}/x", "code": "Aa0Bb1Cc2Dd3Ee4F", "ca": self.ca_pem, **changes}
        document = {
            "apiVersion": "skupper.io/v2alpha1",
            "kind": "AccessToken",
            "metadata": {"name": "lab"},
            "spec": {name: value for name, value in spec.items() if value is not None},
        }
        return json.dumps(document)


@contextlib.contextmanager
def a_stranger(tmp_path: Path) -> Iterator[Stranger]:
    """Run such a server; its certificate lies in `tmp_path` meanwhile."""
    key = keys.generate(KeyType.P256)
    ca_pem = create_authority(
        common_name="stranger", key=key, serial=7, not_before=NOW - 10**8, not_after=NOW + 10**9
    )
    leaf = keys.generate(KeyType.P256)
    certificate = create_server_certificate(
        load_issuer(ca_pem, keys.to_pem(key)),
        hosts=["127.0.0.1"],
        key=leaf,
        serial_random=ambient.random_bytes(16),
        now=ambient.utc_now(),
        lifetime_seconds=10**6,
    )
    chain = tmp_path / "stranger.pem"
    chain.write_bytes(certificate + keys.to_pem(leaf))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    made = Stranger(url="", ca_pem=ca_pem.decode())

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 20

        def setup(self) -> None:
            self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self) -> None:
            super().finish()
            self.request.close()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(
                method=self.command, path=self.path, headers=dict(self.headers), body=body
            )
            made.asked.append(asked)
            status, said = made.say(asked)
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST  # noqa: N815 - the library looks it up by this name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Listening(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Clients that do not trust us break off; that is what is tested."""

    with Listening(("127.0.0.1", 0), Handler) as server:
        made.url = f"https://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


@dataclass(kw_only=True)
class Issuer:
    """What a server does that takes certificate requests: it answers claims, and renews.

    `now` is its clock, `life_seconds` how long what it issues is good. It remembers what it issued.
    """

    now: int = field(default_factory=ambient.utc_now)
    life_seconds: int = 3600
    url: str = ""
    ca_pem: str = ""
    issued: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)
    _key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        self.authority = self._sign("CN=west-ca", self._key.public_key(), self.now, 10**8)

    @property
    def authority_pem(self) -> bytes:
        return self.authority.public_bytes(Encoding.PEM)

    def certificate(
        self, public_key: Any, *, subject: str = "CN=east", since: int | None = None
    ) -> bytes:
        """Issue a certificate that is good for its usual time, from now or from `since` on."""
        since = self.now if since is None else since
        return self._sign(subject, public_key, since, self.life_seconds).public_bytes(Encoding.PEM)

    def secret(self, server: Stranger, *, since: int, name: str = "lab") -> dict[str, Any]:
        """Write a Secret as it is stored, with a certificate that began then."""
        key = ec.generate_private_key(ec.SECP256R1())
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        data = {
            "ca.crt": self.authority_pem,
            "tls.crt": self.certificate(key.public_key(), since=since),
            "tls.key": key_pem,
        }
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "annotations": {
                    "grantserver/server-url": server.url,
                    "grantserver/server-ca": server.ca_pem,
                },
            },
            "type": "kubernetes.io/tls",
            "data": {entry: base64.b64encode(one).decode() for entry, one in data.items()},
        }

    def answer_claim(self, asked: Asked) -> tuple[int, bytes]:
        """Answer a claim: without a key, if a certificate request came with it."""
        from tests.domain.test_receipts import an_answer  # noqa: PLC0415 - only the command line

        name = asked.headers["name"]
        if "csr" not in asked.headers:
            return 200, an_answer(name=name)
        request = x509.load_der_x509_csr(base64.b64decode(asked.headers["csr"], validate=True))
        assert request.is_signature_valid
        data = {
            "ca.crt": self.authority_pem,
            "tls.crt": self.certificate(
                request.public_key(), subject=f"CN={asked.headers['subject']}"
            ),
        }
        encoded = {entry: base64.b64encode(one).decode() for entry, one in data.items()}
        return 200, an_answer(name=name, secret={"data": encoded})

    def renew(self, asked: Asked) -> tuple[int, bytes]:
        """Renew, once the signature was found to be that of the old certificate's key."""
        assert (asked.method, asked.path) == ("POST", "/renew")
        assert "csr" not in asked.headers
        question = json.loads(asked.body)
        assert set(question) == {"certificate", "csr", "signature"}
        old = x509.load_pem_x509_certificate(question["certificate"].encode())
        csr = base64.b64decode(question["csr"], validate=True)
        signature = base64.b64decode(question["signature"], validate=True)
        old_key = old.public_key()
        assert isinstance(old_key, ec.EllipticCurvePublicKey)
        old_key.verify(signature, b"grantserver renew 1\0" + csr, ec.ECDSA(hashes.SHA256()))
        request = x509.load_der_x509_csr(csr)
        assert request.is_signature_valid
        new_key = request.public_key()
        der = new_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        known = old.fingerprint(hashes.SHA256()), der
        subject = old.subject.rfc4514_string()
        self.issued.setdefault(known, self.certificate(new_key, subject=subject))
        ends = rfc3339(self.now + self.life_seconds)
        document = {
            "certificate": self.issued[known].decode(),
            "ca": self.authority_pem.decode(),
            "notAfter": ends,
            "supersededAt": rfc3339(self.now + 60),
            "server": {"url": self.url, "ca": self.ca_pem},
        }
        return 200, json.dumps(document).encode()

    def _sign(self, subject: str, public_key: Any, since: int, seconds: int) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name.from_rfc4514_string(subject))
            .issuer_name(x509.Name.from_rfc4514_string("CN=west-ca"))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(since, UTC))
            .not_valid_after(datetime.fromtimestamp(since + seconds, UTC))
            .sign(self._key, hashes.SHA256())
        )


def documents(text: str) -> list[Any]:
    return list(YAML(typ="safe").load_all(text))


def asked_with(asked: Asked) -> bytes:
    """The public key that somebody has asked with, who has proved to have it."""
    request = x509.load_der_x509_csr(base64.b64decode(asked.headers["csr"], validate=True))
    assert request.is_signature_valid
    return public(request.public_key())


def public(key: Any) -> bytes:
    der: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def key_in(secret: Mapping[str, Any]) -> bytes:
    """The public half of the key in a Secret."""
    return public(
        load_pem_private_key(base64.b64decode(secret["data"]["tls.key"]), None).public_key()
    )
