"""Client certificates for one link: prepared, signed, inspected, and only then rendered.

A signature is made from a prepared order alone, and what the signer returns is compared with
that order before it may leave. The three steps are pure but for the signature's own
randomness; the caller brings key, random bytes and time. All of it runs once for each
redemption, on the event loop: see the remarks on what is built beforehand.
"""

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.crypto.certificates import check_common_name, seconds, serial_text
from app.crypto.der import signed_leaf
from app.crypto.issuers import Issuer
from app.crypto.keys import PrivateKey, PublicKey, to_pem
from app.crypto.leaves import leaf_extensions, serial_number, validity
from app.domain.certificates import Minted
from app.errors import Broken

_CLIENT_ONLY: x509.Extension[x509.ExtensionType] = x509.Extension(
    x509.ExtendedKeyUsage.oid,
    critical=False,
    value=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
)
"""Never serverAuth, and never a SAN: whoever redeems a token must not pass for the site itself."""

_SHA256 = hashes.SHA256()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafOrder:
    """All that a client certificate shall say; made by `prepare`.

    The two times are UTC seconds and both belong to the period of validity.
    """

    common_name: str
    public_key: PublicKey = field(repr=False)
    serial: int
    not_before: int
    not_after: int
    extensions: tuple[x509.Extension[x509.ExtensionType], ...] = field(repr=False)


def prepare(
    issuer: Issuer,
    *,
    common_name: str,
    public_key: PublicKey,
    random: bytes,
    now: int,
    lifetime_seconds: int,
) -> LeafOrder:
    """Decide what the certificate will say.

    `random` are 16 bytes for the serial number. The certificate begins one minute before
    `now`, since the clocks of routers differ from ours, and never outlives its issuer.

    Raises Unready when the issuer is not valid at `now`, Invalid("lifetime") when
    `lifetime_seconds` is not positive.
    """
    not_before, not_after = validity(issuer, now=now, lifetime_seconds=lifetime_seconds)
    return LeafOrder(
        common_name=common_name,
        public_key=public_key,
        serial=serial_number(random),
        not_before=not_before,
        not_after=not_after,
        extensions=leaf_extensions(issuer, public_key, _CLIENT_ONLY),
    )


def sign(issuer: Issuer, order: LeafOrder) -> x509.Certificate:
    """Sign what was ordered.

    Raises Invalid("subject") when the common name is empty or over 64 bytes of UTF-8; callers
    have shortened it.
    """
    check_common_name(order.common_name, field="subject")
    return x509.load_der_x509_certificate(
        signed_leaf(
            issuer,
            common_name=order.common_name,
            public_key=order.public_key,
            serial=order.serial,
            not_before=order.not_before,
            not_after=order.not_after,
            extensions=order.extensions,
        )
    )


def inspect(certificate: x509.Certificate, issuer: Issuer, order: LeafOrder) -> None:
    """Read a finished certificate back with the library, and compare it with its order.

    Raises Broken naming the first part that differs. Its signature is not verified here: that
    would cost more than all of the minting, and whether the issuer's signatures verify was
    found out when the issuer was loaded.
    """
    subject = [(part.oid, part.value) for part in certificate.subject]
    parts = (
        ("version", certificate.version is x509.Version.v3),
        ("serial number", certificate.serial_number == order.serial),
        ("issuer", certificate.issuer == issuer.name),
        ("subject", subject == [(NameOID.COMMON_NAME, order.common_name)]),
        ("beginning", seconds(certificate.not_valid_before_utc) == order.not_before),
        ("end", seconds(certificate.not_valid_after_utc) == order.not_after),
        ("public key", certificate.public_key() == order.public_key),
        ("signature algorithm", certificate.signature_hash_algorithm == issuer.signature_hash),
        ("list of extensions", tuple(certificate.extensions) == order.extensions),
    )
    for part, as_ordered in parts:
        if not as_ordered:
            raise Broken(f"the {part} of a minted certificate is not what was ordered")


def mint_client(
    issuer: Issuer,
    *,
    key: PrivateKey,
    common_name: str,
    random: bytes,
    now: int,
    lifetime_seconds: int,
) -> Minted:
    """Make the client certificate for `key`; arguments and errors are those of the three steps."""
    order = prepare(
        issuer,
        common_name=common_name,
        public_key=key.public_key(),
        random=random,
        now=now,
        lifetime_seconds=lifetime_seconds,
    )
    certificate = sign(issuer, order)
    inspect(certificate, issuer, order)
    return Minted(
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM),
        key_pem=to_pem(key),
        ca_pem=issuer.certificate_pem,
        serial=serial_text(order.serial),
        fingerprint=certificate.fingerprint(_SHA256).hex(),
        not_before=order.not_before,
        not_after=order.not_after,
    )
