"""Issuers: a CA certificate with its signer, checked once when it is read and ready to sign."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import PublicKeyAlgorithmOID

from app.crypto.certificates import (
    decoding,
    is_issued_by,
    load_certificates,
    moment,
    name_of,
    seconds,
)
from app.crypto.keys import (
    RSA_MAX_BITS,
    PrivateKey,
    SignatureHash,
    load_private_key,
    signature_hash,
)
from app.errors import Broken, Invalid

_SERIAL_BITS = 159
"""20 octets, the first bit being the sign (RFC 5280, section 4.1.2.2)."""

_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----"
)

# AlgorithmIdentifiers, complete: RFC 5758 section 3.2, RFC 4055 section 5, RFC 8410 section 3.
_ECDSA = {
    "sha256": bytes.fromhex("300a06082a8648ce3d040302"),
    "sha384": bytes.fromhex("300a06082a8648ce3d040303"),
    "sha512": bytes.fromhex("300a06082a8648ce3d040304"),
}
_RSA = {
    "sha256": bytes.fromhex("300d06092a864886f70d01010b0500"),
    "sha384": bytes.fromhex("300d06092a864886f70d01010c0500"),
    "sha512": bytes.fromhex("300d06092a864886f70d01010d0500"),
}
_ED25519 = bytes.fromhex("300506032b6570")

_AUTHORITY_KEY_USAGE = x509.KeyUsage(
    digital_signature=False,
    key_encipherment=False,
    content_commitment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A CA that can sign now; made by `load_issuer` alone.

    `certificate_pem` is the PEM as it was given: first the certificate that signs, then the
    rest of its chain. `fingerprint` is the SHA-256 of the first one's DER in lower-case
    hexadecimal; the two times are UTC seconds. What follows `label` is worked out once so
    that signing need not: parsing a CA for each signature costs more than the signature.
    """

    certificate_pem: bytes = field(repr=False)
    certificate: x509.Certificate = field(repr=False)
    key: PrivateKey = field(repr=False)
    fingerprint: str
    not_before: int
    not_after: int
    label: str
    name: x509.Name = field(repr=False)
    authority_key_identifier: x509.Extension[x509.ExtensionType] = field(repr=False)
    name_der: bytes = field(repr=False)
    signature_hash: SignatureHash | None = field(repr=False)
    signature_algorithm: bytes = field(repr=False)
    """The AlgorithmIdentifier of its signatures, in DER."""
    sign: Callable[[bytes], bytes] = field(repr=False, compare=False)
    verify: Callable[[bytes, bytes], None] = field(repr=False, compare=False)
    """Takes a signature and the bytes that were signed; raises InvalidSignature."""
    inspected: dict[type, bytes] = field(default_factory=dict, repr=False, compare=False)
    """The kinds of client key of which a certificate was inspected whole, each with the
    extensions that all certificates of the kind share, in DER."""


def load_issuer(
    certificate_pem: bytes,
    key_pem: bytes,
    *,
    rsa_max_bits: int = RSA_MAX_BITS,
    checked: bool = False,
) -> Issuer:
    """Read a CA with its key and make sure that what it signs can be verified.

    `certificate_pem` begins with the certificate that signs; each further one must have
    issued the one before. `rsa_max_bits` and `checked` are those of `load_private_key`.
    Raises Invalid("certificate") or Invalid("key").
    """
    certificates = load_certificates(certificate_pem)
    key = load_private_key(key_pem, rsa_max_bits=rsa_max_bits, checked=checked)
    certificate = certificates[0]
    _check_key(certificates, key)
    with decoding():
        _check_is_ca(certificate)
    _check_chain(certificates)
    name = certificate.subject
    return Issuer(
        certificate_pem=certificate_pem,
        certificate=certificate,
        key=key,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        not_before=seconds(certificate.not_valid_before_utc),
        not_after=seconds(certificate.not_valid_after_utc),
        label=f'the issuer "{name.rfc4514_string()}"',
        name=name,
        authority_key_identifier=_authority_key_identifier(certificate, key),
        name_der=name.public_bytes(),
        signature_hash=signature_hash(key),
        signature_algorithm=_signature_algorithm(key),
        sign=_signer(key),
        verify=_verifier(key),
    )


def without_text(certificate_pem: bytes) -> bytes:
    """Write the certificates of a bundle and nothing that may be around them, always the same way.

    What each of them says stays as it is, to the byte. Raises Invalid("certificate").
    """
    bodies = (b"".join(body.split()) for body in _CERTIFICATE.findall(certificate_pem))
    plain = b"".join(
        b"-----BEGIN CERTIFICATE-----\n%b-----END CERTIFICATE-----\n"
        % b"".join(b"%b\n" % body[at : at + 64] for at in range(0, len(body), 64))
        for body in bodies
    )
    certificates = load_certificates(certificate_pem)
    try:
        return plain if load_certificates(plain) == certificates else certificate_pem
    except Invalid:  # the library reads more than we do
        return certificate_pem


def create_authority(
    *,
    common_name: str,
    key: PrivateKey,
    serial: int,
    not_before: int,
    not_after: int,
    leaves_only: bool = True,
) -> bytes:
    """Make the self-signed certificate of a new authority and return its PEM.

    The times are UTC seconds, both inclusive. A path length of 0 says that it signs leaves
    only; one that shall sign its successor too has none. Raises Invalid("name") for a common name
    that is empty or over 64 bytes of UTF-8, and Invalid("lifetime") for a period that X.509 cannot
    express.
    """
    _check_serial(serial)
    name = name_of(common_name, field="name")
    public_key = key.public_key()
    try:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public_key)
            .serial_number(serial)
            .not_valid_before(moment(not_before))
            .not_valid_after(moment(not_after))
        )
    except (ValueError, OverflowError, OSError) as error:
        raise Invalid(
            "lifetime", "an authority ends after it begins, and before the year 10000"
        ) from error
    certificate = (
        builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0 if leaves_only else None), critical=True
        )
        .add_extension(_AUTHORITY_KEY_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False
        )
        .sign(key, signature_hash(key))
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def cross_sign(signer: Issuer, subject: Issuer, *, serial: int) -> bytes:
    """Sign the name and key of another authority and return the certificate's PEM.

    Whoever trusts the signer accepts with it what the other signs. It says of itself what the
    other's own certificate says, and is valid while both are. Raises Invalid("lifetime") when that
    is never.
    """
    _check_serial(serial)
    not_before = max(signer.not_before, subject.not_before)
    not_after = min(signer.not_after, subject.not_after)
    if not_after <= not_before:
        raise Invalid(
            "lifetime", "two authorities that are never valid at once cannot sign another"
        )
    certificate = subject.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject.name)
        .issuer_name(signer.name)
        .public_key(subject.key.public_key())
        .serial_number(serial)
        .not_valid_before(moment(not_before))
        .not_valid_after(moment(not_after))
        .add_extension(signer.authority_key_identifier.value, critical=False)
    )
    for kind in (x509.BasicConstraints, x509.KeyUsage, x509.SubjectKeyIdentifier):
        extension = _whole_extension(certificate, kind)
        if extension is not None:
            builder = builder.add_extension(extension.value, critical=extension.critical)
    made = builder.sign(signer.key, signer.signature_hash)
    return made.public_bytes(serialization.Encoding.PEM)


def signs_leaves_only(issuer: Issuer) -> bool:
    """Tell whether verifiers accept no certificate between this one and a leaf.

    OpenSSL does not count an intermediate that bears its own issuer's name (RFC 5280, section
    6.1.4), Go does: only a certificate without a path length is safe with both.
    """
    constraints = _extension(issuer.certificate, x509.BasicConstraints)
    return constraints is None or constraints.path_length is not None


def _check_serial(serial: int) -> None:
    if serial < 1 or serial.bit_length() > _SERIAL_BITS:
        raise Broken("the serial number of an authority is not positive, or too long")


def _check_key(certificates: Sequence[x509.Certificate], key: PrivateKey) -> None:
    public_key = key.public_key()
    try:
        holders = [certificate.public_key() == public_key for certificate in certificates]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid("certificate", "a public key in the bundle is of an unknown kind") from error
    if holders[0]:
        return
    if any(holders):
        raise Invalid(
            "certificate",
            f"the order is wrong: the key belongs to certificate {holders.index(True) + 1} of the "
            "bundle; begin with the certificate that signs, then the one that issued it",
        )
    raise Invalid("key", "the key does not belong to the certificate")


def _check_is_ca(certificate: x509.Certificate) -> None:
    """Refuse what verifiers would refuse as an issuer (RFC 5280, sections 4.2.1.3 and 4.2.1.9)."""
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise Invalid(
            "certificate", "this is no CA certificate: basicConstraints CA:TRUE is absent"
        )
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise Invalid(
            "certificate", "this CA certificate may not sign: its keyUsage lacks keyCertSign"
        )
    if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        raise Invalid("certificate", "RSA keys that are bound to PSS signatures are not accepted")
    # Leaves repeat this name, and verifiers may compare it byte by byte (RFC 5280, 4.1.2.4).
    name = certificate.subject
    if not list(name) or name.public_bytes() not in certificate.tbs_certificate_bytes:
        raise Invalid("certificate", "the CA's subject is empty or encoded in an unusual way")


def _check_chain(certificates: Sequence[x509.Certificate]) -> None:
    if len(set(certificates)) < len(certificates):
        raise Invalid("certificate", "a certificate occurs twice in the bundle")
    for position, (subject, issuer) in enumerate(pairwise(certificates), start=1):
        if not is_issued_by(subject, issuer):
            raise Invalid(
                "certificate",
                f"the chain is broken: certificate {position + 1} of the bundle has not issued "
                f"certificate {position}",
            )


def _authority_key_identifier(
    certificate: x509.Certificate, key: PrivateKey
) -> x509.Extension[x509.ExtensionType]:
    """Name the issuer's key as its certificate does, or by hash where that says nothing."""
    named = _extension(certificate, x509.SubjectKeyIdentifier)
    value = (
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        if named is None
        else x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(named)
    )
    return x509.Extension(value.oid, critical=False, value=value)


def _signature_algorithm(key: PrivateKey) -> bytes:
    digest = signature_hash(key)
    if digest is None:
        return _ED25519
    return (_ECDSA if isinstance(key, ec.EllipticCurvePrivateKey) else _RSA)[digest.name]


def _signer(key: PrivateKey) -> Callable[[bytes], bytes]:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign
    digest = signature_hash(key)
    if isinstance(key, rsa.RSAPrivateKey):
        return partial(key.sign, padding=padding.PKCS1v15(), algorithm=digest)
    return partial(key.sign, signature_algorithm=ec.ECDSA(digest))


def _verifier(key: PrivateKey) -> Callable[[bytes, bytes], None]:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.public_key().verify
    digest = signature_hash(key)
    if isinstance(key, rsa.RSAPrivateKey):
        return partial(key.public_key().verify, padding=padding.PKCS1v15(), algorithm=digest)
    return partial(key.public_key().verify, signature_algorithm=ec.ECDSA(digest))


_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    found = _whole_extension(certificate, kind)
    return None if found is None else found.value


def _whole_extension(
    certificate: x509.Certificate, kind: type[_Extension]
) -> x509.Extension[_Extension] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
