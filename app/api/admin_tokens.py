"""Admin tokens."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.api.shapes import Cursor, Duration, Name, Shape, Time
from app.domain.callers import MOST_SITES, Verb


class NewAdminToken(Shape):
    """An admin token that is asked for: verbs at sites, `*` is every one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "ci", "verbs": ["read", "create"], "sites": ["west"]}]
        }
    )

    name: Name
    verbs: Annotated[tuple[Verb | Literal["*"], ...], Field(min_length=1, max_length=len(Verb) + 1)]
    sites: Annotated[tuple[Name | Literal["*"], ...], Field(min_length=1, max_length=MOST_SITES)]
    window: Annotated[
        Duration | None, Field(description="How long it is good; left out, until it is revoked.")
    ] = None


class AdminToken(Shape):
    """What is known of an admin token."""

    id: str
    name: str
    verbs: tuple[str, ...]
    sites: tuple[str, ...]
    state: Annotated[str, Field(json_schema_extra={"enum": ["active", "expired", "revoked"]})]
    created_at: Time
    created_by: str
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None
    last_used_from: str | None


class CreatedAdminToken(Shape):
    """A new admin token with its text, which is shown here and never again."""

    admin_token: AdminToken
    secret: Annotated[str, Field(repr=False)]


class AdminTokenPage(Shape):
    """Some admin tokens by name."""

    items: tuple[AdminToken, ...]
    next: Cursor | None
