"""Certificate requests (PKCS#10), and signatures by which whoever has a certificate renews it.

Of a request nothing is taken but the key, once it has proved that whoever made it has that key.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.utils import CryptographyDeprecationWarning

from app.crypto.certificates import decoding, load_certificates, name_of
from app.crypto.keys import (
    RSA_MIN_BITS,
    PublicKey,
    load_private_key,
    signature_hash,
    to_public_der,
)
from app.domain.certificates import KeyType
from app.errors import Invalid, Reason, Refused

LONGEST_REQUEST_BYTES: Final = 3072
"""In DER: 4096 characters of base64. One for an RSA key of 4096 bits has some 1,200."""

_RENEWAL: Final = b"grantserver renew 1\0"  # so that no signature for anything else will do
_RSA_MAX_BITS: Final = 4096
_EXPONENT_MAX_BITS: Final = 32  # a longer one makes every check of a signature take long
_CURVES: Final = ("secp256r1", "secp384r1")
_FIELD: Final = "csr"
_ACCEPTED: Final = "accepted are keys on P-256 or P-384, Ed25519, and RSA of 2048 to 4096 bits"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedKey:
    """The key that somebody wants a certificate for, who has proved to have it.

    `public_der` is its SubjectPublicKeyInfo, `hash` the SHA-256 of that.
    """

    public_key: PublicKey = field(repr=False)
    public_der: bytes = field(repr=False)
    hash: bytes


def read_request(der: bytes) -> RequestedKey:
    """Read a certificate request (RFC 2986), and check the signature that proves possession.

    Subject and attributes are not looked at. Raises Invalid("csr", …).
    """
    if len(der) > LONGEST_REQUEST_BYTES:
        raise Invalid(_FIELD, f"it is longer than {LONGEST_REQUEST_BYTES} bytes")
    with _reading():
        request = x509.load_der_x509_csr(der)
        key = _accepted(request.public_key())
        if not request.is_signature_valid:
            raise Invalid(_FIELD, "it is not signed by the key that it is for")
    public_der = to_public_der(key)
    return RequestedKey(
        public_key=key, public_der=public_der, hash=hashlib.sha256(public_der).digest()
    )


def kind_of(key: PublicKey) -> KeyType | None:
    """Name the kind of a key; an RSA key may have more than 2048 bits. None: none that we make."""
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return KeyType.P256
        case rsa.RSAPublicKey():
            return KeyType.RSA_2048
        case ed25519.Ed25519PublicKey():
            return KeyType.ED25519
        case _:
            return None


def make_request(private_key_pem: bytes, common_name: str) -> bytes:
    """Write a certificate request (RFC 2986) in DER, signed by the key that it is for.

    Raises Invalid("key" or "common_name", …).
    """
    key = load_private_key(private_key_pem)
    builder = x509.CertificateSigningRequestBuilder(name_of(common_name, field="common_name"))
    return builder.sign(key, signature_hash(key)).public_bytes(serialization.Encoding.DER)


def sign_renewal(private_key_pem: bytes, request_der: bytes) -> bytes:
    """Sign a certificate request with the key of the certificate that it is to follow.

    ECDSA and PKCS#1 v1.5 with SHA-256, or Ed25519. Raises Invalid("key", …).
    """
    key = load_private_key(private_key_pem)
    message = _RENEWAL + request_der
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(message)


def check_renewal(certificate_pem: bytes, request_der: bytes, signature: bytes) -> bytes:
    """Make sure that whoever wants the request granted has the key of the (first) certificate.

    Gives the SHA-256 of that key's SubjectPublicKeyInfo. Raises Refused(RENEWAL), for a certificate
    that cannot be read as well.
    """
    refusal = Refused(Reason.RENEWAL, "the signature is not that of the certificate's key")
    message = _RENEWAL + request_der
    try:
        certificate = load_certificates(certificate_pem)[0]
        with decoding():
            key = certificate.public_key()
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            case ed25519.Ed25519PublicKey():
                key.verify(signature, message)
            case _:
                raise refusal
        return hashlib.sha256(to_public_der(key)).digest()
    except (Invalid, InvalidSignature, ValueError, UnsupportedAlgorithm, InternalError):
        raise refusal from None


def _accepted(key: object) -> PublicKey:
    match key:
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return key
        case ed25519.Ed25519PublicKey():
            return key
        case rsa.RSAPublicKey() if RSA_MIN_BITS <= key.key_size <= _RSA_MAX_BITS:
            if key.public_numbers().e.bit_length() > _EXPONENT_MAX_BITS:
                raise Invalid(_FIELD, "the exponent of its RSA key is too large")
            return key
        case _:
            raise Invalid(_FIELD, f"its key is of another kind; {_ACCEPTED}")


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what the library raises on what is no request into Invalid."""
    try:
        yield
    except (
        ValueError,
        TypeError,
        InternalError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        CryptographyDeprecationWarning,  # where warnings are errors
    ) as error:
        raise Invalid(_FIELD, "expected a certificate request in DER (RFC 2986)") from error
