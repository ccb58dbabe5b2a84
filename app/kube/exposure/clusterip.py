"""From within the cluster alone: a Service of type ClusterIP, by the names that its DNS gives."""

from app.domain.exposure import read_host
from app.kube.exposure.plan import (
    DEFAULT_PORT,
    Found,
    Observed,
    Plan,
    Served,
    Wanted,
    part,
    waiting_for,
)
from app.kube.exposure.service import addresses, leads_elsewhere, served_port, service
from app.kube.resources import SERVICES


def wanted(plan: Plan, _: Served) -> tuple[Wanted, ...]:
    """Give the Service."""
    return (service(plan, port=plan.port or DEFAULT_PORT, facing=True),)


def observed(plan: Plan, found: Found) -> Observed:
    """Name it: a Service has its name in the DNS as soon as it is there."""
    there = found.get("Service")
    port = served_port(there)
    if port is None:
        return waiting_for(SERVICES, plan.objects)
    if elsewhere := leads_elsewhere(plan, there):
        return waiting_for(SERVICES, plan.objects, elsewhere)
    name = f"{plan.objects.name}.{plan.objects.namespace}"
    names = [name, f"{name}.svc.cluster.local"]
    several = part(there, "spec", "clusterIPs")  # one of each family
    ips = several if isinstance(several, list) else [part(there, "spec", "clusterIP")]
    names += [ip for ip in map(read_host, ips) if ip not in {None, "none"}]
    host = plan.public_host or f"{name}.svc"
    return Observed(addresses=addresses((host,), port), names=(f"{name}.svc", *names))
