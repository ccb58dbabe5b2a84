"""What client and server certificates have in common: serial, validity, name, extensions.

What the two kinds differ in is decided by `mint` and `server_certificates`.
"""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from app.crypto.certificates import moment
from app.crypto.issuers import Issuer
from app.crypto.keys import PublicKey
from app.errors import Broken, Invalid, Lack, Unready

SERIAL_BYTES = 16
"""128 bits, far under the 20 octets of RFC 5280, section 4.1.2.2."""

BACKDATE_SECONDS = 60
"""Certificates begin a little in the past, so that a peer whose clock is behind takes them."""

_NOT_A_CA = x509.Extension(
    x509.BasicConstraints.oid,
    critical=True,
    value=x509.BasicConstraints(ca=False, path_length=None),
)


def _key_usage(*, key_encipherment: bool) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(
        x509.KeyUsage.oid,
        critical=True,
        value=x509.KeyUsage(
            digital_signature=True,
            key_encipherment=key_encipherment,
            content_commitment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        ),
    )


# Built once: extension objects are immutable, so every certificate can share them.
_SIGNATURE_ONLY = _key_usage(key_encipherment=False)
_SIGNATURE_AND_ENCIPHERMENT = _key_usage(key_encipherment=True)


_CLOCK_BYTES = 4


def serial_number(random: bytes, now: int) -> int:
    """Make a serial number of 128 bits, positive: UTC seconds in the first 32, the rest random.

    Serials of one time stand side by side in an index, where random ones would cost each
    redemption a page of its own. 96 random bits are more than the 64 that public authorities
    must have (CA/Browser Forum Baseline Requirements, section 7.1). The first of the
    `SERIAL_BYTES` random bytes give way to the clock.
    """
    if len(random) != SERIAL_BYTES:
        raise Broken(f"a serial number is made of {SERIAL_BYTES} random bytes, not {len(random)}")
    clock = (now % (1 << 8 * _CLOCK_BYTES)).to_bytes(_CLOCK_BYTES, "big")
    return int.from_bytes(clock + random[_CLOCK_BYTES:], "big") or 1


def validity(issuer: Issuer, *, now: int, lifetime_seconds: int) -> tuple[int, int]:
    """Decide the first and the last second in which a leaf under `issuer` is valid.

    Both ends belong to the period (RFC 5280, section 4.1.2.5), so a lifetime of 1 s ends
    where it begins, at `now`. It never leaves the issuer's own period: verifiers would refuse
    the chain. Raises Unready when `now` lies outside of that, Invalid("lifetime") when the
    lifetime is not positive.
    """
    if lifetime_seconds < 1:
        raise Invalid("lifetime", "a certificate lives for at least 1 second")
    if now < issuer.not_before:
        raise Unready(
            Lack.ISSUER, f"{issuer.label} is not valid before {moment(issuer.not_before)}"
        )
    if now > issuer.not_after:
        raise Unready(Lack.ISSUER, f"{issuer.label} has expired at {moment(issuer.not_after)}")
    return (
        max(now - BACKDATE_SECONDS, issuer.not_before),
        min(now + lifetime_seconds - 1, issuer.not_after),
    )


def shared_extensions(
    issuer: Issuer, public_key: PublicKey, extended_key_usage: x509.Extension[x509.ExtensionType]
) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    """List the extensions that all leaves of an issuer share whose keys are of the same kind."""
    rsa_key = isinstance(public_key, rsa.RSAPublicKey)
    return (
        _NOT_A_CA,
        # Only RSA can encipher a key (TLS 1.2 without ephemeral keys); others must not say so.
        _SIGNATURE_AND_ENCIPHERMENT if rsa_key else _SIGNATURE_ONLY,
        extended_key_usage,
        issuer.authority_key_identifier,
    )


def leaf_extensions(
    issuer: Issuer, public_key: PublicKey, extended_key_usage: x509.Extension[x509.ExtensionType]
) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    """List the extensions of a leaf, in the order in which they are written."""
    value = x509.SubjectKeyIdentifier.from_public_key(public_key)
    return (
        *shared_extensions(issuer, public_key, extended_key_usage),
        x509.Extension(value.oid, critical=False, value=value),
    )
