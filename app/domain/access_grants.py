"""AccessGrant resources: what one asks for, and what its status says of what is done already.

Everything in a resource was written by a stranger, its status included: nothing is taken from it
that was not found to be in order. The shapes are those of `skupper.io/v2alpha1`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from app.domain.durations import parse_window
from app.domain.grants import LONGEST_WINDOW, MOST_REDEMPTIONS
from app.domain.names import is_object_name
from app.domain.policies import Policy, read_settings
from app.domain.times import parse_rfc3339
from app.errors import Invalid

DEFAULT_WINDOW_SECONDS: Final = 900
"""What the resource's documentation promises: 15 minutes."""

REVOKED: Final = "Revoked at "
"""How the message of a revoked grant begins; the time follows. A lost database finds it there."""

LONGEST_CODE: Final = 4096  # bytes; a claim's body is bounded by the same
_LONGEST_KEPT_NAME: Final = 63  # of a grant in the database


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an AccessGrant asks for: the spec with its defaults.

    `code` None means one of ours, `issuer` None the issuer of the site, `policy` None that whoever
    has the code may redeem.
    """

    allowed: int
    window_seconds: int
    code: str | None = field(default=None, repr=False)
    issuer: str | None = None
    policy: Policy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the status of an AccessGrant said before, of a grant that somebody else began.

    Times are UTC seconds; what it did not say is None, or 0 redemptions.
    """

    code: str | None = field(default=None, repr=False)
    spent: int = 0
    expires_at: int | None = None
    revoked_at: int | None = None


def read_wanted(spec: Mapping[str, Any]) -> Wanted:
    """Read the spec of an AccessGrant.

    Raises Invalid, whose field is the one of the spec and whose text says what is expected.
    """
    allowed = _given(spec, "redemptionsAllowed", 0)  # 0 means that it was not given
    if type(allowed) is not int or not 0 <= allowed <= MOST_REDEMPTIONS:
        raise Invalid("redemptionsAllowed", f"expected a number from 1 to {MOST_REDEMPTIONS}")
    window = _given(spec, "expirationWindow", "")
    if not isinstance(window, str):
        raise Invalid("expirationWindow", "expected a text such as 15m")
    seconds = parse_window(window, field="expirationWindow") if window else DEFAULT_WINDOW_SECONDS
    if seconds > LONGEST_WINDOW:
        raise Invalid("expirationWindow", "expected a century at most")
    code = _given(spec, "code", "")
    if code != "" and not _is_code(code):
        raise Invalid("code", f"expected a text of at most {LONGEST_CODE} bytes")
    issuer = _given(spec, "issuer", "")
    if issuer != "" and not (isinstance(issuer, str) and is_object_name(issuer)):
        raise Invalid("issuer", "expected the name of a Secret")
    settings = _given(spec, "settings", {})
    if not isinstance(settings, Mapping):
        raise Invalid("settings", "expected names with texts")
    return Wanted(
        allowed=allowed or 1,
        window_seconds=seconds,
        code=code or None,
        issuer=issuer or None,
        policy=read_settings(settings),
    )


def read_told(status: Mapping[str, Any]) -> Told | None:
    """Read from a status what was promised, used and ended before; None when it says none of it.

    What is not in order counts as not said, but for a number of redemptions that is too large.
    """
    code, spent = status.get("code"), status.get("redemptions")
    told = Told(
        code=str(code) if _is_code(code) else None,
        spent=min(max(spent, 0), MOST_REDEMPTIONS) if type(spent) is int else 0,
        expires_at=_moment(status.get("expirationTime")),
        revoked_at=_revoked_at(status.get("conditions")),
    )
    return None if told == Told() else told


def kept_name(name: str) -> str:
    """The name under which the grant of an AccessGrant is kept.

    It is the resource's own, or where that is too long, its beginning and a part of its SHA-256.
    Any text is taken: whoever redeems by name sends what he likes.
    """
    if len(name) <= _LONGEST_KEPT_NAME:
        return name
    digest = sha256(name.encode(errors="surrogatepass")).hexdigest()
    return f"{name[:30].rstrip('.-')}-{digest[:32]}"


def _given(spec: Mapping[str, Any], name: str, nothing: object) -> Any:
    value = spec.get(name)
    return nothing if value is None else value


def _revoked_at(conditions: object) -> int | None:
    for one in conditions if isinstance(conditions, Sequence) else ():
        if isinstance(one, Mapping) and one.get("type") == "Ready":
            message = one.get("message")
            if isinstance(message, str) and message.startswith(REVOKED):
                return _moment(message.removeprefix(REVOKED).partition(";")[0])
    return None


def _moment(written: object) -> int | None:
    return parse_rfc3339(written) if isinstance(written, str) else None


def _is_code(code: object) -> bool:
    if not isinstance(code, str) or not code:
        return False
    try:
        return len(code.encode()) <= LONGEST_CODE
    except UnicodeEncodeError:
        return False
