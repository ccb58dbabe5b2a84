"""The rights that the chart gives are those of the manifests, which a server is run with."""

from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from tests.deploy.kustomize import DEPLOY, Object
from tests.deploy.kustomize import rendered as kustomized
from tests.deploy.rights import Right, named, rules
from tests.helm.rendering import rendered

HOME = "grantserver"


def rights(objects: Sequence[Object], account: str = HOME) -> dict[str, set[Right]]:
    """What an account may do, by namespace; "" is everywhere."""
    found: dict[str, set[Right]] = {}
    for rule in rules(objects, account, HOME):
        for place in rule.get("namespaces", [""]):
            found.setdefault(place, set()).update(named([rule]))
    return found


def shipped(tmp_path: Any, way: str, components: Sequence[str]) -> dict[str, set[Right]]:
    folder = tmp_path / "ours"
    folder.mkdir()
    told = {
        "namespace": HOME,
        "resources": [str(DEPLOY / way)],
        "components": [str(DEPLOY / one) for one in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(told))
    return rights(kustomized(folder))


def in_config(group: str, **settings: Any) -> dict[str, Any]:
    return {"config": {group: settings}}


ALL = {"kubernetes": {"namespaces": ["*"]}}


@pytest.mark.parametrize(
    ("values", "way", "components"),
    [
        ({}, "namespaced", []),
        ({"config": ALL}, "cluster-wide", []),
        ({"config": {**ALL, "exposure": {"type": "route"}}}, "cluster-wide", ["route"]),
        ({"config": {**ALL, "exposure": {"type": "ingress"}}}, "cluster-wide", ["ingress"]),
        ({"config": {**ALL, "exposure": {"type": "gateway"}}}, "cluster-wide", ["gateway"]),
        ({"config": ALL, "openshift": True}, "cluster-wide", ["openshift", "route"]),
        (
            {"config": {**ALL, "reach": {"url": "https://x.example"}}, "openshift": True},
            "cluster-wide",
            ["openshift"],
        ),
        (
            {"config": {**ALL, "tls": {"secret": "grantserver-certificate"}}},
            "cluster-wide",
            ["tls-secret"],
        ),
        (
            {"config": {"kubernetes": {"namespaces": ["*"], "token_namespaces": ["*"]}}},
            "cluster-wide",
            ["connecting"],
        ),
        (
            {"config": {"kubernetes": {"namespaces": [], "token_namespaces": ["*"]}}},
            "server",
            ["connecting"],
        ),
        ({"config": {**ALL, "admin": {"accounts": True}}}, "cluster-wide", ["callers"]),
    ],
)
def test_they_are_those_of_the_manifests(
    values: dict[str, Any], way: str, components: list[str], tmp_path: Any
) -> None:
    found = rights(rendered(values))
    assert found == shipped(tmp_path, way, components)
    assert found[HOME]


@pytest.mark.parametrize(
    ("setting", "folder"),
    [("namespaces", "served-namespace"), ("token_namespaces", "connecting-namespace")],
)
def test_single_namespaces_have_a_role_each_and_there_is_none_for_the_others(
    setting: str, folder: str
) -> None:
    served = {"namespaces": [], setting: ["north", "south"]}
    found = rights(rendered({"config": {"kubernetes": served}}))
    assert set(found) == {HOME, "north", "south"}
    for namespace in ("north", "south"):
        wanted = rights(kustomized(DEPLOY / folder, namespace=namespace))
        assert found[namespace] == wanted[namespace]


def test_the_names_in_roles_are_those_of_the_settings() -> None:
    values = {
        "exposure": {"name": "front/door", "type": "ingress", "deployment": "gate"},
        "tls": {"secret": "certificates/ours", "issued_secret": "shown"},
        "kubernetes": {"lease": "leases/one"},
    }
    found = rights(rendered({"config": values}))
    assert ("", "services", "patch", "door") in found["front"]
    assert ("networking.k8s.io", "ingresses", "patch", "door") in found["front"]
    assert ("apps", "deployments", "get", "gate") in found["front"]
    assert found["certificates"] == {("", "secrets", verb, "ours") for verb in ("list", "watch")}
    assert ("", "secrets", "patch", "shown") in found[HOME]
    assert ("coordination.k8s.io", "leases", "update", "one") in found["leases"]
    names = {name for each in found.values() for _, _, _, name in each}
    assert names == {"", "door", "gate", "ours", "shown", "one"}


def test_no_certificate_is_shown_and_no_deployment_looked_at_where_settings_say_so() -> None:
    values = {"exposure": {"deployment": ""}, "tls": {"issued_secret": ""}}
    found = rights(rendered({"config": values}))
    assert "apps" not in {group for group, _, _, _ in found[HOME]}
    assert "grantserver-tls" not in {name for _, _, _, name in found[HOME]}


def test_rights_and_account_may_be_those_of_somebody_else() -> None:
    objects = rendered({"rbac": {"create": False}})
    assert not [one for one in objects if "Role" in one["kind"]]
    named_otherwise = {"serviceAccount": {"create": False, "name": "ours"}}
    objects = rendered(named_otherwise)
    assert not [one for one in objects if one["kind"] == "ServiceAccount"]
    assert rights(objects, "ours") == rights(rendered({}))


def test_two_releases_in_two_namespaces_do_not_share_what_is_outside_of_them() -> None:
    names = [
        {
            one["metadata"]["name"]
            for one in rendered({"config": ALL}, namespace=namespace)
            if one["kind"].startswith("Cluster")
        }
        for namespace in ("one", "two")
    ]
    assert names[0]
    assert not names[0] & names[1]
