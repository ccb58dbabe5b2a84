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
from app.kube.exposure.service import addresses, service
from app.kube.resources import SERVICES


def wanted(plan: Plan, _: Served) -> tuple[Wanted, ...]:
    """Give the Service."""
    return (service(plan, port=plan.port or DEFAULT_PORT, facing=True),)


def observed(plan: Plan, found: Found) -> Observed:
    """Name it: a Service has its name in the DNS as soon as it is there."""
    there = found.get("Service")
    if there is None:
        return waiting_for(SERVICES, plan.objects)
    name = f"{plan.objects.name}.{plan.objects.namespace}"
    names = [name, f"{name}.svc.cluster.local"]
    ip = read_host(part(there, "spec", "clusterIP"))
    if ip not in {None, "none"}:
        names.append(str(ip))
    host = plan.public_host or f"{name}.svc"
    return Observed(
        addresses=addresses((host,), plan.port or DEFAULT_PORT), names=(f"{name}.svc", *names)
    )
