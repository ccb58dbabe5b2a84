"""What a certificate of ours is, in words that need no cryptographic library."""

from dataclasses import dataclass, field
from enum import StrEnum


class KeyType(StrEnum):
    """The kinds of private key that we make. P-256 is 1,000 times cheaper than RSA to generate."""

    P256 = "p256"
    RSA_2048 = "rsa-2048"
    ED25519 = "ed25519"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a Secret holds: a client certificate, its key, and the certificate of its issuer.

    `ca_pem` is that certificate as it was given to us, possibly with others of its chain. `key_pem`
    is empty where the key was made by its owner, who has shown it to nobody.
    """

    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    ca_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted(Credentials):
    """Fresh credentials, and the facts that the ledger keeps of their certificate.

    `serial` and `fingerprint` (SHA-256 of the DER) are lower-case hexadecimal without
    separators; the two times are UTC seconds.
    """

    serial: str
    fingerprint: str
    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What a person wants to know of a certificate: names and fingerprint as hex, UTC seconds."""

    subject: str
    issuer: str
    serial: str
    fingerprint: str
    not_before: int
    not_after: int
    key: str
    hosts: tuple[str, ...]
