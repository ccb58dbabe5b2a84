"""Site resources: which one counts in a namespace, where its routers are, and who signs for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.domain.names import is_object_name
from app.domain.sites import DEFAULT_GROUP, MOST_ENDPOINTS, Endpoint, Role, parse_endpoint
from app.errors import Invalid
from app.kube.resources import Object

DEFAULT_ISSUER: Final = "skupper-site-ca"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a Site says of itself; `issuer` names a Secret of its namespace.

    `endpoints` are those that make sense; there may be more than are given to anybody.
    """

    name: str
    edge: bool
    issuer: str
    endpoints: tuple[Endpoint, ...]

    @property
    def linkable(self) -> tuple[Endpoint, ...]:
        """What Links are made of: nothing where the site cannot be linked to as it is."""
        return () if self.edge or len(self.endpoints) > MOST_ENDPOINTS else self.endpoints


def kept(found: Object) -> Object:
    """Give the parts of a Site that are read here, to be kept by an informer."""
    spec, status = _mapping(found.get("spec")), _mapping(found.get("status"))
    metadata = found["metadata"]
    return {
        "metadata": {
            name: metadata[name]
            for name in ("namespace", "name", "uid", "creationTimestamp", "deletionTimestamp")
            if name in metadata
        },
        "spec": {name: spec[name] for name in ("edge", "defaultIssuer") if name in spec},
        "status": {name: status[name] for name in ("endpoints", "defaultIssuer") if name in status},
    }


def oldest(found: Iterable[Object]) -> Object | None:
    """Choose the Site of a namespace: the oldest that is not being deleted, as Skupper takes it."""
    return min(
        (one for one in found if not one["metadata"].get("deletionTimestamp")),
        key=lambda one: (one["metadata"].get("creationTimestamp", ""), one["metadata"]["name"]),
        default=None,
    )


def active(found: Iterable[Object]) -> Site | None:
    """Read the Site that counts in a namespace."""
    chosen = oldest(found)
    if chosen is None:
        return None
    spec, status = _mapping(chosen.get("spec")), _mapping(chosen.get("status"))
    issuers = (spec.get("defaultIssuer"), status.get("defaultIssuer"))
    return Site(
        name=chosen["metadata"]["name"],
        edge=spec.get("edge") is True,
        issuer=next((str(one) for one in issuers if _is_name(one)), DEFAULT_ISSUER),
        endpoints=tuple(_endpoints(status.get("endpoints"))),
    )


def _endpoints(found: Any) -> Iterable[Endpoint]:
    """Read the endpoints that make sense: others are none of ours, or not finished yet."""
    for one in found if isinstance(found, Sequence) else ():
        if not isinstance(one, Mapping) or one.get("name") not in list(Role):
            continue
        host, group = str(one.get("host") or ""), one.get("group") or DEFAULT_GROUP
        shown = f"[{host}]" if ":" in host else host
        try:
            yield parse_endpoint(f"{one['name']}={shown}:{one.get('port') or ''}", str(group))
        except Invalid:
            continue


def _is_name(name: object) -> bool:
    return isinstance(name, str) and is_object_name(name)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
