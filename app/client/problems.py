"""What an answer that is not a success means: problems of the API as errors of this program."""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from app.api.problems import MEDIA_TYPE, Kind, Problem
from app.client.connection import Answer
from app.errors import (
    Broken,
    Conflict,
    Forbidden,
    GrantServerError,
    Invalid,
    Missing,
    Stale,
    Unauthenticated,
    Unavailable,
)

_Shape = TypeVar("_Shape", bound=BaseModel)
_KINDS: Final = {kind.type: kind for kind in Kind}
_MISSING: Final = re.compile(r'no ([a-z ]+) "(.*)"', re.DOTALL)
_JSON: Final = "application/json"
_LOST: Final = 502
_LATE: Final = 504
_ONE_TEXT: Final[Mapping[Kind, type[Forbidden | Conflict | Stale | Broken]]] = {
    Kind.FORBIDDEN: Forbidden,
    Kind.CONFLICT: Conflict,
    Kind.STALE: Stale,
    Kind.BROKEN: Broken,
}


def error_of(answer: Answer, where: str) -> GrantServerError:
    """Say what an answer that is no success means.

    A redirect is not followed: whoever it leads to would get the token. What is no problem
    document comes from something that is no admin API.
    """
    if 300 <= answer.status < 400:  # noqa: PLR2004 - as HTTP has it
        return Invalid("server", f"{where} sends us elsewhere: give the address of the admin API")
    problem = _problem(answer)
    if problem is None or problem.type not in _KINDS:
        if _LOST <= answer.status <= _LATE:
            return Unavailable(
                f"{where} cannot serve us (HTTP {answer.status})", retry_after=answer.retry_after
            )
        return no_api(where, f"HTTP {answer.status}")
    return _translated(_KINDS[problem.type], problem, answer.retry_after)


def read(answer: Answer, shape: type[_Shape], where: str) -> _Shape:
    """Read the shape out of a success. Raises Invalid("server", …) when it is another.

    Fields that a later release has added are passed over.
    """
    if answer.media_type != _JSON:
        raise no_api(where, "something else than JSON")
    try:
        return shape.model_validate_json(answer.body, extra="ignore")
    except ValidationError:
        # The error holds what came, secrets among it, so it is not handed on.
        raise no_api(where, f"something that is no {shape.__name__}") from None


def asked(shape: type[_Shape], **fields: Any) -> _Shape:
    """Make a shape to be sent. Raises Invalid naming the first field that cannot be."""
    try:
        return shape(**fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise Invalid(field or "request", first["msg"]) from None


def no_api(where: str, what: str) -> Invalid:
    """Say that somebody answered who does not speak the admin API as this release does."""
    return Invalid(
        "server", f"{where} answers with {what}: it is no admin API, or one of another release"
    )


def _problem(answer: Answer) -> Problem | None:
    if answer.media_type != MEDIA_TYPE:
        return None
    try:
        return Problem.model_validate_json(answer.body)
    except ValidationError:
        return None


def _translated(kind: Kind, problem: Problem, retry_after: int | None) -> GrantServerError:
    detail = problem.detail or problem.title
    if kind in _ONE_TEXT:
        return _ONE_TEXT[kind](detail)
    if kind is Kind.UNAVAILABLE:
        return Unavailable(detail, retry_after=retry_after)
    return _of_caller(kind, problem, detail, retry_after)


def _of_caller(
    kind: Kind, problem: Problem, detail: str, retry_after: int | None
) -> GrantServerError:
    match kind:
        case Kind.UNAUTHENTICATED:
            return Unauthenticated("the server does not know our token, or it is good no more")
        case Kind.LIMITED:
            wait = "" if retry_after is None else f" for {retry_after} s"
            return Unauthenticated(
                f"too many failed attempts came from here: wait{wait}", retry_after=retry_after
            )
        case Kind.MISSING:
            found = _MISSING.fullmatch(detail)
            return Missing(found[1], found[2]) if found else Missing("such thing", detail)
    if not problem.errors:
        return Invalid("request", detail)
    first, *others = problem.errors
    why = [first.why, *(f"{each.field}: {each.why}" for each in others)]
    return Invalid(first.field or "request", "\n".join(why))
