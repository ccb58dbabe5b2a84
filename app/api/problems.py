"""Problems: every answer that is not what was asked for (RFC 9457)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE: Final = "application/problem+json"
_URN: Final = "urn:grantserver:problem:"


class Kind(StrEnum):
    """What is wrong, for programs: these words never change."""

    MALFORMED = "malformed"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    MISSING = "missing"
    METHOD = "method_not_allowed"
    CONFLICT = "conflict"
    STALE = "stale"
    TOO_LARGE = "too_large"
    MEDIA_TYPE = "unsupported_media_type"
    INVALID = "invalid"
    LIMITED = "limited"
    BROKEN = "broken"
    UNAVAILABLE = "unavailable"

    @property
    def type(self) -> str:
        """The URI that names the problem."""
        return f"{_URN}{self.value}"


@dataclass(frozen=True, slots=True)
class About:
    """The status of a kind of problem, and its title."""

    status: int
    title: str


KINDS: Final[Mapping[Kind, About]] = {
    Kind.MALFORMED: About(400, "The request is not what the API description says"),
    Kind.UNAUTHENTICATED: About(401, "Nobody knows who asks"),
    Kind.FORBIDDEN: About(403, "This is not allowed"),
    Kind.MISSING: About(404, "There is no such thing"),
    Kind.METHOD: About(405, "This cannot be done with it"),
    Kind.CONFLICT: About(409, "It is in the way of something"),
    Kind.STALE: About(412, "It has changed meanwhile"),
    Kind.TOO_LARGE: About(413, "The body is too large"),
    Kind.MEDIA_TYPE: About(415, "The body has to be application/json"),
    Kind.INVALID: About(422, "A value cannot be used"),
    Kind.LIMITED: About(429, "Too many failed attempts"),
    Kind.BROKEN: About(500, "A fault of the server"),
    Kind.UNAVAILABLE: About(503, "The server cannot do this at the moment"),
}


class FieldError(BaseModel):
    """What is wrong with which part of the request."""

    model_config = ConfigDict(frozen=True)

    field: str
    why: str


class Problem(BaseModel):
    """What was wrong; `type` is for programs, all else for people."""

    model_config = ConfigDict(frozen=True)

    type: Annotated[str, Field(json_schema_extra={"enum": [kind.type for kind in Kind]})]
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()
