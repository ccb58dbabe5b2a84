"""The rights that are shipped are those that the server uses: it is run with no others.

What it asks for is what an API server saw, through everything that it does for AccessGrants; so a
right that is missing is a refusal here, and one that nobody uses is found as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.kustomize import DEPLOY, Object, rendered
from tests.deploy.rights import granted, roles, rules
from tests.kube.api_server import Kube
from tests.kube.objects import a_secret, a_site, access_grant
from tests.running import Server, running

ACCOUNT = "grantserver"
HOME = "grantserver"
NAMESPACES = "GRANTSERVER_KUBERNETES_NAMESPACES"
# What is granted although the play below does not use it, and why: (group, resource, verb).
NOT_USED: Mapping[tuple[str, str, str], str] = {}


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
    token = kube.token(ACCOUNT, shipped)
    kube.requests.clear()
    play(kube, tmp_path, token, way)
    asked = kube.requests.of(user=ACCOUNT)
    assert [one for one in asked if one.code == 403] == []
    used = kube.requests.rules(user=ACCOUNT)
    assert used <= granted(shipped)
    assert granted(shipped) - used == NOT_USED.keys()
    everywhere = {""} if way.namespaces == "*" else set(way.namespaces.split(","))
    assert {one.namespace for one in asked} <= {HOME, way.served, *everywhere}


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
    options = {
        NAMESPACES: way.namespaces,
        "GRANTSERVER_KUBERNETES_KUBECONFIG": str(kube.kubeconfig(directory / "config", token)),
        "GRANTSERVER_KUBERNETES_LEASE": f"{HOME}/grantserver",
    }
    place = Place(kube, way.served)
    with running(directory, **options) as server:
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

        with running(directory, **options) as other:
            before = leader(kube)
            server.stop()
            assert kube.until(lambda: leader(kube) not in {before, ""})
            place.create_grant("next")
            place.wait("next", is_ready)
            assert place.redeem(other, "next", subject="east").status == 200


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
