"""The one error tree; it knows no HTTP words and no Kubernetes words.

    GrantServerError
    ├── Refused(reason)         the answer is no; the same request will not fare better
    ├── Invalid(field, why)     an input is wrong; mend the field and come back
    ├── Missing(kind, name)     there is no such thing
    ├── Conflict(what)          it exists already, or something still depends on it
    ├── Stale(what)             it has changed since the caller looked at it
    ├── Unauthenticated(what)   nobody knows who asks
    ├── Forbidden(what)         who asks is known, and may not
    ├── Unready(lack, what)     the same request may succeed once the operator has acted
    ├── Unavailable(what)       the database, the disk or the network is away
    ├── Misconfigured(problems) the program cannot start with these settings
    └── Broken(what)            an invariant of ours failed: a bug

`str(error)` is the operator's text. What a stranger may read is decided by each edge
(the wire, the command line) in one total table of its own.
"""

from collections.abc import Sequence
from enum import StrEnum


class Reason(StrEnum):
    """Why a claim is refused. The values are metric labels and audit outcomes: append only."""

    METHOD = "method"
    BODY = "body"
    NAME = "name"
    SUBJECT = "subject"
    UNKNOWN_GRANT = "unknown_grant"
    WRONG_CODE = "wrong_code"
    REVOKED = "revoked"
    EXPIRED = "expired"
    USED_UP = "used_up"
    RATE_LIMITED = "rate_limited"
    RENEWAL = "renewal"
    CSR = "csr"
    CERTIFICATE_ENDED = "certificate_ended"
    CERTIFICATE_REVOKED = "certificate_revoked"
    CERTIFICATE_SUPERSEDED = "certificate_superseded"
    UNKNOWN_AUTHORITY = "unknown_authority"
    RENEWED_TOO_OFTEN = "renewed_too_often"
    POLICY = "policy"


class Lack(StrEnum):
    """What a listening site still lacks before it can be linked to."""

    ENDPOINTS = "no_endpoints"
    ISSUER = "no_issuer"


class GrantServerError(Exception):
    """Base of every error that we raise on purpose; never raised itself."""


class Refused(GrantServerError):
    """A claim is turned down, for one of a closed set of reasons.

    `retry_after` are the seconds after which it would be looked at, where it came too early.
    """

    def __init__(self, reason: Reason, detail: str = "", *, retry_after: int | None = None) -> None:
        self.reason = reason
        self.retry_after = retry_after
        super().__init__(detail or reason.value.replace("_", " "))


class Invalid(GrantServerError):
    """An input is wrong: `field` names it, `why` says what is allowed."""

    def __init__(self, field: str, why: str) -> None:
        self.field = field
        self.why = why
        super().__init__(f"{field}: {why}")


class Missing(GrantServerError):
    """A named thing does not exist."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        super().__init__(f'no {kind} "{name}"')


class Conflict(GrantServerError):
    """What is asked for exists already, or is still in use."""


class Stale(GrantServerError):
    """A change was asked for of something as it is no more: look again, and decide anew."""


class Unauthenticated(GrantServerError):
    """Who asks has shown nothing that we know, or nothing that is still good.

    `retry_after` are the seconds after which anything would be looked at, where too much of that
    came from the same address.
    """

    def __init__(self, what: str, *, retry_after: int | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(what)


class Forbidden(GrantServerError):
    """Who asks is known, and has no right to what is asked for."""


class Unready(GrantServerError):
    """A redemption cannot succeed yet; nothing was used up by asking."""

    def __init__(self, lack: Lack, what: str) -> None:
        self.lack = lack
        super().__init__(what)


class Unavailable(GrantServerError):
    """Something we depend on (database, disk, network) did not serve us; a retry may help.

    `retry_after` are the seconds that it asked us to wait, where it did. It is `forbidden` when it
    is there and does not let us: a retry helps once somebody has seen to that.
    """

    def __init__(
        self, what: str, *, retry_after: float | None = None, forbidden: bool = False
    ) -> None:
        self.retry_after = retry_after
        self.forbidden = forbidden
        super().__init__(what)


class Misconfigured(GrantServerError):
    """The settings cannot be used; `problems` holds one sentence for each mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Broken(GrantServerError):
    """One of our own invariants does not hold; the caller can do nothing about it."""
