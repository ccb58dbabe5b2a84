"""A leaf's to-be-signed part, written straight into DER (RFC 5280, section 4.1).

The library's builder costs three times the signature itself, and a redemption pays it each time.
So the frame is written here, around parts that the library has encoded: names, public key,
extension values. What comes out is read back by the library and compared with its order before
it may leave (`mint.inspect`), and a test holds it against the builder's output byte for byte.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

from app.crypto.issuers import Issuer
from app.crypto.keys import PublicKey
from app.errors import Broken

_BOOLEAN_TRUE: Final = b"\x01\x01\xff"
_INTEGER: Final = 0x02
_BIT_STRING: Final = 0x03
_OCTET_STRING: Final = 0x04
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_SEQUENCE: Final = 0x30
_EXTENSIONS: Final = 0xA3  # [3] EXPLICIT
_VERSION_3: Final = bytes.fromhex("a003020102")  # [0] EXPLICIT INTEGER 2
_LAST_YEAR_OF_UTC_TIME: Final = 2049  # RFC 5280, section 4.1.2.5
_ONE_LENGTH_BYTE: Final = 0x80

# AlgorithmIdentifiers, complete: RFC 5758 section 3.2, RFC 4055 section 5, RFC 8410 section 3.
_ECDSA: Final = {
    "sha256": bytes.fromhex("300a06082a8648ce3d040302"),
    "sha384": bytes.fromhex("300a06082a8648ce3d040303"),
    "sha512": bytes.fromhex("300a06082a8648ce3d040304"),
}
_RSA: Final = {
    "sha256": bytes.fromhex("300d06092a864886f70d01010b0500"),
    "sha384": bytes.fromhex("300d06092a864886f70d01010c0500"),
    "sha512": bytes.fromhex("300d06092a864886f70d01010d0500"),
}
_ED25519: Final = bytes.fromhex("300506032b6570")


def signed_leaf(
    issuer: Issuer,
    *,
    subject: x509.Name,
    public_key: PublicKey,
    serial: int,
    not_before: int,
    not_after: int,
    extensions: tuple[x509.Extension[x509.ExtensionType], ...],
) -> bytes:
    """Write and sign a certificate, version 3; the answer is its DER. Times are UTC seconds."""
    algorithm = _algorithm(issuer)
    to_be_signed = _tlv(
        _SEQUENCE,
        _VERSION_3,
        _tlv(_INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big")),
        algorithm,
        issuer.name.public_bytes(),
        _tlv(_SEQUENCE, _time(not_before), _time(not_after)),
        subject.public_bytes(),
        public_key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        _tlv(_EXTENSIONS, _tlv(_SEQUENCE, *map(_extension, extensions))),
    )
    signature = _sign(issuer, to_be_signed)
    return _tlv(_SEQUENCE, to_be_signed, algorithm, _tlv(_BIT_STRING, b"\x00", signature))


def _sign(issuer: Issuer, data: bytes) -> bytes:
    key = issuer.key
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    if issuer.signature_hash is None:
        raise Broken("an issuer's key needs a hash to sign with, and has none")
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(issuer.signature_hash))
    return key.sign(data, padding.PKCS1v15(), issuer.signature_hash)


def _algorithm(issuer: Issuer) -> bytes:
    if issuer.signature_hash is None:
        return _ED25519
    known = _ECDSA if isinstance(issuer.key, ec.EllipticCurvePrivateKey) else _RSA
    return known[issuer.signature_hash.name]


# Four of a leaf's five extensions are the same for all leaves of an issuer.
@lru_cache(maxsize=256)
def _extension(extension: x509.Extension[x509.ExtensionType]) -> bytes:
    arcs = extension.oid.dotted_string.split(".")
    if arcs[:3] != ["2", "5", "29"] or len(arcs) != 4:  # noqa: PLR2004
        raise Broken(f"extension {extension.oid.dotted_string} is none of X.509's own")
    identifier = bytes.fromhex("0603551d") + bytes([int(arcs[3])])
    critical = _BOOLEAN_TRUE if extension.critical else b""
    return _tlv(
        _SEQUENCE, identifier, critical, _tlv(_OCTET_STRING, extension.value.public_bytes())
    )


# Leaves that are made within the same second share both of their times.
@lru_cache(maxsize=256)
def _time(seconds: int) -> bytes:
    moment = datetime.fromtimestamp(seconds, UTC)
    if moment.year <= _LAST_YEAR_OF_UTC_TIME:
        return _tlv(_UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode())
    return _tlv(_GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())


def _tlv(tag: int, *contents: bytes) -> bytes:
    """Frame contents with tag and length, the length in its shortest form (X.690, 8.1 and 10.1)."""
    content = b"".join(contents)
    size = len(content)
    if size < _ONE_LENGTH_BYTE:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _ONE_LENGTH_BYTE | len(length))) + length + content
