"""By a port on every node: a Service of type NodePort; the nodes' address is a setting."""

from app.domain.exposure import read_port
from app.kube.exposure.plan import (
    PORT_NAME,
    Found,
    Observed,
    Plan,
    Served,
    Wanted,
    parts,
    waiting_for,
)
from app.kube.exposure.service import NODE_PORT, addresses, leads_elsewhere, service
from app.kube.resources import SERVICES


def wanted(plan: Plan, _: Served) -> tuple[Wanted, ...]:
    """Give the Service."""
    of_port = {"nodePort": plan.port} if plan.port else {}
    more = {"externalTrafficPolicy": plan.traffic_policy.value}
    return (service(plan, NODE_PORT, facing=True, more=more, of_port=of_port),)


def observed(plan: Plan, found: Found) -> Observed:
    """Read which port the API server has given it."""
    ports = [
        read_port(one.get("nodePort"))
        for one in parts(found.get("Service"), "spec", "ports")
        if one.get("name") == PORT_NAME  # somebody may have added others
    ]
    port = ports[0] if ports else None
    if port is None:
        return waiting_for(SERVICES, plan.objects)
    if elsewhere := leads_elsewhere(plan, found.get("Service")):
        return waiting_for(SERVICES, plan.objects, elsewhere)
    if not plan.public_host:
        return waiting_for(SERVICES, plan.objects, "GRANTSERVER_EXPOSURE_HOST is not set")
    return Observed(addresses=addresses((plan.public_host,), port))
