"""Certificate authorities that we keep, and the certificate of our own HTTPS listener."""

from dataclasses import dataclass, field
from enum import StrEnum


class Purpose(StrEnum):
    """What an authority signs: link certificates of sites, or our own HTTPS certificate."""

    SITE = "site"
    SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A CA that we keep; `certificate_pem` begins with the signing certificate, then its chain.

    `sealed_key` is opened with the key file only; times are UTC seconds; `fingerprint` is the
    SHA-256 of the signing certificate in lower-case hexadecimal. `origin` is the Secret that one
    comes from whose key a Kubernetes cluster keeps, as `namespace/name`: without it, the authority
    has no key; its `fingerprint` is the SHA-256 of all of its PEM.
    """

    id: int
    name: str
    purpose: Purpose
    certificate_pem: str = field(repr=False)
    sealed_key: bytes = field(repr=False)
    fingerprint: str
    not_before: int
    not_after: int
    imported: bool
    created_at: int
    origin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """The certificate of the HTTPS listener, signed by our server authority."""

    certificate_pem: str = field(repr=False)
    sealed_key: bytes = field(repr=False)
    fingerprint: str
    not_after: int
    created_at: int
