"""Keys and certificates for the servers that GrantServer is compared with."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID


def write_server_certificate(path: Path) -> None:
    """Write a P-256 key and its self-signed certificate for 127.0.0.1 into one PEM file."""
    _write(path, ec.generate_private_key(ec.SECP256R1()), "127.0.0.1", authority=False)


def write_authority(path: Path) -> None:
    """Write an RSA-2048 key and its CA certificate into one PEM file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(path, key, "site-ca", authority=True)


class Authority:
    """A CA that signs certificates for 127.0.0.1, with keys of several kinds."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
        self.pem = self._sign(self._key.public_key(), self._name, authority=True)

    def write_server_files(self, folder: Path, kind: Literal["p256", "rsa", "ed25519"]) -> None:
        """Write `tls.crt`, `tls.key` and `ca.crt`, in place and one after the other."""
        key = _generate(kind)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        (folder / "tls.crt").write_bytes(self._sign(key.public_key(), name, authority=False))
        (folder / "tls.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        (folder / "ca.crt").write_bytes(self.pem)

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey,
        name: x509.Name,
        *,
        authority: bool,
    ) -> bytes:
        now = datetime.now(UTC)
        hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        own = x509.SubjectKeyIdentifier.from_public_key(key)
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(hosts, critical=False)
            .add_extension(own, critical=False)
            .add_extension(by, critical=False)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )


def _generate(
    kind: Literal["p256", "rsa", "ed25519"],
) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


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
