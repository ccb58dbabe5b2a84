"""Entity tags: what a representation was when somebody looked at it (RFC 9110, section 8.8.3).

They are strong: the hash of the whole representation. Whoever changes something and says what it
was like (`If-Match`) is refused when it is otherwise by now.
"""

import hashlib
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Header, Response
from pydantic import BaseModel

from app.errors import Stale

T = TypeVar("T")

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=1000,
        description="Do it only if the entity tag is one of these; * is any.",
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(
        alias="If-None-Match",
        max_length=1000,
        description="Answer only if the entity tag is none of these; * is any.",
    ),
]


def tag(shape: BaseModel) -> str:
    """The entity tag of a representation."""
    digest = hashlib.sha256(shape.model_dump_json().encode()).hexdigest()
    return f'"{digest[:32]}"'


def matches(header: str, current: str) -> bool:
    """Tell whether a list of entity tags has this one; `*` is any."""
    listed = [one.strip() for one in header.split(",")]
    return header.strip() == "*" or current in listed


def guard(if_match: str | None, shape: Callable[[T], BaseModel]) -> Callable[[T], None]:
    """Make what raises Stale unless a thing is still as `if_match` says."""

    def check(thing: T) -> None:
        if if_match is not None and not matches(if_match, tag(shape(thing))):
            raise Stale("it is not what it was when it was looked at: look again")

    return check


def answer(shape: BaseModel, response: Response, if_none_match: str | None = None) -> bool:
    """Put the entity tag into an answer; tells whether the asker has that representation."""
    current = tag(shape)
    response.headers["ETag"] = current
    if if_none_match is None:
        return False
    weak = ",".join(one.strip().removeprefix("W/") for one in if_none_match.split(","))
    return matches(weak, current)
