"""On a real API server, where one is at hand: installed, upgraded, rolled back, removed by Helm."""

import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from helm.writing import CHART, DEPLOY
from tests.helm.rendering import IMAGE, example, helm, merged
from tests.kube.errors import KubeError
from tests.kube.real import ABSENT, RealKube, assets

HOME = "grants"
RELEASE = "grantserver"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CORE = f"/api/v1/namespaces/{HOME}"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{HOME}/deployments"
CLUSTER_ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
FIRST: dict[str, Any] = {"image": IMAGE, "sealing": {"create": True}}
EXAMPLES = sorted(path.stem for path in (CHART.parent / "examples").glob("*.yaml"))
KNOWN = sorted(
    yaml.safe_load(path.read_text())["metadata"]["name"] for path in (DEPLOY / "crds").iterdir()
)


class Cluster:
    """A namespace of a real API server, and Helm in front of it."""

    def __init__(self, kube: RealKube) -> None:
        self._kube = kube
        self.helm = helm()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "x",
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "clusters": [{"name": "x", "cluster": {"server": kube.url, **ca(kube.ca_pem)}}],
            "users": [{"name": "x", "user": {"token": kube.admin_token}}],
        }
        self.releases = self.helm.Config(kubeconfig_content=json.dumps(config), namespace=HOME)

    def read(self, path: str) -> dict[str, Any]:
        return self._kube._call("GET", path)

    def absent(self, path: str) -> bool:
        try:
            self.read(path)
        except KubeError as error:
            if error.code != 404:
                raise
            return True
        return False

    def names(self, path: str) -> set[str]:
        return {one["metadata"]["name"] for one in self.read(path)["items"]}

    def make(self, path: str, given: dict[str, Any]) -> None:
        self._kube._call("POST", path, given)

    def remove(self, path: str) -> None:
        """Take an object away, and with it what a controller would have taken away from it."""
        with contextlib.suppress(KubeError):
            self._kube._call("DELETE", path)
            if not path.startswith(CRDS):
                content = "application/merge-patch+json"
                self._kube._call("PATCH", path, {"metadata": {"finalizers": None}}, content)
        assert self._kube.until(lambda: self.absent(path))

    def install(self, values: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self.releases.install(str(CHART), RELEASE, values, namespace=HOME)
        return made

    def upgrade(self, values: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self.releases.upgrade(str(CHART), RELEASE, values, namespace=HOME)
        return made

    def settings(self) -> str:
        found: str = self.read(f"{CORE}/configmaps/grantserver-settings")["data"][
            "grantserver.toml"
        ]
        return found

    def keys(self) -> str:
        found: str = self.read(f"{CORE}/secrets/grantserver-sealing")["data"]["sealing.keys"]
        return found


def ca(pem: str | None) -> dict[str, str]:
    assert pem
    return {"certificate-authority-data": base64.b64encode(pem.encode()).decode()}


@pytest.fixture(scope="module")
def pair() -> Iterator[RealKube]:
    """One of its own, in which nobody has defined anything."""
    folder = assets()
    if folder is None:
        pytest.skip(ABSENT)
    helm()
    made = RealKube(folder)
    made._call("POST", "/api/v1/namespaces", {"metadata": {"name": HOME}})
    for namespace in ("north", "south"):
        made._call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    yield made
    made.stop()


@pytest.fixture
def cluster(pair: RealKube) -> Iterator[Cluster]:
    """The same without what the test before has left."""
    made = Cluster(pair)
    yield made
    made.releases.uninstall(RELEASE, ignore_not_found=True)
    for path in (
        f"{CORE}/secrets/grantserver-sealing",
        f"{CORE}/persistentvolumeclaims/grantserver",
        *(f"{CRDS}/{name}" for name in KNOWN),
    ):
        made.remove(path)
    made.releases.close()


def test_it_is_installed_upgraded_rolled_back_and_removed(cluster: Cluster) -> None:
    cluster.install(FIRST)
    assert cluster.names(DEPLOYMENTS) == {"grantserver"}
    assert cluster.names(CRDS) == set(KNOWN)
    assert 'level = "info"' in cluster.settings()
    assert not cluster.names(CLUSTER_ROLES) & {"grants-grantserver-serving"}
    keys = cluster.keys()

    change = {"logs": {"level": "debug"}, "kubernetes": {"namespaces": ["*"]}}
    cluster.upgrade(merged(FIRST, {"config": change}))
    assert 'level = "debug"' in cluster.settings()
    assert cluster.names(CLUSTER_ROLES) & {"grants-grantserver-serving"}
    assert cluster.keys() == keys
    assert cluster.names(CRDS) == set(KNOWN)

    with pytest.raises(cluster.helm.HelmError, match="SQLite serves one"):
        cluster.upgrade(merged(FIRST, {"replicas": 2}))
    assert cluster.read(f"{DEPLOYMENTS}/grantserver")["spec"]["replicas"] == 1
    assert 'level = "debug"' in cluster.settings()

    cluster.releases.rollback(RELEASE, version=1)
    assert 'level = "info"' in cluster.settings()
    assert not cluster.names(CLUSTER_ROLES) & {"grants-grantserver-serving"}
    assert cluster.keys() == keys

    cluster.releases.uninstall(RELEASE)
    assert cluster.names(DEPLOYMENTS) == set()
    assert cluster.absent(f"{CORE}/configmaps/grantserver-settings")
    # What would be lost with it stays: the definitions with all resources, the database, its keys.
    assert cluster.names(CRDS) == set(KNOWN)
    assert not cluster.absent(f"{CORE}/persistentvolumeclaims/grantserver")
    assert cluster.keys() == keys

    cluster.install(FIRST)
    assert cluster.keys() == keys
    assert cluster.names(CRDS) == set(KNOWN)


def test_definitions_of_others_are_left_as_they_are(cluster: Cluster) -> None:
    theirs = yaml.safe_load((DEPLOY / "crds" / "sites.yaml").read_text())
    theirs["metadata"]["labels"] = {"example.com/owner": "skupper"}
    cluster.make(CRDS, theirs)
    name = theirs["metadata"]["name"]

    def kept() -> dict[str, Any]:
        found = cluster.read(f"{CRDS}/{name}")
        return {"metadata": found["metadata"]["labels"], "annotations": annotations(found)}

    def annotations(found: dict[str, Any]) -> set[str]:
        return set(found["metadata"].get("annotations", {}))

    before = kept()
    assert not {one for one in before["annotations"] if "helm" in one}
    cluster.install(FIRST)
    cluster.upgrade(merged(FIRST, {"config": {"logs": {"level": "debug"}}}))
    assert kept() == before
    assert cluster.names(CRDS) == set(KNOWN)
    cluster.releases.uninstall(RELEASE)
    assert kept() == before


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_can_be_installed(cluster: Cluster, name: str) -> None:
    values = merged(example(name), {"crds": {"create": False}})
    served = {
        version["groupVersion"]
        for group in cluster.read("/apis")["groups"]
        for version in group["versions"]
    }
    if "policy/v1" not in served:
        values = merged(values, {"podDisruptionBudget": {"enabled": False}})
    if "autoscaling/v2" not in served:
        values = merged(values, {"autoscaling": {"enabled": False}})
    # The operator's definitions are not there; its objects are held against a schema elsewhere.
    off = {"enabled": False}
    values = merged(values, {"metrics": {"serviceMonitor": off, "prometheusRule": off}})
    cluster.install(values)
    assert cluster.names(DEPLOYMENTS) == {"grantserver"}
    assert cluster.releases.status(RELEASE)["status"] == "deployed"
