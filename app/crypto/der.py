"""A leaf's to-be-signed part, written straight into DER (RFC 5280, section 4.1).

The library's builder costs three times the signature itself, and a redemption pays it each time.
So the frame is written here, around parts that the library has encoded: names, public key,
extension values. What comes out is read back by the library and compared with its order before
it may leave (`mint.inspect`), and a test holds it against the builder's output byte for byte.
"""

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cryptography import x509

from app.crypto.issuers import Issuer
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

_COMMON_NAME: Final = bytes.fromhex("0603550403")  # OBJECT IDENTIFIER 2.5.4.3
_SUBJECT_KEY_IDENTIFIER: Final = bytes.fromhex("0603551d0e")  # 2.5.29.14
_UTF8_STRING: Final = 0x0C
_SET: Final = 0x31


def signed_leaf(
    issuer: Issuer,
    *,
    serial: int,
    not_before: int,
    not_after: int,
    subject_der: bytes,
    public_key_der: bytes,
    extensions_der: bytes,
) -> bytes:
    """Write and sign a certificate, version 3; the answer is its DER. Times are UTC seconds.

    `subject_der` is what `name` writes, `public_key_der` a SubjectPublicKeyInfo,
    `extensions_der` what `extensions` writes.
    """
    algorithm = issuer.signature_algorithm
    to_be_signed = _tlv(
        _SEQUENCE,
        _VERSION_3,
        _tlv(_INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big")),
        algorithm,
        issuer.name_der,
        _validity(not_before, not_after),
        subject_der,
        public_key_der,
        extensions_der,
    )
    signature = issuer.sign(to_be_signed)
    return _tlv(_SEQUENCE, to_be_signed, algorithm, _tlv(_BIT_STRING, b"\x00", signature))


def name(common_name: str) -> bytes:
    """Write the distinguished name that holds the common name alone (RFC 5280, 4.1.2.4)."""
    value = _tlv(_UTF8_STRING, common_name.encode())
    return _tlv(_SEQUENCE, _tlv(_SET, _tlv(_SEQUENCE, _COMMON_NAME, value)))


def key_identifier(public_key_der: bytes) -> bytes:
    """Identify a key by the SHA-1 of its bits (RFC 5280, section 4.2.1.2, method 1).

    `public_key_der` is a SubjectPublicKeyInfo: a sequence of the algorithm and a bit string,
    whose first octet counts unused bits and does not belong to the key.
    """
    algorithm, _ = _content(public_key_der, 0)
    bits, _ = _content(public_key_der, _content(public_key_der, algorithm)[1])
    return hashlib.sha1(public_key_der[bits + 1 :], usedforsecurity=False).digest()


def extensions(shared_der: bytes, identifier: bytes) -> bytes:
    """Write a leaf's extensions: those that it shares (`extension` of each), then its key's."""
    value = _tlv(_OCTET_STRING, _tlv(_OCTET_STRING, identifier))
    own = _tlv(_SEQUENCE, _SUBJECT_KEY_IDENTIFIER, value)
    return _tlv(_EXTENSIONS, _tlv(_SEQUENCE, shared_der, own))


def extension(one: x509.Extension[x509.ExtensionType]) -> bytes:
    """Write an extension of X.509's own branch; raises Broken for any other."""
    arcs = one.oid.dotted_string.split(".")
    if arcs[:3] != ["2", "5", "29"] or len(arcs) != 4:  # noqa: PLR2004
        raise Broken(f"extension {one.oid.dotted_string} is none of X.509's own")
    identifier = bytes.fromhex("0603551d") + bytes([int(arcs[3])])
    critical = _BOOLEAN_TRUE if one.critical else b""
    return _tlv(_SEQUENCE, identifier, critical, _tlv(_OCTET_STRING, one.value.public_bytes()))


# Leaves that are made within the same second share their times.
@lru_cache(maxsize=256)
def _validity(not_before: int, not_after: int) -> bytes:
    return _tlv(_SEQUENCE, _time(not_before), _time(not_after))


def _time(seconds: int) -> bytes:
    moment = datetime.fromtimestamp(seconds, UTC)
    if moment.year <= _LAST_YEAR_OF_UTC_TIME:
        return _tlv(_UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode())
    return _tlv(_GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Tell where the content of the element at `at` begins, and where it ends."""
    begin, length = at + 2, der[at + 1]
    if length >= _ONE_LENGTH_BYTE:
        begin += length - _ONE_LENGTH_BYTE
        length = int.from_bytes(der[at + 2 : begin], "big")
    return begin, begin + length


def _tlv(tag: int, *contents: bytes) -> bytes:
    """Frame contents with tag and length, the length in its shortest form (X.690, 8.1 and 10.1)."""
    content = b"".join(contents)
    size = len(content)
    if size < _ONE_LENGTH_BYTE:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _ONE_LENGTH_BYTE | len(length))) + length + content
