"""The Kubernetes cluster that a command of the connecting side works on, where it is told to."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from app.cli.opening import settings
from app.domain.names import check_name
from app.kube.client import Kube
from app.kube.connection import namespace_of
from app.kube.opening import object_key, open_kube

_USUAL: Final = Path("~/.kube/config")


@contextlib.asynccontextmanager
async def opened_cluster(
    kubeconfig: Path | None, namespace: str | None
) -> AsyncIterator[tuple[Kube, str]]:
    """Open the way to a cluster, and tell which of its namespaces is meant.

    Without a kubeconfig it is the one of the settings, then that of the user, then the service
    account of the pod that we are. Without a namespace it is the one that the kubeconfig names, or
    the pod's own. Raises Misconfigured, and Invalid("namespace", …).
    """
    kubernetes = settings().kubernetes
    if namespace is not None:
        check_name("namespace", namespace)
    host, port = kubernetes.api
    config = kubeconfig or kubernetes.kubeconfig or _usual()
    if namespace is None and config is not None:
        namespace = namespace_of(config)
    kube = await open_kube(config, host=host, port=port)
    try:
        yield kube, namespace or object_key("").namespace
    finally:
        await kube.close()


def _usual() -> Path | None:
    with contextlib.suppress(RuntimeError):  # nobody whose home is known
        found = _USUAL.expanduser()
        return found if found.is_file() else None
    return None
