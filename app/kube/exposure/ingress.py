"""By an ingress controller that passes TLS through: nginx unless the class says otherwise.

An Ingress has no word for passing through, so annotations say it; others than nginx's have to be
among those that were asked for.
"""

from typing import Final

from app.domain.exposure import Address, read_host
from app.kube.exposure.plan import (
    HTTPS_PORT,
    PORT_NAME,
    Found,
    Observed,
    Plan,
    Served,
    Wanted,
    metadata,
    part,
    parts,
    waiting_for,
)
from app.kube.exposure.service import leads_elsewhere, points_of_ingress, service
from app.kube.resources import INGRESSES

_CLASS: Final = "nginx"
_PASS_THROUGH: Final = {
    "nginx.ingress.kubernetes.io/ssl-passthrough": "true",
    "nginx.ingress.kubernetes.io/ssl-redirect": "true",
    # Where passing through is not enabled in the controller, it must not speak plain HTTP to us.
    "nginx.ingress.kubernetes.io/backend-protocol": "HTTPS",
}


def wanted(plan: Plan, _: Served) -> tuple[Wanted, ...]:
    """Give Service and Ingress; its host is what the controller knows us by."""
    backend = {"service": {"name": plan.objects.name, "port": {"name": PORT_NAME}}}
    body = {
        "metadata": metadata(plan, facing=True, annotations=_PASS_THROUGH),
        "spec": {
            "ingressClassName": plan.class_name or _CLASS,
            "rules": [
                {
                    "host": plan.public_host,
                    "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
                }
            ],
        },
    }
    return service(plan), Wanted(resource=INGRESSES, body=body)


def observed(plan: Plan, found: Found) -> Observed:
    """See whether a controller has taken it: then it is reached by the host that it asked for."""
    there = found.get("Ingress")
    rules = parts(there, "spec", "rules")
    rule = next((one for one in rules if one.get("host")), None)
    host = read_host(part(rule, "host"))
    if host is None or not points_of_ingress(there):
        return waiting_for(INGRESSES, plan.objects)
    elsewhere = leads_elsewhere(plan, found.get("Service"))
    backends = [part(one, "backend", "service", "name") for one in parts(rule, "http", "paths")]
    if elsewhere or set(backends) != {plan.objects.name}:
        return waiting_for(INGRESSES, plan.objects, elsewhere or "it leads to another Service")
    told = part(there, "metadata", "annotations")
    notes = told if isinstance(told, dict) else {}
    asked = {**_PASS_THROUGH, **plan.annotations}
    if any(notes.get(name) != asked[name] for name in _PASS_THROUGH):
        return waiting_for(
            INGRESSES, plan.objects, "somebody has changed how it passes TLS through"
        )
    return Observed(addresses=(Address(host=host, port=plan.port or HTTPS_PORT),))
