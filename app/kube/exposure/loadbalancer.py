"""By a Service of type LoadBalancer: a cloud's, or MetalLB's."""

from typing import Any

from app.kube.exposure.plan import DEFAULT_PORT, Found, Observed, Plan, Served, Wanted, waiting_for
from app.kube.exposure.service import (
    LOAD_BALANCER,
    addresses,
    leads_elsewhere,
    points_of_ingress,
    served_port,
    service,
    trouble_of_ingress,
)
from app.kube.resources import SERVICES


def wanted(plan: Plan, _: Served) -> tuple[Wanted, ...]:
    """Give the Service."""
    more: dict[str, Any] = {"externalTrafficPolicy": plan.traffic_policy.value}
    if plan.class_name:
        more["loadBalancerClass"] = plan.class_name
    if plan.load_balancer_ip:
        more["loadBalancerIP"] = plan.load_balancer_ip
    port = plan.port or DEFAULT_PORT
    return (service(plan, LOAD_BALANCER, port=port, facing=True, more=more),)


def observed(plan: Plan, found: Found) -> Observed:
    """Read what whoever balances has written; a host that was asked for comes before all of it."""
    there = found.get("Service")
    port = served_port(there)
    if port is None:
        return waiting_for(SERVICES, plan.objects, "it has no port for us")
    if elsewhere := leads_elsewhere(plan, there):
        return waiting_for(SERVICES, plan.objects, elsewhere)
    hosts = points_of_ingress(there, port)
    if not hosts:
        return waiting_for(SERVICES, plan.objects, trouble_of_ingress(there, port))
    if plan.public_host:
        return Observed(addresses=addresses((plan.public_host,), port), names=hosts)
    return Observed(addresses=addresses(hosts, port))
