"""Listening sites."""

from typing import Annotated

from pydantic import ConfigDict, Field

from app.api.shapes import Cursor, Name, Shape, Time
from app.domain.sites import DEFAULT_GROUP, HIGHEST_PORT, MOST_ENDPOINTS, Role

HOST = r"^[A-Za-z0-9_:](?:[-A-Za-z0-9_.:]*[A-Za-z0-9_:])?$"


class Endpoint(Shape):
    """Where a router of a site is reached; an IPv6 address has no brackets."""

    role: Role
    host: Annotated[str, Field(pattern=HOST, min_length=1, max_length=253)]
    port: Annotated[int, Field(strict=True, ge=1, le=HIGHEST_PORT)]
    group: Annotated[Name, Field(description="Which router, where a site has several.")] = (
        DEFAULT_GROUP
    )


class SiteWish(Shape):
    """What a site shall be like."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "endpoints": [
                        {"role": "inter-router", "host": "west.example.com", "port": 55671},
                        {"role": "edge", "host": "west.example.com", "port": 45671},
                    ]
                }
            ]
        }
    )

    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=MOST_ENDPOINTS)]
    issuer: Annotated[
        Name | None, Field(description="Its authority; left out, it stays, or is the default one.")
    ] = None


class Site(Shape):
    """A site as it stands; `origin` is "kubernetes" where it stands for a namespace."""

    name: str
    issuer: str
    endpoints: tuple[Endpoint, ...]
    created_at: Time
    origin: str | None


class SitePage(Shape):
    """Some sites by name."""

    items: tuple[Site, ...]
    next: Cursor | None
