"""The audit log."""

from typing import Annotated

from pydantic import Field

from app.api.grants import PLAIN
from app.api.shapes import Cursor, Limit, Shape, Time


class Entry(Shape):
    """Who did what to which thing, when, and what came of it."""

    id: int
    at: Time
    act: str
    actor: str
    target: str
    details: dict[str, str | int | None]


class EntryPage(Shape):
    """Some entries, the newest ones first."""

    items: tuple[Entry, ...]
    next: Cursor | None


class EntryListing(Shape):
    """Which entries are asked for: those for which all that is given holds."""

    target: Annotated[str | None, Field(pattern=PLAIN, max_length=300)] = None
    act: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z_]+(?:\.[a-z_]+)?$",
            max_length=40,
            description="A whole act (grant.redeemed), or its noun (grant).",
        ),
    ] = None
    actor: Annotated[
        str | None,
        Field(
            pattern=PLAIN,
            max_length=300,
            description="A whole actor, or all of a kind, with a colon at the end (cli:).",
        ),
    ] = None
    since: Time | None = None
    until: Time | None = None
    limit: Limit = 100
    cursor: Cursor | None = None
