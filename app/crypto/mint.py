"""Client certificates for one link: prepared, signed, inspected, and only then rendered.

A signature is made from a prepared order alone, and what the signer returns is compared with
that order before it may leave. The three steps are pure but for the signature's own
randomness; the caller brings key, random bytes and time. All of it runs once for each
redemption, on the event loop, where every microsecond counts.
"""

import base64
import hashlib
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.crypto import der
from app.crypto.certificates import check_common_name, moment, serial_text
from app.crypto.issuers import Issuer
from app.crypto.keys import KeyPair, PublicKey
from app.crypto.leaves import leaf_extensions, serial_number, shared_extensions, validity
from app.domain.certificates import Minted
from app.errors import Broken

_CLIENT_ONLY: x509.Extension[x509.ExtensionType] = x509.Extension(
    x509.ExtendedKeyUsage.oid,
    critical=False,
    value=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
)
"""Never serverAuth, and never a SAN: whoever redeems a token must not pass for the site itself."""

_PEM_LINE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafOrder:
    """All that a client certificate shall say; made by `prepare`.

    The two times are UTC seconds and both belong to the period of validity. What comes from
    the library is encoded here already.
    """

    common_name: str
    public_key: PublicKey = field(repr=False)
    serial: int
    not_before: int
    not_after: int
    subject_der: bytes = field(repr=False)
    public_key_der: bytes = field(repr=False)
    extensions_der: bytes = field(repr=False)


def prepare(
    issuer: Issuer,
    *,
    common_name: str,
    public_key: PublicKey,
    public_key_der: bytes,
    random: bytes,
    now: int,
    lifetime_seconds: int,
) -> LeafOrder:
    """Decide what the certificate will say.

    `public_key_der` is the SubjectPublicKeyInfo of `public_key`. `random` are 16 bytes for the
    serial number. The certificate begins one minute before `now`, since the clocks of routers
    differ from ours, and never outlives its issuer.

    Raises Unready when the issuer is not valid at `now`, Invalid("lifetime") when
    `lifetime_seconds` is not positive, Invalid("subject") when the common name is empty or over
    64 bytes of UTF-8; callers have shortened it.
    """
    check_common_name(common_name, field="subject")
    not_before, not_after = validity(issuer, now=now, lifetime_seconds=lifetime_seconds)
    shared_der = issuer.inspected.get(type(public_key)) or _shared(issuer, public_key)
    return LeafOrder(
        common_name=common_name,
        public_key=public_key,
        serial=serial_number(random, now),
        not_before=not_before,
        not_after=not_after,
        subject_der=der.name(common_name),
        public_key_der=public_key_der,
        extensions_der=der.extensions(shared_der, der.key_identifier(public_key_der)),
    )


def _shared(issuer: Issuer, public_key: PublicKey) -> bytes:
    return b"".join(map(der.extension, shared_extensions(issuer, public_key, _CLIENT_ONLY)))


def sign(issuer: Issuer, order: LeafOrder) -> bytes:
    """Sign what was ordered; the answer is the certificate's DER."""
    return der.signed_leaf(
        issuer,
        serial=order.serial,
        not_before=order.not_before,
        not_after=order.not_after,
        subject_der=order.subject_der,
        public_key_der=order.public_key_der,
        extensions_der=order.extensions_der,
    )


def inspect(certificate_der: bytes, issuer: Issuer, order: LeafOrder) -> None:
    """Read a finished certificate back whole, compare it with its order, verify its signature.

    Raises Broken naming the first part that differs.
    """
    certificate = x509.load_der_x509_certificate(certificate_der)
    subject = [(part.oid, part.value) for part in certificate.subject]
    extensions = leaf_extensions(issuer, order.public_key, _CLIENT_ONLY)
    _check(
        ("version", certificate.version is x509.Version.v3),
        ("serial number", certificate.serial_number == order.serial),
        ("issuer", certificate.issuer == issuer.name),
        ("subject", subject == [(NameOID.COMMON_NAME, order.common_name)]),
        ("beginning", certificate.not_valid_before_utc == moment(order.not_before)),
        ("end", certificate.not_valid_after_utc == moment(order.not_after)),
        ("public key", certificate.public_key() == order.public_key),
        ("signature algorithm", certificate.signature_hash_algorithm == issuer.signature_hash),
        ("list of extensions", tuple(certificate.extensions) == extensions),
    )
    try:
        issuer.verify(certificate.signature, certificate.tbs_certificate_bytes)
    except InvalidSignature as error:
        raise Broken("the signature of a minted certificate is not its issuer's") from error


def inspect_next(certificate_der: bytes, issuer: Issuer, order: LeafOrder) -> None:
    """Inspect a certificate after another of its kind was inspected whole.

    The library reads it, and what it finds of serial number and validity is compared with the
    order; everything else must stand in it byte by byte, where most of it is what the one before
    had. That costs a tenth of `inspect`, in which verifying the signature alone costs more than
    the minting. Raises Broken naming the first part that differs.
    """
    certificate = x509.load_der_x509_certificate(certificate_der)
    subject_onwards = order.subject_der + order.public_key_der + order.extensions_der
    _check(
        ("serial number", certificate.serial_number == order.serial),
        ("issuer", issuer.signature_algorithm + issuer.name_der in certificate_der),
        ("beginning", certificate.not_valid_before_utc == moment(order.not_before)),
        ("end", certificate.not_valid_after_utc == moment(order.not_after)),
        ("subject, public key or list of extensions", subject_onwards in certificate_der),
    )


def _check(*parts: tuple[str, bool]) -> None:
    for part, as_ordered in parts:
        if not as_ordered:
            raise Broken(f"the {part} of a minted certificate is not what was ordered")


def mint_client(
    issuer: Issuer,
    *,
    key: KeyPair,
    common_name: str,
    random: bytes,
    now: int,
    lifetime_seconds: int,
) -> Minted:
    """Make the client certificate for `key`; see the three steps for the rest and for errors."""
    order = prepare(
        issuer,
        common_name=common_name,
        public_key=key.public_key,
        public_key_der=key.public_der,
        random=random,
        now=now,
        lifetime_seconds=lifetime_seconds,
    )
    certificate_der = sign(issuer, order)
    kind = type(order.public_key)
    if kind in issuer.inspected:
        inspect_next(certificate_der, issuer, order)
    else:
        inspect(certificate_der, issuer, order)
        issuer.inspected[kind] = _shared(issuer, order.public_key)
    return Minted(
        certificate_pem=_pem(certificate_der),
        key_pem=key.private_pem,
        ca_pem=issuer.certificate_pem,
        serial=serial_text(order.serial),
        fingerprint=hashlib.sha256(certificate_der).hexdigest(),
        not_before=order.not_before,
        not_after=order.not_after,
    )


def _pem(certificate_der: bytes) -> bytes:
    """Write PEM in lines of 64 characters (RFC 7468, section 2)."""
    text = base64.b64encode(certificate_der)
    lines = [text[start : start + _PEM_LINE] for start in range(0, len(text), _PEM_LINE)]
    return b"\n".join((b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""))
