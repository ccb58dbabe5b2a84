"""The story of a grant: what happened to it, and what a next claim would get."""

from typing import Annotated

from pydantic import Field

from app.api.shapes import Shape, Time
from app.domain.stories import DEFAULT_MOMENTS, MOST_MOMENTS


class Moment(Shape):
    """One thing that happened; what is not known of it is empty."""

    at: Time
    act: Annotated[str, Field(description="As the audit log calls it.")]
    what: Annotated[str, Field(description="The same in words.")]
    who: str
    peer: Annotated[str, Field(description="The address that it came from.")]
    serial: Annotated[str, Field(description="Of the certificate that was given.")]
    times: Annotated[int, Field(description="How often, where it is counted and not told alone.")]


class Obstruction(Shape):
    """Why a claim would be refused now."""

    reason: str
    text: str


class Standing(Shape):
    """How a grant stands, and what a claim with the right code would get now."""

    state: str
    redemptions: int
    redeemed: int
    left: int
    begins_at: Time
    expires_at: Time
    revoked_at: Time | None
    wrong_codes: int
    next_claim: str
    obstructions: tuple[Obstruction, ...]
    conditions: tuple[str, ...]


class Timeline(Shape):
    """What happened to a grant, the oldest first; `left_out` is how much before that."""

    id: str
    name: str
    site: str
    moments: tuple[Moment, ...]
    left_out: int
    standing: Standing


class TimelineListing(Shape):
    """How much of a story is asked for."""

    limit: Annotated[int, Field(ge=1, le=MOST_MOMENTS, description="Of the newest moments.")] = (
        DEFAULT_MOMENTS
    )
