"""What a look at our own public address can come to, in words that need no network."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What came of dialling our own URL as a client does. The values are metric labels."""

    UNKNOWN = "unknown"
    """Not dialled yet, or there is no address to dial."""

    REACHABLE = "reachable"
    """Our certificate, vouched for by the CA that tokens carry, and an answer of ours."""

    WRONG_CERTIFICATE = "wrong_certificate"
    """Our certificate, but no client takes it at this address and time."""

    TERMINATED = "terminated"
    """Something else than we speaks TLS there: it can read codes and private keys."""

    UNREACHABLE = "unreachable"
    """No certificate and no answer: no address, nobody there, no TLS, or nothing in time."""


class Misfit(StrEnum):
    """Why a client does not take a certificate."""

    NAME = "name"
    TIME = "time"
    TRUST = "trust"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a look came to; `detail` is one sentence for operators.

    `misfit` says why our certificate is wrong, where it is.
    """

    outcome: Outcome
    detail: str
    misfit: Misfit | None = None
