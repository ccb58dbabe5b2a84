"""The token file as a connecting site reads it: `skupper.io/v2alpha1` AccessToken, in YAML.

Only its shape is judged here; whether its CA and URL can be used is found out on the way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.domain.sites import HIGHEST_COST
from app.domain.yaml_documents import read_all
from app.errors import Invalid

_KIND: Final = "AccessToken"
_GROUP: Final = "skupper.io/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is needed to redeem: `cost` is 0 when the token leaves it to the server.

    `name` is empty when the file has none.
    """

    name: str
    url: str
    code: str = field(repr=False)
    ca_pem: str = field(repr=False)
    cost: int


def read_token(content: bytes) -> Token:
    """Read the first AccessToken of a YAML file; fields that are not known are left alone.

    Raises Invalid("token", …) with one line for every field that is missing or wrong.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise Invalid("token", "it is not a text in UTF-8") from None
    document = _first_token(read_all("token", text, as_text=True))
    problems: list[str] = []
    version = document.get("apiVersion")
    if not isinstance(version, str) or not version.startswith(_GROUP):
        problems.append(f"apiVersion: expected {_GROUP}v2alpha1")
    spec = document.get("spec")
    if not isinstance(spec, Mapping):
        problems.append("spec: it is missing")
        raise Invalid("token", "\n".join(problems))
    url = _text(spec, "url", problems)
    if url and not url.startswith("https://"):
        problems.append("spec.url: expected https://HOST:PORT/ID")
    ca_pem = _text(spec, "ca", problems)
    if ca_pem and "-----BEGIN CERTIFICATE-----" not in ca_pem:
        problems.append("spec.ca: expected one or more certificates in PEM")
    code = _text(spec, "code", problems)
    cost = _cost(spec.get("linkCost", ""), problems)
    metadata = document.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, Mapping) else ""
    if not isinstance(name, str):
        problems.append("metadata.name: expected a text")
    if problems:
        raise Invalid("token", "\n".join(problems))
    return Token(name=name, url=url, code=code, ca_pem=ca_pem, cost=cost)


def _first_token(documents: list[Any]) -> Mapping[str, Any]:
    for document in documents:
        if isinstance(document, Mapping) and document.get("kind") == _KIND:
            return document
    raise Invalid("token", f"there is no {_KIND} in it: expected a file with `kind: {_KIND}`")


def _text(spec: Mapping[str, Any], name: str, problems: list[str]) -> str:
    value = spec.get(name, "")
    if not isinstance(value, str) or not value.strip():
        problems.append(
            f"spec.{name}: it is missing" if not value else f"spec.{name}: expected a text"
        )
        return ""
    return value


def _cost(value: object, problems: list[str]) -> int:
    if value in ("", "null", "~"):
        return 0
    digits = isinstance(value, str) and value.isascii() and value.isdigit()
    if not digits or len(str(value)) > len(str(HIGHEST_COST)) or int(str(value)) > HIGHEST_COST:
        problems.append(f"spec.linkCost: expected a whole number from 0 to {HIGHEST_COST}")
        return 0
    return int(str(value))
