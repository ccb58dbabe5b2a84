"""Tokens: a grant and the AccessToken that carries its code, made in one."""

from typing import Annotated

from pydantic import ConfigDict, Field

from app.api.grants import Grant, GrantWish
from app.api.shapes import Name, Shape


class NewToken(GrantWish):
    """A token that is asked for."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"site": "west", "window": "1h"}]})

    name: Annotated[Name | None, Field(description="Of its grant; left out, one is made.")] = None


class IssuedToken(Shape):
    """A token, which is shown here and never again, and its grant."""

    grant: Grant
    code: Annotated[str, Field(repr=False)]
    token: Annotated[str, Field(repr=False, description="The AccessToken as YAML.")]
