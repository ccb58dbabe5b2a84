"""Certificates as somebody else's CA would make them, and the files that they are kept in."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.services.certificate_files import CertificateFiles

BEGIN: Final = datetime(2020, 1, 1, tzinfo=UTC)
END: Final = datetime(2120, 1, 1, tzinfo=UTC)
KINDS: Final[dict[str, Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "rsa1024": lambda: rsa.generate_private_key(public_exponent=65537, key_size=1024),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """A certificate and its key, PEM; `chain` is what stands above it, without the root."""

    certificate: x509.Certificate
    key: Any = field(repr=False)
    chain: bytes = b""

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def certify(
        self,
        *hosts: str,
        kind: str = "p256",
        name: str = "server",
        ca: bool = False,
        begin: datetime = BEGIN,
        end: datetime = END,
        client: bool = False,
        server: bool = False,
    ) -> "Certified":
        """Sign for a server of these hosts, or a CA below this one.

        With `client` or `server` it is good for those alone.
        """
        key = KINDS[kind]()
        certificate = _build(
            name,
            key,
            self,
            hosts,
            ca=ca,
            begin=begin,
            end=end,
            usages=[
                *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else []),
                *([ExtendedKeyUsageOID.SERVER_AUTH] if server else []),
            ],
        )
        above = b"" if self.certificate.issuer == self.certificate.subject else self.pem
        return Certified(certificate=certificate, key=key, chain=above + self.chain)


def a_root(name: str = "their root", kind: str = "p256", end: datetime = END) -> Certified:
    key = KINDS[kind]()
    return Certified(
        certificate=_build(name, key, None, (), ca=True, begin=BEGIN, end=end), key=key
    )


def _build(
    name: str,
    key: Any,
    by: Certified | None,
    hosts: Sequence[str],
    *,
    ca: bool,
    begin: datetime,
    end: datetime,
    usages: Sequence[x509.ObjectIdentifier] = (),
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = key if by is None else by.key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
    )
    if hosts:
        names = x509.SubjectAlternativeName([_named(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    plain = isinstance(signer, ed25519.Ed25519PrivateKey)
    return builder.sign(signer, None if plain else hashes.SHA256())


def _named(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The files of a listener's certificate, in a directory of their own."""

    directory: Path

    @property
    def files(self) -> CertificateFiles:
        return CertificateFiles(
            certificate=self.directory / "tls.crt",
            key=self.directory / "tls.key",
            ca=self.directory / "ca.crt",
        )

    @property
    def environment(self) -> dict[str, str]:
        """The settings that name them."""
        return {
            "GRANTSERVER_TLS_CERTIFICATE_FILE": str(self.files.certificate),
            "GRANTSERVER_TLS_KEY_FILE": str(self.files.key),
            "GRANTSERVER_TLS_CA_FILE": str(self.files.ca),
        }

    def write(self, one: Certified, *roots: Certified) -> None:
        """Put a certificate with its chain, its key and its CA there, each file at once."""
        self.put("tls.crt", one.pem + one.chain)
        self.put("tls.key", one.key_pem)
        self.put("ca.crt", b"".join(root.pem for root in roots))

    def put(self, name: str, content: bytes) -> None:
        """Put one file in the place of the one that is there, as a whole."""
        self.directory.mkdir(exist_ok=True)
        new = self.directory / f".{name}"
        new.write_bytes(content)
        new.chmod(0o600)
        new.replace(self.directory / name)
