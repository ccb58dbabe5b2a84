"""Keys and certificates for the servers that GrantServer is compared with."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


def write_server_certificate(path: Path) -> None:
    """Write a P-256 key and its self-signed certificate for 127.0.0.1 into one PEM file."""
    _write(path, ec.generate_private_key(ec.SECP256R1()), "127.0.0.1", authority=False)


def write_authority(path: Path) -> None:
    """Write an RSA-2048 key and its CA certificate into one PEM file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(path, key, "site-ca", authority=True)


def _write(
    path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str, *, authority: bool
) -> None:
    now = datetime.now(UTC)
    names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(names)
        .issuer_name(names)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(hosts, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(secret + certificate.public_bytes(pem))
