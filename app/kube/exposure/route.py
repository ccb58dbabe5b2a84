"""By OpenShift's router: a Route that passes TLS through, to a Service of type ClusterIP."""

from typing import Final

from app.domain.exposure import Address, in_order, read_host
from app.kube.exposure.plan import (
    HTTPS_PORT,
    PORT_NAME,
    Found,
    Observed,
    Plan,
    Served,
    Wanted,
    condition,
    metadata,
    part,
    parts,
    said,
    waiting_for,
)
from app.kube.exposure.service import leads_elsewhere, service
from app.kube.resources import ROUTES, Object

_TERMINATION: Final = "passthrough"


def lacking(_: Plan, served: Served) -> str:
    """Say what the API server does not serve."""
    return "" if served.routes else "the API server serves no Routes: this is not OpenShift"


def wanted(plan: Plan, _: Served) -> tuple[Wanted, ...]:
    """Give Service and Route; without a host the router gives it one."""
    spec: Object = {
        "to": {"kind": "Service", "name": plan.objects.name, "weight": 100},
        "port": {"targetPort": PORT_NAME},
        "tls": {"termination": _TERMINATION, "insecureEdgeTerminationPolicy": "None"},
        "wildcardPolicy": "None",
    }
    if plan.public_host:
        spec["host"] = plan.public_host
    body = {"metadata": metadata(plan, facing=True), "spec": spec}
    return service(plan), Wanted(resource=ROUTES, body=body)


def observed(plan: Plan, found: Found) -> Observed:
    """Read which routers have admitted it, and by which host; each of them may have its own."""
    there = found.get("Route")
    if part(there, "spec", "tls", "termination") != _TERMINATION:
        return waiting_for(ROUTES, plan.objects, "it does not pass TLS through")
    elsewhere = leads_elsewhere(plan, found.get("Service"))
    if elsewhere or part(there, "spec", "to", "name") != plan.objects.name:
        return waiting_for(ROUTES, plan.objects, elsewhere or "it leads to another Service")
    admitted, refused = [], ""
    for router in parts(there, "status", "ingress"):
        told, host = condition(router, "Admitted"), read_host(router.get("host"))
        if told is not None and told.get("status") == "True" and host is not None:
            admitted.append(host)
        else:
            refused = refused or said(told)
    if not admitted:
        return waiting_for(ROUTES, plan.objects, refused)
    port = plan.port or HTTPS_PORT
    return Observed(addresses=tuple(Address(host=host, port=port) for host in in_order(admitted)))
