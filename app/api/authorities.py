"""Authorities: what of them is public."""

from typing import Annotated

from pydantic import Field

from app.api.shapes import Cursor, Shape, Time
from app.domain.authorities import Purpose, State


class Authority(Shape):
    """A CA that this server keeps, one generation of it; never its key."""

    name: str
    purpose: Purpose
    state: State
    certificate: Annotated[str, Field(description="PEM: the signing certificate, then its chain.")]
    fingerprint: Annotated[str, Field(description="SHA-256 in lower-case hexadecimal.")]
    not_before: Time
    not_after: Time
    imported: bool
    created_at: Time
    origin: Annotated[
        str | None, Field(description="Namespace and name of the Secret that has its key.")
    ]


class AuthorityPage(Shape):
    """Some authorities."""

    items: tuple[Authority, ...]
    next: Cursor | None
