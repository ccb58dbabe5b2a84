"""The Deployment that all that we make belongs to, and is removed with."""

from app.errors import Missing
from app.kube.client import Kube
from app.kube.resources import DEPLOYMENTS, Key, Object


async def owner(kube: Kube, beside: Key, deployment: str) -> Object | None:
    """Find the Deployment in the namespace of an object; None: it belongs to nobody.

    Raises Unavailable.
    """
    if not deployment:
        return None
    try:
        return await kube.get(DEPLOYMENTS, deployment, beside.namespace)
    except Missing:
        return None
