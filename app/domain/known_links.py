"""A Link that is there already, as it stands in a cluster or in a file of a system site."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

KIND: Final = "Link"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLink:
    """What is to be told of one; `cost` is what the router takes it for.

    `state`, `remote_site` and `message` are its controller's words, None where there are none;
    `endpoints` read `role=host:port`.
    """

    name: str
    cost: int
    state: str | None
    remote_site: str | None
    message: str | None
    endpoints: tuple[str, ...]


def known_link(resource: Mapping[str, Any]) -> KnownLink:
    """Read a Link resource, however odd it is: people write them too."""
    spec, status = _part(resource, "spec"), _part(resource, "status")
    endpoints = spec.get("endpoints")
    return KnownLink(
        name=str(_part(resource, "metadata").get("name", "")),
        cost=cost_of(resource),
        state=_text(status.get("status")),
        remote_site=_text(status.get("remoteSiteName")),
        message=_text(status.get("message")),
        endpoints=tuple(
            _endpoint(one)
            for one in (endpoints if isinstance(endpoints, list) else [])
            if isinstance(one, dict)
        ),
    )


def cost_of(resource: Mapping[str, Any]) -> int:
    """What a router takes a Link to cost: 1, where that is absent, below 1, or no number."""
    cost = _part(resource, "spec").get("cost")
    return cost if type(cost) is int and cost >= 1 else 1


def _endpoint(endpoint: Mapping[str, Any]) -> str:
    host = str(endpoint.get("host", ""))
    return f"{endpoint.get('name')}={f'[{host}]' if ':' in host else host}:{endpoint.get('port')}"


def _part(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = found.get(name)
    return part if isinstance(part, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
