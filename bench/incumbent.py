"""The incumbent's way in our own process: an RSA key and a parsed RSA CA for every redemption.

It shares its web server with `bare.py`, checks no code and keeps no ledger: what it measures is
only the work that Skupper's controller repeats for each claim, so it flatters the incumbent.
"""

import argparse
import base64
import ipaddress
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bench.bare import serve

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope

HOST = "127.0.0.1"
LIFETIME = timedelta(days=5 * 365)
ENDPOINTS = (("inter-router", "55671"), ("edge", "45671"))


def mint(authority_pem: bytes, subject: str) -> tuple[bytes, bytes, bytes]:
    """Make an RSA-2048 key and have the CA in `authority_pem` (key and certificate) sign it.

    Returns the new certificate, its key and the CA's certificate, each as PEM.
    """
    authority = x509.load_pem_x509_certificate(authority_pem)
    # Unchecked: OpenSSL would test the primes, for as long as a new key takes; Go does not.
    authority_key = serialization.load_pem_private_key(
        authority_pem, password=None, unsafe_skip_rsa_key_validation=True
    )
    if not isinstance(authority_key, rsa.RSAPrivateKey):
        raise TypeError("the CA of this contender is an RSA one")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    purposes = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    hosts = (x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address(HOST)))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + LIFETIME)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return (
        certificate.public_bytes(pem),
        key.private_bytes(
            pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        ),
        authority.public_bytes(pem),
    )


def answer(authority_pem: bytes, name: str, subject: str) -> bytes:
    """Render the Secret and the Link of one redemption with a general YAML writer."""
    files = zip(("tls.crt", "tls.key", "ca.crt"), mint(authority_pem, subject), strict=True)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "kubernetes.io/tls",
        "data": {file: base64.b64encode(content).decode() for file, content in files},
    }
    link = {
        "apiVersion": "skupper.io/v2alpha1",
        "kind": "Link",
        "metadata": {"name": name},
        "spec": {
            "endpoints": [
                {"name": role, "host": HOST, "port": port, "group": "site"}
                for role, port in ENDPOINTS
            ],
            "tlsCredentials": name,
        },
    }
    return yaml.safe_dump_all((secret, link), explicit_start=True).encode()


def application(authority_pem: bytes) -> "ASGI3Application":
    """Return an application that answers every request with a bundle of its own."""

    async def redeem(
        scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable"
    ) -> None:
        if scope["type"] != "http":
            return
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        headers = dict(scope["headers"])
        # On the loop: on one core a thread would only add switches, to the incumbent's cost.
        body = answer(authority_pem, headers[b"name"].decode(), headers[b"subject"].decode())
        length = str(len(body)).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", length), (b"connection", b"close")],
                "trailers": False,
            }
        )
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return redeem


def main() -> None:
    """Serve bundles on `port` with `certificate`, signed by the RSA CA in `authority`."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("certificate", type=Path)
    parser.add_argument("authority", type=Path)
    arguments = parser.parse_args()
    serve(application(arguments.authority.read_bytes()), arguments.port, arguments.certificate)


if __name__ == "__main__":
    main()
