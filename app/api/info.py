"""What the server says of itself, and of who asks."""

from typing import Annotated

from pydantic import Field

from app.api.shapes import Shape
from app.domain.callers import Kind


class Caller(Shape):
    """Who asks, and what they may; an account's rights are asked about when it wants something."""

    kind: Kind
    name: str
    verbs: tuple[str, ...] | None
    sites: tuple[str, ...] | None


class Reach(Shape):
    """How connecting sites reach the server: null while nobody knows, `waiting` says for what."""

    url: str | None
    ca: Annotated[str | None, Field(description="PEM of the CA that tokens carry.")]
    waiting: str


class Ceilings(Shape):
    """What no grant may exceed; null is no bound."""

    window: str | None
    redemptions: int | None
    lifetime: str | None


class Info(Shape):
    """The server, and the caller as it knows them."""

    version: str
    caller: Caller
    reach: Reach
    ceilings: Ceilings
