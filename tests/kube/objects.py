"""Resources as somebody in a cluster writes them: a test overrides the one thing it is about."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from app.crypto import issuers, keys
from app.domain.certificates import KeyType
from tests.builders import NOW
from tests.kube.api_server import Object

NAMESPACE: Final = "north"
GRANT: Final = "grant-north"
ISSUER: Final = "skupper-site-ca"
ENDPOINTS: Final = (
    {"name": "inter-router", "host": "192.0.2.4", "port": "55671", "group": "skupper-router"},
    {"name": "edge", "host": "192.0.2.4", "port": "45671", "group": "skupper-router"},
)
_SKUPPER: Final = "skupper.io/v2alpha1"


def access_grant(
    name: str = GRANT, namespace: str = NAMESPACE, *, status: Object | None = None, **spec: Any
) -> Object:
    """An AccessGrant; without a spec it leaves everything to the defaults."""
    made: Object = {
        "apiVersion": _SKUPPER,
        "kind": "AccessGrant",
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    }
    return made if status is None else made | {"status": status}


def a_site(
    name: str = "north", namespace: str = NAMESPACE, *, status: Object | None = None, **spec: Any
) -> Object:
    """A Site that can be linked to."""
    return {
        "apiVersion": _SKUPPER,
        "kind": "Site",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"linkAccess": "default"} | spec,
        "status": {"endpoints": list(ENDPOINTS)} | (status or {}),
    }


def a_deployment(name: str = "grantserver", namespace: str = NAMESPACE) -> Object:
    """A Deployment, with no more in it than it needs."""
    labels = {"app.kubernetes.io/name": name}
    container = {"name": "grantserver", "image": "grantserver"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


@dataclass(frozen=True, kw_only=True)
class Ca:
    """A certificate authority, in PEM."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


@cache
def a_ca(
    name: str = "north ca",
    *,
    not_before: int = NOW - 10**8,
    not_after: int = NOW + 10**8,
) -> Ca:
    """An authority of its own name, valid years before and after the tests' present."""
    key = keys.generate(KeyType.P256)
    made = issuers.create_authority(
        common_name=name, key=key, serial=7, not_before=not_before, not_after=not_after
    )
    return Ca(certificate_pem=made, key_pem=keys.to_traditional_pem(key))


def a_secret(
    name: str = ISSUER,
    namespace: str = NAMESPACE,
    *,
    ca: Ca | None = None,
    data: Mapping[str, bytes | str] | None = None,
) -> Object:
    """An issuer Secret; `data` replaces parts of what is in it, a text as it is."""
    ca = ca or a_ca()
    parts = {"tls.crt": ca.certificate_pem, "tls.key": ca.key_pem, **(data or {})}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": namespace, "name": name},
        "data": {
            part: one if isinstance(one, str) else base64.b64encode(one).decode()
            for part, one in parts.items()
        },
    }
