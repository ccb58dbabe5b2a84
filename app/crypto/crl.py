"""Certificate revocation lists (RFC 5280, section 5): written and signed; what is on one is given.

A list is of version 2, whole (no deltas), and names certificates of its own issuer alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from app.crypto.certificates import moment
from app.crypto.issuers import Issuer
from app.errors import Conflict

BACKDATE_SECONDS: Final = 60  # as certificates are: whose clock is a little behind accepts it too


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A certificate on a list: its serial as hexadecimal, since when (UTC seconds), and why.

    `superseded` when another has taken its place; otherwise somebody has withdrawn it.
    """

    serial: str
    at: int
    superseded: bool


def make_list(
    issuer: Issuer, entries: Iterable[Entry], *, number: int, now: int, lifetime_seconds: int
) -> bytes:
    """Sign a list that is replaced in `lifetime_seconds` at the latest, and return its DER.

    `number` never falls from one list of an issuer to its next. Raises Conflict when the issuer
    may sign no such lists: its keyUsage says so, and verifiers would refuse it.
    """
    check_may_sign(issuer)
    # Given as a whole: to add them one by one copies the list each time.
    builder = x509.CertificateRevocationListBuilder(
        revoked_certificates=[_revoked(one) for one in entries]
    )
    return (
        builder.issuer_name(issuer.name)
        .last_update(moment(now - BACKDATE_SECONDS))
        .next_update(moment(now + lifetime_seconds))
        .add_extension(issuer.authority_key_identifier.value, critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
        .sign(issuer.key, issuer.signature_hash)
        .public_bytes(serialization.Encoding.DER)
    )


def check_may_sign(issuer: Issuer) -> None:
    """Raise Conflict unless the issuer may sign revocation lists (RFC 5280, section 4.2.1.3)."""
    try:
        usage = issuer.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.crl_sign:
        raise Conflict(
            f"{issuer.label} may sign no revocation lists: the keyUsage of its certificate lacks "
            "cRLSign"
        )


def to_pem(list_der: bytes) -> bytes:
    """Write a list as PEM (RFC 7468, section 6)."""
    return x509.load_der_x509_crl(list_der).public_bytes(serialization.Encoding.PEM)


_WHY: Final = {
    True: x509.CRLReason(x509.ReasonFlags.superseded),
    False: x509.CRLReason(x509.ReasonFlags.privilege_withdrawn),
}


def _revoked(entry: Entry) -> x509.RevokedCertificate:
    return (
        x509.RevokedCertificateBuilder()
        .serial_number(int(entry.serial, 16))
        .revocation_date(moment(entry.at))
        .add_extension(_WHY[entry.superseded], critical=False)
        .build()
    )
