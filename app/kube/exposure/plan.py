"""What is asked for, wanted and seen of a way in: the values that all ways in have in common."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from app.domain.exposure import Address, TrafficPolicy, Way
from app.kube.resources import Key, Object, Resource

MARK: Final = "grantserver/installation"
"""The label by which an installation knows what it has made."""

PORT_NAME: Final = "redemption"
DEFAULT_PORT: Final = 9090
HTTPS_PORT: Final = 443  # of what stands before several servers
_LONGEST_LABEL: Final = 63
_LONGEST_SAID: Final = 200  # characters of what others write into a status
_NONE: Final[Mapping[str, str]] = MappingProxyType({})

Found = Mapping[str, Object]
"""The objects of a way in that are there, by their kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the server is to be reached.

    `objects` is the name of all that is made; `installation` the value of its mark. `selector`
    names the pods, which listen on `pod_port`; `annotations` and `labels` are for the object that
    faces outside. What is empty or 0 is left to the way in.
    """

    way: Way
    objects: Key
    installation: str
    selector: Mapping[str, str]
    deployment: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    class_name: str = ""
    load_balancer_ip: str = ""
    host: str = ""
    domain: str = ""
    port: int = 0
    gateway: Key | None = None
    traffic_policy: TrafficPolicy = TrafficPolicy.LOCAL
    pod_port: int = DEFAULT_PORT

    @property
    def public_host(self) -> str:
        """The host that was asked for; empty where that is left to others."""
        if self.host or not self.domain:
            return self.host
        return f"{self.objects.name}.{self.objects.namespace}.{self.domain}"

    @property
    def selects_ours(self) -> str:
        """The label selector for what this installation has made."""
        return f"{MARK}={self.installation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What of the optional APIs is served: Routes or not, the rest in a version or, empty, not."""

    routes: bool = False
    gateways: str = ""
    tls_routes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An object as it is to be: the fields that are ours, without its owner."""

    resource: Resource
    body: Object = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Where the server is reached, in a stable order; else what it is waiting for.

    `names` are further hosts that lead to it.
    """

    addresses: tuple[Address, ...] = ()
    names: tuple[str, ...] = ()
    waiting: str = ""

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts that the certificate needs, each once."""
        return tuple(dict.fromkeys([*(one.host for one in self.addresses), *self.names]))


def installation(lease: Key) -> str:
    """Name an installation by its Lease, which no other one has, as the value of a label."""
    name = f"{lease.namespace}.{lease.name}"
    if len(name) <= _LONGEST_LABEL:
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:_LONGEST_LABEL]


def metadata(plan: Plan, *, facing: bool, annotations: Mapping[str, str] = _NONE) -> Object:
    """Give the metadata of an object; those that were asked for if it is `facing` outside."""
    notes = {**annotations, **(plan.annotations if facing else {})}
    made: Object = {
        "name": plan.objects.name,
        "namespace": plan.objects.namespace,
        "labels": {
            "app.kubernetes.io/managed-by": "grantserver",
            **(plan.labels if facing else {}),
            MARK: plan.installation,
        },
    }
    return made | ({"annotations": notes} if notes else {})


def waiting_for(resource: Resource, key: Key, why: str = "") -> Observed:
    """Say whose address is being waited for, and why it has none if somebody says so."""
    told, more = f"waiting for an address of {resource.kind} {key}", line_of(why)
    return Observed(waiting=f"{told}: {more}" if more else told)


def part(found: Any, *names: str) -> Any:
    """Give what is below `names`, None where there is nothing: a status may hold anything."""
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def parts(found: Any, *names: str) -> Sequence[Mapping[str, Any]]:
    """Give the objects in the list that is below `names`."""
    listed = part(found, *names)
    listed = listed if isinstance(listed, list) else []
    return [one for one in listed if isinstance(one, Mapping)]


def condition(found: Any, kind: str) -> Mapping[str, Any] | None:
    """Find a condition of this type among those of `found`."""
    return next((one for one in parts(found, "conditions") if one.get("type") == kind), None)


def is_current(one: Mapping[str, Any] | None, found: Any) -> bool:
    """Tell whether a condition is of what an object asks for now, and not of an earlier wish."""
    seen, now = part(one, "observedGeneration"), part(found, "metadata", "generation")
    return not (isinstance(seen, int) and isinstance(now, int) and seen < now)


def said(one: Mapping[str, Any] | None) -> str:
    """Give reason and message of a condition."""
    texts = [str((one or {}).get(name) or "") for name in ("reason", "message")]
    return ": ".join(text for text in texts if text)


def line_of(text: str) -> str:
    """Make one line that is not too long of what somebody has written."""
    line = " ".join(text.split())
    return "".join(char for char in line if char.isprintable())[:_LONGEST_SAID]
