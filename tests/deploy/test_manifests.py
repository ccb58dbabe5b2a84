"""The manifests for Kubernetes: that they fit together, and ask for no more than they need."""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import settings
from tests.deploy.handbook import PAGE, blocks
from tests.deploy.kustomize import DEPLOY, OF_THE_CLUSTER, Object, rendered
from tests.kube.api_server import FakeKube
from tests.kube.real import RealKube

WAYS = ("namespaced", "cluster-wide")
COMPONENTS = ("postgresql", "openshift", "route", "tls-secret")
OUR_NAMESPACE = "listening"
WHERE = {
    "GRANTSERVER_EXPOSURE_HOST": "grants.example.com",
    "GRANTSERVER_EXPOSURE_CLASS": "example",
}
"""What is left to be said of a way in whose component was taken."""


def overlay(directory: Path, way: str, components: Sequence[str] = ()) -> Path:
    """Write what the handbook tells to write, for another namespace, beside the manifests."""
    shutil.copytree(DEPLOY, directory / "deploy" / "kubernetes")
    folder = directory / "ours"
    folder.mkdir()
    told, settings_of_ours = map(yaml.safe_load, blocks("yaml"))
    told |= settings_of_ours
    told["namespace"] = OUR_NAMESPACE
    told["resources"] = [f"../deploy/kubernetes/{way}"]
    told["components"] = [f"../deploy/kubernetes/{one}" for one in components]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(told))
    return folder


def of_kind(objects: Sequence[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def only(objects: Sequence[Object], kind: str) -> Object:
    (found,) = of_kind(objects, kind)
    return found


def pod(objects: Sequence[Object]) -> dict[str, Any]:
    found: dict[str, Any] = only(objects, "Deployment")["spec"]["template"]["spec"]
    return found


def test_every_file_is_part_of_a_way_to_install() -> None:
    named = set()
    for folder in DEPLOY.iterdir():
        told = yaml.safe_load((folder / "kustomization.yaml").read_text())
        named.add(folder / "kustomization.yaml")
        named.update(folder / one for one in told.get("resources", ()))
        if told["kind"] == "Component":
            assert f"`../deploy/kubernetes/{folder.name}`" in PAGE or f"`{folder.name}`" in PAGE
        named.update(folder / one["path"] for one in told.get("patches", ()))
    assert {path for path in DEPLOY.rglob("*") if path.is_file()} <= named
    for way in WAYS:
        assert rendered(DEPLOY / way)


@pytest.mark.parametrize("way", WAYS)
def test_everything_is_in_one_namespace_which_the_user_may_change(way: str, tmp_path: Path) -> None:
    objects = rendered(overlay(tmp_path, way))
    for one in objects:
        expected = None if one["kind"] in OF_THE_CLUSTER else OUR_NAMESPACE
        assert one["metadata"].get("namespace") == expected
        for subject in one.get("subjects", ()):
            assert subject["namespace"] == OUR_NAMESPACE


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("components", [(), ("postgresql",), COMPONENTS])
def test_what_names_something_names_what_is_there(
    way: str, components: Sequence[str], tmp_path: Path
) -> None:
    objects = rendered(overlay(tmp_path, way, components))
    spec, labels = pod(objects), only(objects, "Deployment")["spec"]["template"]["metadata"]
    volumes = {one["name"]: one for one in spec["volumes"]}
    (server,) = spec["containers"]
    ports = {one["name"]: one["containerPort"] for one in server["ports"]}
    claims = {one["metadata"]["name"] for one in of_kind(objects, "PersistentVolumeClaim")}
    for container in (*spec["initContainers"], server):
        assert {one["name"] for one in container["volumeMounts"]} <= volumes.keys()
        assert container["image"] == "registry.example.com/grantserver:1"
    mounted = [one["volumeMounts"] for one in (*spec["initContainers"], server)]
    assert {one["name"] for some in mounted for one in some} == volumes.keys()
    named = {
        one["persistentVolumeClaim"]["claimName"]
        for one in volumes.values()
        if "persistentVolumeClaim" in one
    }
    assert named == claims
    assert spec["serviceAccountName"] == only(objects, "ServiceAccount")["metadata"]["name"]
    for service in of_kind(objects, "Service"):
        assert service["spec"]["selector"].items() <= labels["labels"].items()
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["port"] == "ops"
        assert server[probe]["timeoutSeconds"] > 2  # so long a check of readiness may take
    (source,) = server["envFrom"]
    found = only(objects, "ConfigMap")["metadata"]["name"]
    assert source["configMapRef"]["name"] == found


@pytest.mark.parametrize("components", [(), ("postgresql",)])
def test_the_database_is_brought_up_to_date_as_the_server_will_find_it(
    components: Sequence[str], tmp_path: Path
) -> None:
    """With the settings, files and rights of the server."""
    objects = rendered(overlay(tmp_path, "namespaced", components))
    spec = pod(objects)
    (server,) = spec["containers"]
    (database,) = spec["initContainers"]
    assert database["name"] == "database"
    assert (database["args"], server["args"]) == (["db", "upgrade"], ["serve"])
    for part in ("envFrom", "env", "volumeMounts", "securityContext"):
        assert database.get(part) == server.get(part)


def environment(objects: Sequence[Object]) -> dict[str, str]:
    """The settings as the server finds them, a Secret's by a text in its place."""
    (server,) = pod(objects)["containers"]
    told: dict[str, str] = dict(only(objects, "ConfigMap")["data"])
    for one in server.get("env", ()):
        assert one["valueFrom"]["secretKeyRef"] == {"name": "grantserver-database", "key": "url"}
        told[one["name"]] = "postgresql://grantserver@database.example.com/grantserver"
    return told


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("components", [(), ("postgresql",)])
def test_the_server_understands_its_settings(
    way: str, components: Sequence[str], tmp_path: Path
) -> None:
    objects = rendered(overlay(tmp_path, way, components))
    told = environment(objects)
    chosen = settings.load(told)
    assert chosen.kubernetes.namespaces == (("*",) if way == "cluster-wide" else ("grantserver",))
    assert chosen.kubernetes.kubeconfig is None
    spec = pod(objects)
    (server,) = spec["containers"]
    mounts = {one["name"]: one for one in server["volumeMounts"]}
    # Below the volume itself, so that it is made by the server, with its mode.
    assert chosen.data.dir.parent == Path(mounts["data"]["mountPath"])
    assert chosen.sealing.key_file.parent == Path(mounts["sealing"]["mountPath"])
    assert told["HOME"] == mounts["tmp"]["mountPath"]
    ports = {one["name"]: one["containerPort"] for one in server["ports"]}
    assert ports == {"redemption": chosen.listen.redemption.port, "ops": chosen.listen.ops.port}


def test_the_keys_are_shown_as_the_server_takes_them(tmp_path: Path) -> None:
    """For root and the group of the pod, whom the fsGroup makes it; nobody writes to them."""
    spec = pod(rendered(overlay(tmp_path, "namespaced")))
    (volume,) = (one for one in spec["volumes"] if "secret" in one)
    assert volume["secret"]["defaultMode"] == stat.S_IRUSR | stat.S_IRGRP
    assert spec["securityContext"]["fsGroup"] > 0
    for container in (*spec["initContainers"], *spec["containers"]):
        (mount,) = (one for one in container["volumeMounts"] if one["name"] == volume["name"])
        assert mount["readOnly"] is True


def test_the_objects_that_the_server_takes_are_those_that_it_may_take() -> None:
    """And kustomize takes their names for no other's: it would rename them along."""
    objects = rendered(DEPLOY / "cluster-wide")
    chosen = settings.load(environment(objects))
    generated = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
    expected = {
        "leases": chosen.kubernetes.lease,
        "services": chosen.exposure.objects,
        "ingresses": chosen.exposure.objects,
        "gateways": chosen.exposure.objects,
        "tlsroutes": chosen.exposure.objects,
        "deployments": chosen.exposure.deployment,
        "secrets": chosen.tls.issued_secret,
    }
    found = {
        resource: name
        for role in of_kind(objects, "Role")
        for rule in role["rules"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ())
    }
    assert found == expected
    assert not generated & set(found.values())
    assert chosen.exposure.deployment == only(objects, "Deployment")["metadata"]["name"]


@pytest.mark.parametrize("component", ["route", "ingress", "gateway", "openshift"])
def test_a_component_names_the_same_objects(component: str, tmp_path: Path) -> None:
    objects = rendered(overlay(tmp_path, "cluster-wide", [component]))
    (role,) = (
        one for one in of_kind(objects, "Role") if one["metadata"]["name"].endswith(component)
    )
    names = {name for rule in role["rules"] for name in rule.get("resourceNames", ())}
    assert names == {settings.load(environment(objects) | WHERE).exposure.objects}


@pytest.mark.parametrize("component", ["route", "ingress", "gateway"])
def test_the_component_of_a_way_in_chooses_it(component: str, tmp_path: Path) -> None:
    objects = rendered(overlay(tmp_path, "cluster-wide", [component]))
    assert settings.load(environment(objects) | WHERE).exposure.way == component


def test_the_certificate_of_somebody_else_is_the_one_that_may_be_read(tmp_path: Path) -> None:
    objects = rendered(overlay(tmp_path, "cluster-wide", ["tls-secret"]))
    (role,) = (one for one in of_kind(objects, "Role") if "tls-secret" in one["metadata"]["name"])
    (rule,) = role["rules"]
    assert rule["resourceNames"] == [settings.load(environment(objects)).tls.secret]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("components", [(), ("postgresql",)])
def test_pods_are_as_restricted_as_kubernetes_knows(
    way: str, components: Sequence[str], tmp_path: Path
) -> None:
    """The profile `restricted` of the Pod Security Standards, and a root that nobody writes to."""
    spec = pod(rendered(overlay(tmp_path, way, components)))
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    for volume in spec["volumes"]:
        assert volume.keys() - {"name"} <= {"persistentVolumeClaim", "secret", "emptyDir"}
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"].keys() == {"memory"}


def test_on_openshift_nobody_says_who_the_server_runs_as(tmp_path: Path) -> None:
    context = pod(rendered(overlay(tmp_path, "namespaced", ["openshift"])))["securityContext"]
    assert not context.keys() & {"runAsUser", "runAsGroup", "fsGroup"}
    assert context["runAsNonRoot"] is True


@pytest.mark.parametrize("way", WAYS)
def test_there_is_one_server_on_sqlite_and_never_two_at_once(way: str) -> None:
    spec = only(rendered(DEPLOY / way), "Deployment")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("way", WAYS)
def test_several_share_a_postgresql_database(way: str, tmp_path: Path) -> None:
    objects = rendered(overlay(tmp_path, way, ["postgresql"]))
    spec = only(objects, "Deployment")["spec"]
    assert spec["replicas"] > 1
    assert spec["strategy"]["type"] == "RollingUpdate"
    assert of_kind(objects, "PersistentVolumeClaim") == []
    url = settings.load(environment(objects)).database.url
    assert url.startswith("postgresql://")


def test_the_secrets_that_pods_need_are_those_that_the_handbook_makes(tmp_path: Path) -> None:
    objects = rendered(overlay(tmp_path, "namespaced", ["postgresql"]))
    spec = pod(objects)
    (mounted,) = (one["secret"]["secretName"] for one in spec["volumes"] if "secret" in one)
    file = settings.load(environment(objects)).sealing.key_file.name
    assert f"create secret generic {mounted} --from-file={file}" in PAGE
    (url,) = (one["valueFrom"]["secretKeyRef"] for one in spec["containers"][0]["env"])
    assert f"create secret generic {url['name']} --from-literal={url['key']}=" in PAGE


def test_no_secret_is_among_the_manifests() -> None:
    for path in DEPLOY.rglob("*.yaml"):
        for one in yaml.safe_load_all(path.read_text()):
            assert one["kind"] not in {"Secret", "SealedSecret"}


def test_the_listener_for_operators_is_not_exposed_with_the_other() -> None:
    services = of_kind(rendered(DEPLOY / "cluster-wide"), "Service")
    ports = {one["metadata"]["name"]: one["spec"]["ports"] for one in services}
    assert [one["name"] for one in ports["grantserver"]] == ["redemption"]
    assert [one["name"] for one in ports["grantserver-ops"]] == ["ops"]


def test_an_api_server_takes_what_it_knows_of_them(fake_kube: FakeKube) -> None:
    fake_kube.namespace("grantserver")
    objects = rendered(DEPLOY / "cluster-wide")
    known = [*of_kind(objects, "Service"), *of_kind(objects, "ConfigMap")]
    for one in known:
        fake_kube.create(one)
    assert len(known) == 3


KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl to compare with")


def kubectl(*words: str, config: Path | None = None) -> str:
    assert KUBECTL is not None
    home = {"KUBECONFIG": str(config)} if config else {"KUBECONFIG": os.devnull}
    done = subprocess.run(
        [KUBECTL, *words],
        env={**os.environ, **home},  # noqa: TID251 - handed on as it is
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def without_hashes(found: Any) -> Any:
    """Take away what kubectl adds to the names of ConfigMaps that it generates."""
    if isinstance(found, Mapping):
        return {key: without_hashes(one) for key, one in found.items()}
    if isinstance(found, list):
        return [without_hashes(one) for one in found]
    if isinstance(found, str):
        return re.sub(r"^(grantserver-settings)-[a-z0-9]{10}$", r"\1", found)
    return found


def by_name(objects: Sequence[Object]) -> dict[tuple[str, str], Object]:
    found = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    assert len(found) == len(objects)
    return found


@needs_kubectl
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("components", [(), ("postgresql",), COMPONENTS])
def test_kubectl_makes_the_same_of_them_as_these_tests_do(
    way: str, components: Sequence[str], tmp_path: Path
) -> None:
    folder = overlay(tmp_path, way, components)
    made = list(yaml.safe_load_all(kubectl("kustomize", str(folder))))
    assert by_name(without_hashes(made)) == by_name(rendered(folder))


@needs_kubectl
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("components", [(), ("postgresql",), COMPONENTS])
def test_a_real_api_server_takes_all_of_them(
    way: str, components: Sequence[str], real_kube: RealKube, tmp_path: Path
) -> None:
    real_kube.namespace(OUR_NAMESPACE)
    real_kube.namespace("served")
    config = real_kube.kubeconfig(tmp_path / "config")
    folder = overlay(tmp_path, way, components)
    options = ("--validate=true", "--wait=false")
    served = ("-n", "served", "-k", str(DEPLOY / "served-namespace"))
    try:
        kubectl("apply", options[0], "-k", str(folder), config=config)
        again = kubectl("apply", options[0], "-k", str(folder), config=config)
        assert {line.split()[-1] for line in again.splitlines()} == {"unchanged"}
        kubectl("apply", options[0], *served, config=config)
        name = "system:serviceaccount:grantserver:grantserver"
        asked = ("auth", "can-i", "get", "secrets", "-n", "served", "--as", name)
        assert kubectl(*asked, config=config).strip() == "yes"
    finally:
        kubectl("delete", options[1], "--ignore-not-found", *served, config=config)
        kubectl("delete", options[1], "--ignore-not-found", "-k", str(folder), config=config)
