"""A server that makes itself reachable in a cluster, and those who do their part of it there."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from app.domain.exposure import Way
from app.domain.reach import Reach
from app.domain.times import rfc3339
from app.kube.exposure.exposing import Exposing
from app.kube.exposure.plan import MARK, Plan, Wanted
from app.kube.resources import Key
from app.services import addresses
from app.store.addresses import AddressRow
from app.web.tls import rehearse
from tests.builders import NOW, PEM, Stand
from tests.kube.api_server import Kube, KubeError, Object
from tests.kube.objects import a_deployment
from tests.kube.recorder import Request
from tests.kube.stage import RULES, Replica, Stage, staged

PLACE: Final = "gs"
NAME: Final = "grantserver-public"
OBJECTS: Final = Key(PLACE, NAME)
INSTALLATION: Final = "default.grantserver"
SELECTOR: Final = {"app.kubernetes.io/name": "grantserver"}
OUR_LABELS: Final = {"app.kubernetes.io/managed-by": "grantserver", MARK: INSTALLATION}
ISSUED: Final = Key(PLACE, "grantserver-tls")
KEPT: Final = Key(PLACE, "their-tls")
ROUTE: Final = "Route"
EVERYTHING: Final = ["get", "list", "watch", "create", "patch", "delete"]
RIGHTS: Final[Sequence[Object]] = (
    {"apiGroups": [""], "resources": ["services"], "verbs": EVERYTHING},
    {"apiGroups": ["route.openshift.io"], "resources": ["routes"], "verbs": EVERYTHING},
    {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": EVERYTHING},
    {
        "apiGroups": ["gateway.networking.k8s.io"],
        "resources": ["gateways", "tlsroutes"],
        "verbs": EVERYTHING,
    },
    {
        "apiGroups": ["apps"],
        "resources": ["deployments"],
        "resourceNames": ["grantserver"],
        "verbs": ["get"],
    },
    {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": [ISSUED.name],
        "verbs": ["get", "list", "watch", "create", "patch"],
    },
    {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": [KEPT.name],
        "verbs": ["list", "watch"],
    },
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
)
"""What is used of the namespace of the objects; the last three are for Secrets and Events."""


def made(wanted: Sequence[Wanted], **status: Any) -> dict[str, Object]:
    """Give what would be there of `wanted`, by kind, what faces outside with this status."""
    found = {one.resource.kind: {**one.body} for one in wanted}
    found[wanted[-1].resource.kind]["status"] = status
    return found


def a_plan(way: Way = Way.LOAD_BALANCER, **changes: Any) -> Plan:
    """A plan that leaves everything to its way in."""
    made = Plan(
        way=way,
        objects=OBJECTS,
        installation=INSTALLATION,
        selector=SELECTOR,
        deployment="grantserver",
    )
    return replace(made, **changes)


def condition(kind: str, status: bool, reason: str, message: str = "") -> Object:
    """A condition, as somebody's controller writes it."""
    return {
        "type": kind,
        "status": str(status),
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(NOW),
    }


@dataclass(kw_only=True)
class Scene:
    """A cluster with a furnished namespace, a Deployment of ours, and others who write statuses."""

    stage: Stage
    after: list[Callable[[], None]] = field(default_factory=list)

    @property
    def kube(self) -> Kube:
        return self.stage.kube

    @property
    def stand(self) -> Stand:
        return self.stage.stand

    def row(self) -> AddressRow:
        """What the database tells everybody."""
        return addresses.told(self.stand.database)

    def reach(self) -> Reach | None:
        """What every process makes of it."""
        url = self.row().url
        return Reach(url=url, ca_pem=PEM) if url else None

    def serving(
        self,
        plan: Plan,
        user: str = "grantserver",
        rights: Sequence[Object] = RIGHTS,
        **exposing: Any,
    ) -> Replica:
        """A replica that leads and exposes, not working yet."""
        changes = {
            "exposing": Exposing(plan=plan, rehearse=rehearse, **exposing),
            "reach": self.reach,
            "waiting": lambda: self.row().problem,
        }
        rules = [*RULES, *({**one, "namespaces": [PLACE]} for one in rights)]
        return Replica(
            kube=self.kube,
            stand=self.stand,
            directory=self.stage.directory,
            user=user,
            rules=rules,
            changes=changes,
        )

    def object(self, kind: str, until: Callable[[Object], object] = bool) -> Object:
        """Wait for an object of ours."""
        return self.kube.wait(kind, NAME, PLACE, until)

    def status(self, kind: str, status: Mapping[str, Any], name: str = NAME) -> Object:
        """Write a status, as its controller would."""
        self.kube.wait(kind, name, PLACE, bool)
        return self.kube.patch(kind, name, {"status": status}, PLACE, subresource="status")

    def balance(self, *points: Mapping[str, Any], kind: str = "Service") -> None:
        """Give the Service (or Ingress) these points of ingress, as a cloud would."""
        self.status(kind, {"loadBalancer": {"ingress": list(points) or None}})

    def route_admitted(self, *hosts: str) -> None:
        """Have as many routers admit the Route."""
        admitted = condition("Admitted", True, "")
        routers = [
            {"host": host, "routerName": f"router-{number}", "conditions": [admitted]}
            for number, host in enumerate(hosts)
        ]
        self.status(ROUTE, {"ingress": routers})

    def reached(self, url: str) -> AddressRow:
        """Wait until this is where the server is reached."""
        assert self.kube.until(lambda: self.row().url == url), self.row()
        return self.row()

    def lost(self, problem: str) -> None:
        """Wait until nobody knows where it is reached, and this is said of it."""
        wanted = AddressRow(url="", problem=problem)
        assert self.kube.until(lambda: self.row() == wanted), self.row()

    def gone(self, kind: str, name: str = NAME) -> None:
        """Wait until there is no such object."""
        self.kube.wait_gone(kind, name, PLACE)

    def there(self, kind: str, name: str = NAME) -> bool:
        """Whether there is one now."""
        try:
            self.kube.get(kind, name, PLACE)
        except KubeError as error:
            if error.code != 404:
                raise
            return False
        return True

    def foreign(self, body: Object) -> Object:
        """Somebody else makes an object of our name; gives it as it is."""
        metadata = {"name": NAME, "namespace": PLACE} | (body.get("metadata") or {})
        return self.kube.create(body | {"metadata": metadata})

    def writes(self, user: str = "grantserver") -> list[Request]:
        """What was written, but for the Lease and AccessGrants."""
        passing = {"leases", "accessgrants", "events"}
        return [one for one in self.kube.requests.writes(user=user) if one.resource not in passing]

    def url_of(self, grant: Object) -> str:
        """The URL that the status of an AccessGrant tells, without its last part."""
        url, _, uid = str(grant["status"]["url"]).rpartition("/")
        assert uid == grant["metadata"]["uid"]
        return url


@contextmanager
def set_up(kube: Kube, stand: Stand, directory: Path) -> Iterator[Scene]:
    """A scene in which nothing is exposed yet."""
    with staged(kube, stand, directory) as stage:
        kube.namespace(PLACE)
        kube.create(a_deployment(namespace=PLACE))
        yield Scene(stage=stage)


def data(secret: Object) -> dict[str, bytes]:
    """What a Secret holds."""
    return {name: base64.b64decode(one) for name, one in secret["data"].items()}
