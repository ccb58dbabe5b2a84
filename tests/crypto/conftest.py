"""Keys and authorities for the tests of this package; slow ones are made once for the session."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from app.crypto.issuers import Issuer, create_authority, load_issuer
from app.crypto.keys import PrivateKey, signature_hash, to_pem

NOW = 1_785_000_000
YEAR = 365 * 24 * 3600
KEY_NAMES = ("rsa-2048", "rsa-3072", "p256", "p384", "p521", "ed25519")


@pytest.fixture(scope="session")
def keys() -> dict[str, PrivateKey]:
    return {
        "rsa-2048": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "rsa-3072": rsa.generate_private_key(public_exponent=65537, key_size=3072),
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "p521": ec.generate_private_key(ec.SECP521R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
    }


def authority(
    key: PrivateKey,
    *,
    name: str = "site ca",
    not_before: int = NOW - YEAR,
    not_after: int = NOW + 10 * YEAR,
    leaves_only: bool = True,
) -> Issuer:
    pem = create_authority(
        common_name=name,
        key=key,
        serial=7,
        not_before=not_before,
        not_after=not_after,
        leaves_only=leaves_only,
    )
    return load_issuer(pem, to_pem(key))


@pytest.fixture(scope="session")
def issuer(keys: dict[str, PrivateKey]) -> Issuer:
    return authority(keys["p256"])


@dataclass(frozen=True, kw_only=True)
class Signer:
    """A certificate for odd cases, and the key that it certifies."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def odd_certificate(
    key: PrivateKey,
    *,
    name: str = "odd ca",
    by: Signer | None = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.BasicConstraints(ca=True, path_length=None), True),
    ),
    attributes: list[x509.NameAttribute[str]] | None = None,
) -> Signer:
    """Build what `create_authority` never would; self-signed unless `by` says otherwise."""
    if attributes is None:
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    subject = x509.Name(attributes)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(11)
        .not_valid_before(datetime.fromtimestamp(NOW - YEAR, UTC))
        .not_valid_after(datetime.fromtimestamp(NOW + YEAR, UTC))
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    signing_key = by.key if by else key
    return Signer(certificate=builder.sign(signing_key, signature_hash(signing_key)), key=key)


def counting_bytes() -> Callable[[int], bytes]:
    """Make a stand-in for randomness whose every answer differs from the one before."""
    answers = iter(range(1, 256))
    return lambda count: bytes([next(answers)]) * count
