"""What people want to know of a certificate, and whether one was issued by another."""

from contextlib import suppress

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from app.crypto.certificates import (
    decoding,
    is_issued_by,
    load_certificates,
    seconds,
    serial_text,
)
from app.domain.certificates import CertificateFacts
from app.errors import Invalid

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def facts(certificate_pem: bytes) -> CertificateFacts:
    """Describe the first certificate of a bundle; names are written as RFC 4514 does.

    Raises Invalid("certificate").
    """
    certificate = load_certificates(certificate_pem)[0]
    with decoding():
        return CertificateFacts(
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            serial=serial_text(certificate.serial_number),
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            not_before=seconds(certificate.not_valid_before_utc),
            not_after=seconds(certificate.not_valid_after_utc),
            key=_key(certificate),
            hosts=_hosts(certificate),
        )


def verify_issued_by(leaf_pem: bytes, ca_pem: bytes) -> None:
    """Make sure that one of the certificates in `ca_pem` signed the first one in `leaf_pem`.

    Names and signature are compared; dates and usages are not. Raises Invalid("certificate").
    """
    leaf = load_certificates(leaf_pem)[0]
    if not any(is_issued_by(leaf, ca) for ca in load_certificates(ca_pem)):
        raise Invalid("certificate", "it was not issued by the given CA")


def _key(certificate: x509.Certificate) -> str:
    """Name kind and size; a kind that we do not use ourselves by its object identifier."""
    with suppress(UnsupportedAlgorithm):
        match certificate.public_key():
            case ec.EllipticCurvePublicKey() as key:
                return f"EC {_CURVES.get(key.curve.name, key.curve.name)}"
            case rsa.RSAPublicKey() as key:
                return f"RSA {key.key_size}"
            case ed25519.Ed25519PublicKey():
                return "Ed25519"
    return f"unknown ({certificate.public_key_algorithm_oid.dotted_string})"


def _hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    """List hosts in the certificate's order; an address that is named twice counts once."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    hosts = (str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress))
    # CA certificates that Skupper once made have a dNSName of no characters.
    return tuple(dict.fromkeys(host for host in hosts if host))
