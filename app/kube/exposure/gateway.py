"""By the Gateway API: a TLSRoute, on a Gateway of somebody else's or on one of our own."""

from typing import Any, Final

from app.domain.exposure import Address, read_host, read_port
from app.kube.exposure.plan import (
    DEFAULT_PORT,
    PORT_NAME,
    Found,
    Observed,
    Plan,
    Served,
    Wanted,
    condition,
    is_current,
    metadata,
    part,
    parts,
    said,
    waiting_for,
)
from app.kube.exposure.service import leads_elsewhere, service
from app.kube.resources import GATEWAY_API, Key, Object, gateways, tls_routes

_LISTENER_PORT: Final = 8443
_MODE: Final = "Passthrough"


def lacking(plan: Plan, served: Served) -> str:
    """Say what the API server does not serve."""
    if not served.tls_routes:
        return f"the API server serves no TLSRoutes ({GATEWAY_API})"
    if not served.gateways and plan.gateway is None:
        return f"the API server serves no Gateways ({GATEWAY_API})"
    return ""


def wanted(plan: Plan, served: Served) -> tuple[Wanted, ...]:
    """Give Service, TLSRoute, and the Gateway where there is none to attach it to."""
    made = [service(plan)]
    parent: Object = {"group": GATEWAY_API, "kind": "Gateway", "name": _parent(plan).name}
    if plan.gateway is None:
        parent["sectionName"] = PORT_NAME
        made.append(Wanted(resource=gateways(served.gateways), body=_own_gateway(plan)))
    elif plan.gateway.namespace != plan.objects.namespace:
        parent["namespace"] = plan.gateway.namespace
    backend = {"group": "", "kind": "Service", "name": plan.objects.name, "port": DEFAULT_PORT}
    route = {
        "metadata": metadata(plan, facing=True),
        "spec": {
            "parentRefs": [parent],
            "hostnames": [plan.public_host],
            "rules": [{"backendRefs": [backend | {"weight": 1}]}],
        },
    }
    return (*made, Wanted(resource=tls_routes(served.tls_routes), body=route))


def observed(plan: Plan, found: Found) -> Observed:
    """See whether the Gateway works, and has taken the route."""
    port = plan.port or _LISTENER_PORT  # of a Gateway of somebody else's, which is not looked at
    if plan.gateway is None:
        there = found.get("Gateway")
        programmed = condition(part(there, "status"), "Programmed")
        works = part(programmed, "status") == "True" and is_current(programmed, there)
        if not works or not parts(there, "status", "addresses"):
            why = "" if works else said(programmed)
            return waiting_for(gateways(""), plan.objects, why)
        listener = next(
            (one for one in parts(there, "spec", "listeners") if one.get("name") == PORT_NAME), None
        )
        served = read_port(part(listener, "port"))
        if served is None or part(listener, "tls", "mode") != _MODE:
            return waiting_for(gateways(""), plan.objects, "it does not pass TLS through")
        port = served
    route, refused = found.get("TLSRoute"), ""
    hosts = part(route, "spec", "hostnames")
    host = next(map(read_host, hosts if isinstance(hosts, list) else []), None)
    elsewhere = leads_elsewhere(plan, found.get("Service"))
    backends = [
        part(backend, "name")
        for rule in parts(route, "spec", "rules")
        for backend in parts(rule, "backendRefs")
    ]
    if route is not None and (elsewhere or set(backends) != {plan.objects.name}):
        why = elsewhere or "it leads to another Service"
        return waiting_for(tls_routes(""), plan.objects, why)
    for parent in parts(route, "status", "parents") if host is not None else ():
        if not _is(parent.get("parentRef"), _parent(plan), plan.objects.namespace):
            continue
        accepted, resolved = condition(parent, "Accepted"), condition(parent, "ResolvedRefs")
        if not is_current(accepted, route):
            continue
        if part(accepted, "status") == "True" and part(resolved, "status") != "False":
            return Observed(addresses=(Address(host=str(host), port=port),))
        refused = refused or said(resolved if part(accepted, "status") == "True" else accepted)
    return waiting_for(tls_routes(""), plan.objects, refused)


def _own_gateway(plan: Plan) -> Object:
    return {
        "metadata": metadata(plan, facing=True),
        "spec": {
            "gatewayClassName": plan.class_name,
            "listeners": [
                {
                    "name": PORT_NAME,
                    "protocol": "TLS",
                    "port": plan.port or _LISTENER_PORT,
                    "hostname": plan.public_host,
                    "tls": {"mode": _MODE},
                    "allowedRoutes": {"namespaces": {"from": "Same"}},
                }
            ],
        },
    }


def _parent(plan: Plan) -> Key:
    return plan.objects if plan.gateway is None else plan.gateway


def _is(reference: Any, gateway: Key, namespace: str) -> bool:
    """Tell whether it refers to this Gateway, from an object in `namespace`."""
    name, place = part(reference, "name"), part(reference, "namespace")
    return Key(place or namespace, str(name)) == gateway
