"""What an answer of the API server that is not a success means in our error tree: a pure table.

A Status is made of words of the server, and those quote what they complain about: a field that is
not valid comes with its value, which may be a code. So nothing but names of fields and reasons,
which come from closed sets, is taken over.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from app.errors import Conflict, GrantServerError, Invalid, Missing, Unavailable

_MOST_FIELDS: Final = 5  # named in one error
_WORD = re.compile(r"[A-Za-z]{1,64}")  # a reason
_FIELD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,128}")  # a path in a document
_TROUBLES: Final = {
    int(HTTPStatus.UNAUTHORIZED): "does not accept our credentials",
    int(HTTPStatus.FORBIDDEN): "forbids it: look at the role that we have",
    int(HTTPStatus.TOO_MANY_REQUESTS): "has too much to do",
}
_MOST_PATIENCE: Final = 3600.0  # seconds of Retry-After that are believed


def refusal(
    status: int,
    body: Mapping[str, Any],
    *,
    doing: str,
    kind: str,
    name: str,
    retry_after: float | None = None,
) -> GrantServerError:
    """Translate an answer that is not a success.

    `doing` says in words what was asked (`list accessgrants.skupper.io`); `kind` and `name` are
    those of the object that was asked for; `body` is the Status, or empty where there was none.
    A version that is not kept any more (410) is Missing like everything else that is not there.
    """
    reason = _word(body.get("reason"))
    match status:
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            return Missing(kind, name)
        case HTTPStatus.CONFLICT:
            return Conflict(f"{doing}: {reason or 'Conflict'}")
        case HTTPStatus.BAD_REQUEST | HTTPStatus.UNPROCESSABLE_ENTITY:
            why = f"the API server does not accept it ({f'{status} {reason}'.rstrip()})"
            return Invalid(", ".join(_fields(body)) or kind, f"{doing}: {why}")
        case HTTPStatus.FORBIDDEN:
            return Unavailable(f"{doing}: the API server {_TROUBLES[status]}", forbidden=True)
        case _:
            what = _TROUBLES.get(status, f"answers {status} {reason}".rstrip())
            return Unavailable(f"{doing}: the API server {what}", retry_after=retry_after)


def patience(header: str | None) -> float | None:
    """Read a `Retry-After`: seconds, a believable number of them; None for anything else."""
    if header is None or not re.fullmatch(r"[0-9]{1,9}", header):
        return None
    return min(float(header), _MOST_PATIENCE)


def _word(found: object) -> str:
    return found if isinstance(found, str) and _WORD.fullmatch(found) else ""


def _fields(body: Mapping[str, Any]) -> list[str]:
    details = body.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    found = [one.get("field") for one in causes or () if isinstance(one, dict)]
    named = [one for one in found if isinstance(one, str) and _FIELD.fullmatch(one)]
    return list(dict.fromkeys(named))[:_MOST_FIELDS]
