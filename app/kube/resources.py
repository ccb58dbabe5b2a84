"""The kinds of objects that we talk about, where the API server keeps them, and how to name one."""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

Object = dict[str, Any]
"""An object of Kubernetes as its JSON has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A kind of objects; the core group is the empty one."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """What its objects carry as `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The path under which the API server keeps its group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


class Key(NamedTuple):
    """The name of an object among all of its kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


ACCESS_GRANTS: Final = Resource(
    group="skupper.io", version="v2alpha1", plural="accessgrants", kind="AccessGrant"
)
ACCESS_TOKENS: Final = Resource(
    group="skupper.io", version="v2alpha1", plural="accesstokens", kind="AccessToken"
)
LINKS: Final = Resource(group="skupper.io", version="v2alpha1", plural="links", kind="Link")
SITES: Final = Resource(group="skupper.io", version="v2alpha1", plural="sites", kind="Site")
SECRETS: Final = Resource(group="", version="v1", plural="secrets", kind="Secret")
LEASES: Final = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease")
EVENTS: Final = Resource(group="", version="v1", plural="events", kind="Event")
SERVICES: Final = Resource(group="", version="v1", plural="services", kind="Service")
DEPLOYMENTS: Final = Resource(group="apps", version="v1", plural="deployments", kind="Deployment")
INGRESSES: Final = Resource(
    group="networking.k8s.io", version="v1", plural="ingresses", kind="Ingress"
)
ROUTES: Final = Resource(group="route.openshift.io", version="v1", plural="routes", kind="Route")
TOKEN_REVIEWS: Final = Resource(
    group="authentication.k8s.io", version="v1", plural="tokenreviews", kind="TokenReview"
)
ACCESS_REVIEWS: Final = Resource(
    group="authorization.k8s.io",
    version="v1",
    plural="subjectaccessreviews",
    kind="SubjectAccessReview",
)
GATEWAY_API: Final = "gateway.networking.k8s.io"


def gateways(version: str) -> Resource:
    """Gateways, in a version that is served."""
    return Resource(group=GATEWAY_API, version=version, plural="gateways", kind="Gateway")


def tls_routes(version: str) -> Resource:
    """TLSRoutes, in a version that is served."""
    return Resource(group=GATEWAY_API, version=version, plural="tlsroutes", kind="TLSRoute")


def key_of(found: Object) -> Key:
    """Name an object."""
    metadata = found["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])
