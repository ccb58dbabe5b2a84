"""What shapes of the API are made of: a base, and texts with the forms that they must have."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from app.domain.sites import HIGHEST_COST

NAME: Final = r"^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$"
ID: Final = r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
DURATION: Final = r"^(?:[0-9]{1,9}h)?(?:[0-9]{1,9}m)?(?:[0-9]{1,9}s)?$"
CURSOR: Final = r"^[A-Za-z0-9_-]+$"
LONGEST_CURSOR: Final = 1024
LARGEST_PAGE: Final = 500
DEFAULT_PAGE: Final = 100


class Shape(BaseModel):
    """Something that is sent: it never changes, and what it does not know it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


Name = Annotated[
    str,
    Field(
        pattern=NAME,
        min_length=1,
        max_length=63,
        description="Up to 63 lower-case letters, digits and dashes, none at its ends.",
    ),
]
Id = Annotated[str, Field(pattern=ID, min_length=36, max_length=36, description="A UUID.")]
Duration = Annotated[
    str,
    Field(
        pattern=DURATION,
        min_length=2,
        max_length=30,
        description="Hours, minutes and seconds: 15m, 24h, 1h30m.",
    ),
]
Time = Annotated[
    str,
    Field(
        json_schema_extra={"format": "date-time"},
        max_length=40,
        description="RFC 3339, such as 2026-11-23T10:00:00Z.",
    ),
]
Cost = Annotated[int, Field(strict=True, ge=1, le=HIGHEST_COST, description="What the Links cost.")]
Cursor = Annotated[
    str,
    Field(
        pattern=CURSOR,
        min_length=1,
        max_length=LONGEST_CURSOR,
        description="Where the next page begins; it fits the order of the list that it came from.",
    ),
]
Limit = Annotated[int, Field(ge=1, le=LARGEST_PAGE, description="How many there are in a page.")]


class Listing(Shape):
    """How a list is asked for."""

    limit: Limit = DEFAULT_PAGE
    cursor: Cursor | None = None
