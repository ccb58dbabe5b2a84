"""Which of the APIs that not every cluster has this one serves, and in which version.

That an API server cannot say so at the moment is not taken for a no: OpenShift's Routes come from
a server of their own, which may be away while all else is there.
"""

from typing import Final

from app.errors import Missing
from app.kube.client import Kube
from app.kube.exposure.plan import Served, parts
from app.kube.resources import GATEWAY_API, ROUTES

_TLS_ROUTE_VERSIONS: Final = ("v1", "v1alpha3", "v1alpha2")  # the best first
_GATEWAY_VERSIONS: Final = ("v1", "v1beta1", "v1alpha2")


async def discover(kube: Kube) -> Served:
    """Ask the API server. Raises Unavailable when it does not say."""
    routes = ROUTES.plural in await _kinds(kube, ROUTES.group, ROUTES.version)
    versions = await _versions(kube, GATEWAY_API)
    known = dict.fromkeys((*_TLS_ROUTE_VERSIONS, *_GATEWAY_VERSIONS))
    kinds = {one: await _kinds(kube, GATEWAY_API, one) for one in known if one in versions}

    def best(plural: str, order: tuple[str, ...]) -> str:
        return next((one for one in order if plural in kinds.get(one, ())), "")

    return Served(
        routes=routes,
        gateways=best("gateways", _GATEWAY_VERSIONS),
        tls_routes=best("tlsroutes", _TLS_ROUTE_VERSIONS),
    )


async def _versions(kube: Kube, group: str) -> frozenset[str]:
    try:
        found = await kube.served(group)
    except Missing:
        return frozenset()
    return frozenset(str(one.get("version")) for one in parts(found, "versions"))


async def _kinds(kube: Kube, group: str, version: str) -> frozenset[str]:
    try:
        found = await kube.served(group, version)
    except Missing:
        return frozenset()
    return frozenset(str(one.get("name")) for one in parts(found, "resources"))
