"""Private keys: making, reading and writing them; what they sign is decided elsewhere."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import overload

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.utils import CryptographyDeprecationWarning

from app.domain.certificates import KeyType
from app.errors import Invalid

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
SignatureHash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

RSA_MIN_BITS = 2048
"""Shorter RSA keys are refused by OpenSSL at its default security level, so by every router."""

RSA_MAX_BITS = 8192
"""To make sure that the primes of such a key are primes takes some ten seconds of CPU; eight times
as much for twice the bits."""

_RSA_EXPONENT = 65537
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_PRIME_LEEWAY_BITS = 64  # primes of one key are about as long as each other
_MAX_PEM_BYTES = 8 * 1024
"""The largest RSA key fits. The library computes with whatever is in it, of kinds too that are not
accepted: a DSA key of twice the length takes it half a minute."""

_ACCEPTED = (
    "accepted is one unencrypted PEM private key in PKCS#1, SEC1 or PKCS#8: "
    f"RSA of {RSA_MIN_BITS} to {RSA_MAX_BITS} bits, EC on P-256, P-384 or P-521, or Ed25519"
)
_BLOCK = re.compile(rb"-----BEGIN ([^-\r\n]*)-----")


def generate(key_type: KeyType) -> PrivateKey:
    """Make a fresh key: the one place where that happens.

    P-256 and Ed25519 take some 20 microseconds; RSA takes tens of milliseconds, so whoever
    serves others meanwhile calls this from a thread.
    """
    if key_type is KeyType.P256:
        return ec.generate_private_key(ec.SECP256R1())
    if key_type is KeyType.RSA_2048:
        return rsa.generate_private_key(public_exponent=_RSA_EXPONENT, key_size=RSA_MIN_BITS)
    return ed25519.Ed25519PrivateKey.generate()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A key to be handed out: the private half as PKCS#8 in PEM, the public half for a certificate.

    `public_der` is its SubjectPublicKeyInfo.
    """

    private_pem: bytes = field(repr=False)
    public_key: PublicKey = field(repr=False)
    public_der: bytes = field(repr=False)


def make_pair(key_type: KeyType) -> KeyPair:
    """Make a fresh key and write both halves; takes as long as `generate`."""
    return pair_of(generate(key_type))


def pair_of(key: PrivateKey) -> KeyPair:
    """Write both halves of a key."""
    public_key = key.public_key()
    return KeyPair(
        private_pem=to_pem(key), public_key=public_key, public_der=to_public_der(public_key)
    )


def to_public_der(public_key: PublicKey) -> bytes:
    """Write a public key as SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7)."""
    return public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def to_pem(key: PrivateKey) -> bytes:
    """Write `key` as unencrypted PKCS#8, the form that is handed out."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def to_traditional_pem(key: PrivateKey) -> bytes:
    """Write `key` unencrypted in the form of its kind: PKCS#1 for RSA, SEC1 for EC.

    Skupper's controller reads the key of a CA Secret with a PKCS#1 parser only. Ed25519 has
    no such form and is written as PKCS#8.
    """
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return to_pem(key)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def load_private_key(
    pem: bytes, *, rsa_max_bits: int = RSA_MAX_BITS, checked: bool = False
) -> PrivateKey:
    """Read the one private key in `pem` (PKCS#1, SEC1 or PKCS#8).

    Raises Invalid("key") for everything else: no key, several keys, another PEM block beside
    it, an encrypted key, a kind, size or curve that is not accepted. The text says what is
    accepted and holds nothing of the input.

    To make sure that an RSA key is one takes long, and nothing else of the process may run
    meanwhile: that is left out where the key was `checked` before.
    """
    _check_blocks(pem)
    with _reading():
        # Unchecked, and thrown away: an endless prime takes the library endless time to check.
        unchecked = serialization.load_pem_private_key(
            pem, password=None, unsafe_skip_rsa_key_validation=True
        )
        if isinstance(unchecked, rsa.RSAPrivateKey):
            _check_lengths(unchecked, rsa_max_bits)
        key = unchecked if checked else serialization.load_pem_private_key(pem, password=None)
    match key:
        case rsa.RSAPrivateKey():
            if key.key_size < RSA_MIN_BITS:
                raise _invalid(f"the RSA key has only {key.key_size} bits")
            return key
        case ec.EllipticCurvePrivateKey():
            if key.curve.name not in _CURVES:
                raise _invalid(f"the EC key is on the curve {key.curve.name}")
            return key
        case ed25519.Ed25519PrivateKey():
            return key
        case _:
            raise _invalid("the key is of another kind")


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what the library raises on what is no key into Invalid."""
    try:
        yield
    except TypeError:  # the library's way to say that a password is needed
        raise _invalid("the key is encrypted") from None
    except (ValueError, UnsupportedAlgorithm, InternalError, CryptographyDeprecationWarning):
        # InternalError: what OpenSSL refuses for a reason that the library does not expect.
        # A warning (where it is an error) tells of kinds that are not accepted anyhow.
        # The cause is not handed on: it may quote the key, as where a line is not ended right.
        raise _invalid("this cannot be read as a private key") from None


def _check_lengths(key: rsa.RSAPrivateKey, most: int) -> None:
    """Raise Invalid when the key, or one of its primes, is too long to be checked."""
    if key.key_size > most < RSA_MAX_BITS:
        raise Invalid("key", f"expected RSA keys of at most {most} bits here")
    if key.key_size > RSA_MAX_BITS:
        raise _invalid(f"the RSA key has {key.key_size} bits")
    numbers = key.private_numbers()
    if max(numbers.p, numbers.q).bit_length() > key.key_size // 2 + _PRIME_LEEWAY_BITS:
        raise _invalid("the primes of the RSA key differ in length")


@overload
def signature_hash(key: ed25519.Ed25519PrivateKey) -> None: ...
@overload
def signature_hash(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> SignatureHash: ...
def signature_hash(key: PrivateKey) -> SignatureHash | None:
    """Choose the hash that goes with a signature by `key`; None where the scheme has its own.

    The hash is as strong as the curve (RFC 5480, section 4); RSA is signed with SHA-256.
    """
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256:  # noqa: PLR2004
        return hashes.SHA384() if key.key_size == 384 else hashes.SHA512()  # noqa: PLR2004
    return hashes.SHA256()


def _check_blocks(pem: bytes) -> None:
    """Count the PEM blocks, because the library takes the first key and is silent on the rest."""
    if len(pem) > _MAX_PEM_BYTES:
        raise _invalid(f"the input is longer than {_MAX_PEM_BYTES} bytes")
    # `openssl ecparam -genkey` writes the curve as a block of its own before the key.
    labels = [label for label in _BLOCK.findall(pem) if label != b"EC PARAMETERS"]
    if not labels:
        raise _invalid("there is no PEM block")
    if len(labels) > 1:
        raise _invalid("there is more than one PEM block")


def _invalid(problem: str) -> Invalid:
    return Invalid("key", f"{problem}; {_ACCEPTED}")
