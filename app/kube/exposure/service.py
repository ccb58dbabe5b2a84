"""The Service that every way in has, in the type that it needs, and the addresses in its status."""

from collections.abc import Mapping
from typing import Any

from app.domain.exposure import Address, in_order, read_host, read_port
from app.kube.exposure.plan import (
    DEFAULT_PORT,
    PORT_NAME,
    Plan,
    Wanted,
    metadata,
    part,
    parts,
)
from app.kube.resources import SERVICES, Object

CLUSTER_IP = "ClusterIP"
NODE_PORT = "NodePort"
LOAD_BALANCER = "LoadBalancer"


def service(
    plan: Plan,
    kind: str = CLUSTER_IP,
    *,
    port: int = DEFAULT_PORT,
    facing: bool = False,
    more: Mapping[str, Any] | None = None,
    of_port: Mapping[str, Any] | None = None,
) -> Wanted:
    """Give the Service of this type; `more` is for its spec, `of_port` for its port."""
    body: Object = {
        "metadata": metadata(plan, facing=facing),
        "spec": {
            "type": kind,
            "selector": dict(plan.selector),
            "ports": [
                {
                    "name": PORT_NAME,
                    "protocol": "TCP",
                    "port": port,
                    "targetPort": plan.pod_port,
                    **(of_port or {}),
                }
            ],
            **(more or {}),
        },
    }
    return Wanted(resource=SERVICES, body=body)


def served_port(found: Object | None) -> int | None:
    """Give the port that a Service has for us; somebody may have added others."""
    ports = (one for one in parts(found, "spec", "ports") if one.get("name") == PORT_NAME)
    return read_port(next((one.get("port") for one in ports), None))


def leads_elsewhere(plan: Plan, found: Object | None) -> str:
    """Say so when a Service sends what comes to others than our pods; empty when it does not."""
    ours = any(
        one.get("name") == PORT_NAME and one.get("targetPort") == plan.pod_port
        for one in parts(found, "spec", "ports")
    )
    if ours and part(found, "spec", "selector") == dict(plan.selector):
        return ""
    return "its Service leads to others, as somebody has changed it"


def points_of_ingress(found: Object | None, port: int | None = None) -> tuple[str, ...]:
    """Give the hosts in `status.loadBalancer.ingress`, but those that do not serve `port`."""
    return in_order(
        host
        for point in parts(found, "status", "loadBalancer", "ingress")
        if not _trouble_with(point, port)
        for host in (read_host(point.get("hostname")), read_host(point.get("ip")))
        if host is not None
    )


def trouble_of_ingress(found: Object | None, port: int) -> str:
    """Give the first error that is told of `port`; empty when there is none."""
    points = parts(found, "status", "loadBalancer", "ingress")
    return next(filter(None, (_trouble_with(point, port) for point in points)), "")


def addresses(hosts: tuple[str, ...], port: int) -> tuple[Address, ...]:
    """Put a port to each host."""
    return tuple(Address(host=host, port=port) for host in hosts)


def is_fixed_otherwise(found: Object, wanted: Object) -> bool:
    """Tell whether a Service can become what is wanted only by being made anew.

    The class of a load balancer is for life.
    """
    now, then = found.get("spec") or {}, wanted["spec"]
    if not now.get("type") == then["type"] == LOAD_BALANCER:
        return False
    return bool(now.get("loadBalancerClass") != then.get("loadBalancerClass"))


def _trouble_with(point: Mapping[str, Any], port: int | None) -> str:
    """Give the error of a point of ingress for this port (a reason in CamelCase, by the API)."""
    told = (one for one in parts(point, "ports") if part(one, "port") == port)
    return next((str(one["error"]) for one in told if one.get("error")), "")
