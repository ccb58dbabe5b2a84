"""Opening the way to an API server: a kubeconfig file, or the service account of the pod we are."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from app.kube.client import Kube
from app.kube.connection import SERVICE_ACCOUNT, Connection, kubeconfig, service_account
from app.kube.resources import Key

_DEFAULT_NAMESPACE: Final = "default"
_IDENTITY_BYTES: Final = 4


async def open_kube(config: Path | None, *, host: str, port: int) -> Kube:
    """Read how to reach the API server, without asking it for anything yet.

    Without a kubeconfig it is at `host` and `port`. Raises Misconfigured.
    """
    source = service_account(host=host, port=port) if config is None else kubeconfig(config)
    return Kube(await Connection.open(source))


def object_key(text: str, directory: Path = SERVICE_ACCOUNT) -> Key:
    """Read NAME or NAMESPACE/NAME; without a namespace it is the pod's own, or `default`."""
    namespace, _, name = text.rpartition("/")
    return Key(namespace or _own_namespace(directory), name)


def identity(host: str, random_bytes: Callable[[int], bytes]) -> str:
    """Name this process among all replicas, those on the same host included."""
    return f"{host}_{random_bytes(_IDENTITY_BYTES).hex()}"


def _own_namespace(directory: Path) -> str:
    try:
        return (directory / "namespace").read_text(encoding="ascii").strip() or _DEFAULT_NAMESPACE
    except (OSError, UnicodeDecodeError):
        return _DEFAULT_NAMESPACE
