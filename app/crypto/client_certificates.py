"""Client certificates, as a TLS handshake hands them over."""

from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from app.crypto.certificates import decoding, seconds
from app.errors import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """Who it names, and until when (UTC seconds)."""

    common_name: str
    not_after: int


def read_client_certificate(der: bytes) -> ClientCertificate:
    """Read a certificate whose signature the handshake has verified.

    Raises Invalid("certificate", …) unless it has exactly one common name.
    """
    with decoding():
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        not_after = seconds(certificate.not_valid_after_utc)
    if len(names) != 1 or not isinstance(names[0].value, str):
        raise Invalid("certificate", "expected one common name in its subject")
    return ClientCertificate(common_name=names[0].value, not_after=not_after)
