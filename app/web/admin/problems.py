"""Every error of ours as a problem that a caller may read (RFC 9457)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from app.api.problems import KINDS, MEDIA_TYPE, FieldError, Kind, Problem
from app.errors import (
    Broken,
    Conflict,
    Forbidden,
    GrantServerError,
    Invalid,
    Misconfigured,
    Missing,
    Refused,
    Stale,
    Unauthenticated,
    Unavailable,
    Unready,
)

CHALLENGE: Final = 'Bearer realm="grantserver"'
_RETRY_SECONDS: Final = 5
_NOT_KNOWN: Final = "show an admin token, a client certificate, or the token of an account"
_BROKEN: Final = "it is in the server's log, under the id in X-Request-Id"

TABLE: Final[Mapping[type[GrantServerError], Kind]] = {
    Refused: Kind.CONFLICT,
    Invalid: Kind.INVALID,
    Missing: Kind.MISSING,
    Conflict: Kind.CONFLICT,
    Stale: Kind.STALE,
    Unauthenticated: Kind.UNAUTHENTICATED,
    Forbidden: Kind.FORBIDDEN,
    Unready: Kind.UNAVAILABLE,
    Unavailable: Kind.UNAVAILABLE,
    Misconfigured: Kind.BROKEN,
    Broken: Kind.BROKEN,
}


def kind(error: GrantServerError) -> Kind:
    """Name the kind of problem that an error is."""
    if isinstance(error, Unauthenticated) and error.retry_after is not None:
        return Kind.LIMITED
    return next(TABLE[each] for each in type(error).__mro__ if each in TABLE)


def of(error: GrantServerError) -> Response:
    """Answer an error. What a stranger may not know is not in it."""
    found = kind(error)
    headers: dict[str, str] = {}
    errors: Sequence[FieldError] = ()
    detail = str(error)
    match error:
        case Unauthenticated(retry_after=None):
            headers["WWW-Authenticate"] = CHALLENGE
            detail = _NOT_KNOWN
        case Unauthenticated(retry_after=seconds):
            headers["Retry-After"] = str(seconds)
            detail = "come again later"
        case Invalid(field=field, why=why):
            errors = (FieldError(field=field, why=why),)
        case Unavailable(retry_after=seconds):
            headers["Retry-After"] = str(_RETRY_SECONDS if seconds is None else math.ceil(seconds))
            detail = "the database, or what else is needed, does not serve us: try again"
        case Unready():
            headers["Retry-After"] = str(_RETRY_SECONDS)
        case _ if found is Kind.BROKEN:
            detail = _BROKEN
    return problem(found, detail, errors=errors, headers=headers)


def malformed(errors: Sequence[Any]) -> Response:
    """Answer a request in which pydantic has found errors; what was sent is not shown."""
    found = [
        FieldError(field=_field(each.get("loc", ())), why=str(each.get("msg", "")))
        for each in errors[:_MOST_ERRORS]
    ]
    named = ", ".join(dict.fromkeys(each.field for each in found if each.field))
    return problem(Kind.MALFORMED, f"look at {named or 'the body'}", errors=found)


def problem(
    found: Kind,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Write a problem."""
    about = KINDS[found]
    shape = Problem(
        type=found.type,
        title=about.title,
        status=about.status,
        detail=detail,
        errors=tuple(errors),
    )
    return Response(
        shape.model_dump_json(),
        status_code=about.status,
        headers=dict(headers or {}),
        media_type=MEDIA_TYPE,
    )


_MOST_ERRORS: Final = 20
_PLACES: Final = frozenset({"body", "query", "path", "header"})


def _field(place: Sequence[Any]) -> str:
    """Name the part of a request as its author wrote it, without what is only ours."""
    parts = [str(each)[:100] for each in place]
    if parts and parts[0] in _PLACES:
        parts = parts[1:]
    return ".".join(part if part.isprintable() else "?" for part in parts)
