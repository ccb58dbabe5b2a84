"""The ways in, as a table: what is wanted for each, what is seen of it, what it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from app.domain.exposure import Way
from app.kube.exposure import clusterip, gateway, ingress, loadbalancer, nodeport, route, url
from app.kube.exposure.plan import Found, Observed, Plan, Served, Wanted


def _nothing(_: Plan, __: Served) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class WayIn:
    """One way in: pure functions.

    `wanted` gives the objects; `observed` the addresses that are seen in those that are there;
    `lacking` what an API server would have to serve for it, in words, empty if it does.
    """

    wanted: Callable[[Plan, Served], tuple[Wanted, ...]]
    observed: Callable[[Plan, Found], Observed]
    lacking: Callable[[Plan, Served], str] = _nothing


WAYS: Final[Mapping[Way, WayIn]] = MappingProxyType(
    {
        Way.ROUTE: WayIn(route.wanted, route.observed, route.lacking),
        Way.LOAD_BALANCER: WayIn(loadbalancer.wanted, loadbalancer.observed),
        Way.NODE_PORT: WayIn(nodeport.wanted, nodeport.observed),
        Way.INGRESS: WayIn(ingress.wanted, ingress.observed),
        Way.GATEWAY: WayIn(gateway.wanted, gateway.observed, gateway.lacking),
        Way.CLUSTER_IP: WayIn(clusterip.wanted, clusterip.observed),
        Way.URL: WayIn(url.wanted, url.observed),
    }
)


def chosen(way: Way, served: Served) -> Way:
    """Choose where it was left to us: a Route on OpenShift, a load balancer elsewhere."""
    if way is not Way.AUTO:
        return way
    return Way.ROUTE if served.routes else Way.LOAD_BALANCER
