"""Reading certificates out of PEM, and the few words that all of the package says about them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from app.errors import Invalid

COMMON_NAME_BYTES = 64
"""ub-common-name of RFC 5280, appendix A.1; `cryptography` counts it in UTF-8 bytes."""

_NOT_POSITIVE = "its serial number is not positive, as RFC 5280, section 4.1.2.2, wants it"
_BLOCK = re.compile(rb"-----BEGIN ([^\r\n]*)")
_LABEL = b"CERTIFICATE-----"


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    """Read all certificates of a bundle, in their order; there is at least one.

    Every part is decoded at once: the library decodes late, and would raise later, where
    nobody expects it. Text between the blocks is skipped.

    Raises Invalid("certificate") when there is none, when one is malformed, and when there is
    any other PEM block: bundles are handed out as they are, so a private key that was pasted
    in with its certificate must not come in at all.
    """
    if b"PRIVATE KEY" in pem:
        raise Invalid("certificate", "there is a private key among the certificates; take it out")
    if any(label != _LABEL for label in (b.strip() for b in _BLOCK.findall(pem))):
        raise Invalid("certificate", "only PEM blocks of the kind CERTIFICATE are accepted")
    with decoding():
        certificates = x509.load_pem_x509_certificates(pem)
        for certificate in certificates:
            _decode(certificate)
    if any(certificate.serial_number < 1 for certificate in certificates):
        raise Invalid("certificate", _NOT_POSITIVE)
    return certificates


@contextmanager
def decoding() -> Iterator[None]:
    """Turn what the library raises on malformed certificates into Invalid("certificate")."""
    try:
        yield
    except CryptographyDeprecationWarning as error:  # where warnings are errors
        raise Invalid("certificate", _NOT_POSITIVE) from error
    except (
        ValueError,
        TypeError,
        OverflowError,
        InternalError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise Invalid(
            "certificate", "expected one or more well-formed X.509 certificates in PEM"
        ) from error


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether names match and `issuer` signed `certificate`; dates and usages are not read."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        return False
    return True


def check_common_name(common_name: str, *, field: str) -> None:
    """Raise Invalid(field) when it is empty, longer than `COMMON_NAME_BYTES`, or no Unicode."""
    try:
        length = len(common_name.encode())
    except UnicodeEncodeError:
        length = 0
    if not 1 <= length <= COMMON_NAME_BYTES:
        raise Invalid(field, f"a common name has 1 to {COMMON_NAME_BYTES} bytes of UTF-8")


def name_of(common_name: str, *, field: str) -> x509.Name:
    """Build the distinguished name that holds `common_name` alone; raises as the check does."""
    check_common_name(common_name, field=field)
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def seconds(moment: datetime) -> int:
    """UTC seconds of an aware time, as every stored time is."""
    return int(moment.timestamp())


def moment(seconds: int) -> datetime:
    """Turn UTC seconds into an aware time, as the library wants it."""
    return datetime.fromtimestamp(seconds, UTC)


def serial_text(serial: int) -> str:
    """Write a serial number as whole octets in lower-case hexadecimal, as openssl shows it."""
    digits = f"{abs(serial):x}"
    return ("-" if serial < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)


def _decode(certificate: x509.Certificate) -> None:
    _ = (
        certificate.version,
        certificate.serial_number,
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate.extensions,
    )
