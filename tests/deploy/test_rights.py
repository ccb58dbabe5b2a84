"""The rights that are shipped are those that the server uses: it is run with no others.

What it asks for is what an API server saw, through everything that it does for AccessGrants; so a
right that is missing is a refusal here, and one that nobody uses is found as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app import settings
from app.in_cluster import exposing
from app.kube.exposure.objects import MANAGER
from app.kube.exposure.plan import Served
from app.kube.exposure.ways import WAYS
from tests.deploy.kustomize import DEPLOY, Object, rendered
from tests.deploy.rights import granted, roles, rules
from tests.deploy.test_manifests import OUR_NAMESPACE, environment, overlay
from tests.installation import Installation
from tests.kube.api_server import Kube
from tests.kube.objects import a_deployment, a_secret, a_site, access_grant
from tests.running import Server, running

ACCOUNT = "grantserver"
HOME = "grantserver"
NAMESPACES = "GRANTSERVER_KUBERNETES_NAMESPACES"
# What is granted although the play below does not use it, and why: (group, resource, verb).
NOT_USED: Mapping[tuple[str, str, str], str] = {}
# What the API server asks of itself while it does something else, and ours does not.
ASKED_BY_OTHERS = {
    ("route.openshift.io", "routes/custom-host", "create"),
    ("route.openshift.io", "routes/custom-host", "update"),
}
# Settings of the manifests that a server of a test has otherwise.
OF_A_POD = {
    "GRANTSERVER_DATA_DIR",
    "GRANTSERVER_SEALING_KEY_FILE",
    "GRANTSERVER_LOGS_FORMAT",
    "HOME",
}
PUBLIC = "grantserver-public"
# Their remains are looked for wherever there are Routes: on OpenShift, whose component gives this
# right, and on a server of tests where another one has defined them.
LIST_ROUTES: Object = {
    "apiGroups": ["route.openshift.io"],
    "resources": ["routes"],
    "verbs": ["list"],
    "namespaces": [HOME],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A way to install the server: its objects, and where it serves."""

    objects: Sequence[Object]
    namespaces: str
    served: str


def namespaced() -> Installed:
    objects = rendered(DEPLOY / "namespaced")
    (settings,) = (one["data"] for one in objects if one["kind"] == "ConfigMap")
    return Installed(objects=objects, namespaces=settings[NAMESPACES], served=HOME)


def several_namespaces() -> Installed:
    objects = rendered(DEPLOY / "server", namespace=HOME)
    for namespace in ("north", "south"):
        objects += rendered(DEPLOY / "served-namespace", namespace=namespace)
    return Installed(objects=objects, namespaces="north,south", served="south")


def cluster_wide() -> Installed:
    objects = rendered(DEPLOY / "cluster-wide")
    (settings,) = (one["data"] for one in objects if one["kind"] == "ConfigMap")
    return Installed(objects=objects, namespaces=settings[NAMESPACES], served="south")


EVERY_WAY = pytest.mark.parametrize("installed", [namespaced, several_namespaces, cluster_wide])


@EVERY_WAY
def test_the_server_does_everything_with_the_rights_that_are_shipped_and_needs_them_all(
    installed: Callable[[], Installed], kube: Kube, tmp_path: Path
) -> None:
    way = installed()
    kube.install_skupper()
    for namespace in (HOME, "north", "south"):
        kube.namespace(namespace)
    shipped = rules(way.objects, ACCOUNT, HOME)
    token = kube.token(ACCOUNT, [*shipped, LIST_ROUTES])
    kube.requests.clear()
    play(kube, tmp_path, token, way)
    be_reached(kube, tmp_path, token, way.namespaces)
    asked = kube.requests.of(user=ACCOUNT)
    assert [one for one in asked if one.code == 403] == []
    needed = used(kube) - granted([LIST_ROUTES])
    assert needed <= granted(shipped)
    assert granted(shipped) - needed == NOT_USED.keys()
    everywhere = {""} if way.namespaces == "*" else set(way.namespaces.split(","))
    assert {one.namespace for one in asked if one.resource} <= {HOME, way.served, *everywhere}


@pytest.mark.parametrize("component", ["route", "ingress", "gateway", "openshift", "tls-secret"])
def test_a_component_gives_the_rights_that_it_takes_and_the_server_uses_them_all(
    component: str, kube: Kube, tmp_path: Path
) -> None:
    kube.install_skupper()
    kube.install_routes()
    kube.install_gateways()
    for namespace in (HOME, "north"):
        kube.namespace(namespace)
    objects = rendered(overlay(tmp_path, "server", [component]))
    ours = rules(objects, ACCOUNT, OUR_NAMESPACE)
    for rule in ours:
        rule["namespaces"] = [HOME]
    (given,) = (
        role["rules"]
        for role in roles(objects)
        if role["metadata"]["name"] == f"grantserver-{component}"
    )
    served = rules(rendered(DEPLOY / "served-namespace", namespace="north"), ACCOUNT, HOME)
    token = kube.token(ACCOUNT, [*ours, *served, LIST_ROUTES])
    kube.requests.clear()
    told = options(kube, tmp_path, token, "north") | {
        name: text for name, text in environment(objects).items() if name not in OF_A_POD
    }
    PLAYS[component](kube, tmp_path, told)
    assert [one for one in kube.requests.of(user=ACCOUNT) if one.code == 403] == []
    not_asked = {one for one in ASKED_BY_OTHERS if one in granted(given)}
    assert granted(given) - used(kube) == not_asked


def used(kube: Kube) -> set[tuple[str, str, str]]:
    """The rights that were used; who makes an object by applying it uses two."""
    return kube.requests.rules(user=ACCOUNT) | {
        (one.group, one.resource, "create")
        for one in kube.requests.of(user=ACCOUNT, verb="patch")
        if one.code == 201
    }


@EVERY_WAY
def test_no_role_gives_more_than_it_names(installed: Callable[[], Installed]) -> None:
    for role in roles(installed().objects):
        for rule in role["rules"]:
            named = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not any("*" in one for one in named)


def test_the_role_of_a_namespace_and_that_of_a_cluster_are_the_same() -> None:
    (one,) = roles(rendered(DEPLOY / "served-namespace"))
    (other,) = (
        role for role in roles(rendered(DEPLOY / "cluster-wide")) if role["kind"] == "ClusterRole"
    )
    assert one["rules"] == other["rules"]


def play(kube: Kube, directory: Path, token: str, way: Installed) -> None:
    """Everything that happens to AccessGrants, and that a server does about it."""
    told = options(kube, directory, token, way.namespaces)
    place = Place(kube, way.served)
    with running(directory, **told) as server:
        place.create_grant("twice", redemptionsAllowed=2)
        place.wait("twice", lambda status: status.get("status") == "Pending")
        place.create_issuer()
        place.create_site()
        place.wait("twice", is_ready)

        assert place.redeem(server, "twice", subject="east").status == 200
        place.wait("twice", lambda status: status["redemptions"] == 1)
        place.wait_event("Redeemed")

        for times in (1, 2):  # an Event that is told once more is counted
            assert place.redeem(server, "twice", subject="east", code="wrong").status == 403
            place.wait_event("Refused", times)

        assert place.redeem(server, "twice", subject="north").status == 200
        assert place.redeem(server, "twice", subject="thief").status == 404
        place.wait_event("SuspectedTokenTheft")

        place.create_grant("brief", expirationWindow="1s")
        place.wait("brief", lambda status: str(status.get("message")).startswith("Expired"))

        place.create_grant("gone")
        place.wait("gone", is_ready)
        gone = place.get("gone")
        kube.delete("AccessGrant", "gone", way.served)
        assert kube.until(lambda: place.redeem_of(server, gone, subject="east").status == 404)

        with running(directory, **told) as other:
            before = leader(kube)
            server.stop()
            assert kube.until(lambda: leader(kube) not in {before, ""})
            place.create_grant("next")
            place.wait("next", is_ready)
            assert place.redeem(other, "next", subject="east").status == 200


def options(kube: Kube, directory: Path, token: str, namespaces: str) -> dict[str, str]:
    """What a pod in `HOME` would be told, and would know of itself."""
    return {
        NAMESPACES: namespaces,
        "GRANTSERVER_KUBERNETES_KUBECONFIG": str(kube.kubeconfig(directory / "config", token)),
        "GRANTSERVER_KUBERNETES_LEASE": f"{HOME}/grantserver",
        "GRANTSERVER_EXPOSURE_NAME": f"{HOME}/{PUBLIC}",
        "GRANTSERVER_TLS_ISSUED_SECRET": f"{HOME}/grantserver-tls",
    }


def be_reached(kube: Kube, directory: Path, token: str, namespaces: str) -> None:
    """What happens to a Service that the server is reached by, from the first to the last."""
    told = options(kube, directory, token, namespaces)
    balanced = told | {"GRANTSERVER_EXPOSURE_TYPE": "loadbalancer"}
    kube.install_gateways()
    kube.create(a_deployment("grantserver", HOME))
    for way in ("ingress", "gateway"):
        leave_behind(kube, told, way)
    foreign = {"ports": [{"port": 1}]}
    kube.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": PUBLIC, "namespace": HOME},
            "spec": foreign,
        }
    )
    with running(directory, **balanced):
        for kind in ("Ingress", "TLSRoute", "Gateway"):
            kube.wait_gone(kind, PUBLIC, HOME)
        assert kube.until(
            lambda: any(one["reason"] == "NotOurs" for one in kube.find("Event", HOME))
        )
    kube.delete("Service", PUBLIC, HOME)
    with running(directory, **balanced):
        kube.wait("Service", PUBLIC, HOME, lambda found: found["spec"]["type"] == "LoadBalancer")
        change = {"spec": {"externalTrafficPolicy": "Cluster"}}
        kube.patch("Service", PUBLIC, change, HOME)
        kube.wait(
            *("Service", PUBLIC, HOME),
            lambda found: found["spec"]["externalTrafficPolicy"] == "Local",
        )
        kube.wait("Secret", "grantserver-tls", HOME, lambda found: "tls.crt" in found["data"])
    with running(directory, **told):
        kube.wait_gone("Service", PUBLIC, HOME)


def leave_behind(kube: Kube, told: Mapping[str, str], way: str) -> None:
    """Have the objects of a way in there that was chosen before."""
    more = {
        "GRANTSERVER_EXPOSURE_TYPE": way,
        "GRANTSERVER_EXPOSURE_HOST": "grants.example.com",
        "GRANTSERVER_EXPOSURE_CLASS": "example",
    }
    plan = exposing(settings.load({**told, **more})).plan
    served = Served(routes=True, gateways="v1", tls_routes="v1alpha3")
    for one in WAYS[plan.way].wanted(plan, served):
        if one.resource.kind != "Service":
            about = {"apiVersion": one.resource.api_version, "kind": one.resource.kind}
            kube.apply(about | one.body, manager=MANAGER)


def be_routed(kube: Kube, directory: Path, told: Mapping[str, str]) -> None:
    """A way in that is chosen by a component, changed by others, and switched off."""
    more = {"GRANTSERVER_EXPOSURE_HOST": "grants.example.com"}
    if told["GRANTSERVER_EXPOSURE_TYPE"] == "gateway":
        more["GRANTSERVER_EXPOSURE_CLASS"] = "example"
    plan = exposing(settings.load({**told, **more})).plan
    kinds = [
        one.resource.kind
        for one in WAYS[plan.way].wanted(plan, Served(gateways="v1", tls_routes="v1alpha3"))
    ]
    with running(directory, **told, **more):
        for kind in kinds:
            kube.wait(kind, PUBLIC, HOME, lambda _: True)
        for kind in kinds:
            kube.delete(kind, PUBLIC, HOME)
        for kind in kinds:
            kube.wait(kind, PUBLIC, HOME, lambda _: True)
    with running(directory, **{**told, "GRANTSERVER_EXPOSURE_TYPE": "url"}):
        for kind in kinds:
            kube.wait_gone(kind, PUBLIC, HOME)


def be_moved(kube: Kube, directory: Path, told: Mapping[str, str]) -> None:
    """A load balancer, where there was a Route before."""
    leave_behind(kube, told, "route")
    with running(directory, **told, GRANTSERVER_EXPOSURE_TYPE="loadbalancer"):
        kube.wait_gone("Route", PUBLIC, HOME)


def be_certified(kube: Kube, directory: Path, told: Mapping[str, str]) -> None:
    """A Secret that somebody else keeps, and in which there is nothing to be taken yet."""
    name = told["GRANTSERVER_TLS_SECRET"]
    kube.create(a_secret(name, HOME, data={"tls.crt": b"", "tls.key": b""}))
    run = Installation(directory, **{**told, "GRANTSERVER_TLS_SECRET": f"{HOME}/{name}"})
    with run.serving():
        assert kube.until(
            lambda: any(one["reason"] == "NotTaken" for one in kube.find("Event", HOME))
        )
        assert kube.until(
            lambda: (
                kube.requests.of(user=ACCOUNT, verb="watch", resource="secrets", name=name) != []
            )
        )


PLAYS: Mapping[str, Callable[[Kube, Path, Mapping[str, str]], None]] = {
    "route": be_routed,
    "ingress": be_routed,
    "gateway": be_routed,
    "openshift": be_moved,
    "tls-secret": be_certified,
}


def leader(kube: Kube) -> str:
    return str(kube.get("Lease", "grantserver", HOME)["spec"].get("holderIdentity") or "")


def is_ready(status: Mapping[str, Any]) -> bool:
    return status.get("status") == "Ready"


class Place:
    """A namespace with a listening site, and what somebody does there."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace

    def create_issuer(self) -> None:
        self.kube.create(a_secret(namespace=self.namespace))

    def create_site(self) -> None:
        self.kube.create(a_site(namespace=self.namespace))

    def create_grant(self, name: str, **spec: Any) -> None:
        self.kube.create(access_grant(name, self.namespace, **spec))

    def get(self, name: str) -> Object:
        return self.kube.get("AccessGrant", name, self.namespace)

    def wait(self, name: str, until: Callable[[Mapping[str, Any]], bool]) -> None:
        self.kube.wait(
            "AccessGrant", name, self.namespace, lambda found: until(found.get("status") or {})
        )

    def wait_event(self, reason: str, times: int = 1) -> None:
        def is_there() -> bool:
            found = self.kube.find("Event", self.namespace)
            counts: list[int] = [one["count"] for one in found if one["reason"] == reason]
            return sum(counts) >= times

        assert self.kube.until(is_there), self.kube.find("Event", self.namespace)

    def redeem(self, server: Server, name: str, *, subject: str, code: str = "") -> Any:
        return self.redeem_of(server, self.get(name), subject=subject, code=code)

    def redeem_of(self, server: Server, grant: Object, *, subject: str, code: str = "") -> Any:
        presented = (code or grant["status"]["code"]).encode()
        headers = {"name": f"link-{subject}", "subject": subject}
        return server.request("POST", f"/{grant['metadata']['uid']}", presented, headers)
