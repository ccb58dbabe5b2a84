"""What the chart makes is what Kubernetes takes, for every example, and nothing more than asked."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from app.crypto import sealing
from helm.writing import CHART, DEPLOY
from tests.helm.rendering import (
    LEAST,
    NAMES,
    POSTGRESQL,
    Object,
    documents,
    each_example,
    example,
    files,
    helm,
    merged,
    of_kind,
    only,
    pod,
    rendered,
)

VERSION = "1.34"
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
SELECTOR = {
    "type": "object",
    "required": ["matchLabels"],
    "properties": {"matchLabels": LABELS},
    "additionalProperties": False,
}
ENDPOINTS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["port"],
        "properties": {
            "port": {"type": "string"},
            "path": {"type": "string", "pattern": "^/"},
            "interval": {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"},
        },
        "additionalProperties": False,
    },
}
RULES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["expr"],
        "properties": {
            "alert": {"type": "string"},
            "record": {"type": "string"},
            "expr": {"type": "string"},
            "for": {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"},
            "keep_firing_for": {"type": "string"},
            "labels": LABELS,
            "annotations": LABELS,
        },
        "additionalProperties": False,
    },
}
# What the operator's definitions say of the fields that we use; all others are refused here.
OPERATOR: dict[str, Any] = {
    "ServiceMonitor": {"selector": SELECTOR, "endpoints": ENDPOINTS},
    "PodMonitor": {"selector": SELECTOR, "podMetricsEndpoints": ENDPOINTS},
    "PrometheusRule": {
        "groups": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "rules"],
                "properties": {
                    "name": {"type": "string"},
                    "interval": {"type": "string"},
                    "rules": RULES,
                },
                "additionalProperties": False,
            },
        }
    },
}
EVERYTHING: dict[str, Any] = {
    "database": POSTGRESQL,
    "replicas": 2,
    "metrics": {"podMonitor": {"enabled": True}, "dashboard": {"enabled": True}},
    "networkPolicy": {
        "enabled": True,
        "redemptionFrom": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        "egress": [{"ports": [{"port": 5432}]}],
    },
    "podDisruptionBudget": {"enabled": True, "maxUnavailable": "25%"},
    "autoscaling": {
        "enabled": True,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
    },
    "topologySpread": {
        "constraints": [
            {
                "maxSkew": 2,
                "topologyKey": "example.com/rack",
                "whenUnsatisfiable": "DoNotSchedule",
            }
        ]
    },
    "commonLabels": {"team": "network"},
    "commonAnnotations": {"example.com/owner": "network"},
    "serviceAccount": {"annotations": {"example.com/role": "x"}},
    "service": {"annotations": {"example.com/zone": "x"}, "port": 9443},
    "deploymentAnnotations": {"example.com/reload": "true"},
    "podAnnotations": {"example.com/inject": "false"},
    "podLabels": {"example.com/tier": "front"},
    "priorityClassName": "high",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "edge", "operator": "Exists"}],
    "affinity": {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "preference": {"matchExpressions": [{"key": "edge", "operator": "Exists"}]},
                }
            ]
        }
    },
    "extraEnv": [{"name": "GRANTSERVER_LOGS_LEVEL", "value": "debug"}],
    "extraEnvFrom": [{"secretRef": {"name": "more"}}],
    "extraVolumes": [{"name": "certificate", "secret": {"secretName": "certificate"}}],
    "extraVolumeMounts": [{"name": "certificate", "mountPath": "/run/tls", "readOnly": True}],
    "extraInitContainers": [{"name": "wait", "image": "registry.example.com/wait:1"}],
    "image": {"pullSecrets": ["registry"], "pullPolicy": "Always"},
}
SQLITE = {
    "persistence": {
        "storageClass": "fast",
        "size": "5Gi",
        "annotations": {"example.com/backup": "daily"},
    }
}


def validated(objects: list[Object]) -> None:
    """Hold all of them against what Kubernetes says of them, and refuse what it does not know."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    names = [
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects
    ]
    assert len(names) == len(set(names))
    for one in objects:
        kind = one["kind"]
        if kind in OPERATOR:
            shape = {
                "type": "object",
                "properties": OPERATOR[kind],
                "required": list(OPERATOR[kind]),
                "additionalProperties": False,
            }
            jsonschema.validate(one["spec"], shape)
            assert one["apiVersion"] == "monitoring.coreos.com/v1"
            assert one.keys() == {"apiVersion", "kind", "metadata", "spec"}
        elif kind != "CustomResourceDefinition":
            kubernetes_validate.validate(one, VERSION, strict=True)
        for value in (one["metadata"].get("labels") or {}).values():
            assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value)


@each_example
def test_lint_has_nothing_to_say(name: str) -> None:
    found = helm().lint(str(CHART), example(name), strict=True, kube_version="v1.34.0")
    worth_a_word = [one for one in found["messages"] if one["severity"] > 1]
    assert (worth_a_word, found["errors"]) == ([], [])


@each_example
def test_kubernetes_takes_what_the_examples_make(name: str) -> None:
    values = example(name)
    made = list(documents(files(values)))
    validated(made)
    restricted(made)


@pytest.mark.parametrize("values", [{}, SQLITE, EVERYTHING], ids=["least", "sqlite", "everything"])
def test_kubernetes_takes_whatever_values_say(values: dict[str, Any]) -> None:
    validated(rendered(values))


def test_each_of_many_values_is_somewhere_in_what_is_made() -> None:
    objects = rendered(EVERYTHING)
    (server,) = pod(objects)["containers"]
    assert EVERYTHING["extraEnv"][0] in server["env"]
    assert server["envFrom"] == EVERYTHING["extraEnvFrom"]
    assert EVERYTHING["extraVolumeMounts"][0] in server["volumeMounts"]
    assert EVERYTHING["extraVolumes"][0] in pod(objects)["volumes"]
    assert [one["name"] for one in pod(objects)["initContainers"]] == ["wait", "database"]
    for key in ("priorityClassName", "nodeSelector", "tolerations", "affinity"):
        assert pod(objects)[key] == EVERYTHING[key]
    assert pod(objects)["topologySpreadConstraints"] == EVERYTHING["topologySpread"]["constraints"]
    assert pod(objects)["imagePullSecrets"] == [{"name": "registry"}]
    template = only(objects, "Deployment")["spec"]["template"]["metadata"]
    assert template["labels"]["example.com/tier"] == "front"
    assert template["annotations"]["example.com/inject"] == "false"
    policy = only(objects, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == EVERYTHING["networkPolicy"]["egress"]
    assert policy["ingress"][0]["from"] == EVERYTHING["networkPolicy"]["redemptionFrom"]
    for one in objects:
        if one["kind"] != "CustomResourceDefinition":
            assert one["metadata"]["labels"]["team"] == "network"
            assert one["metadata"]["annotations"]["example.com/owner"] == "network"
    assert "replicas" not in only(objects, "Deployment")["spec"]
    assert only(objects, "HorizontalPodAutoscaler")["spec"]["minReplicas"] == 2
    assert only(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == "25%"


def restricted(objects: list[Object]) -> None:
    """The profile `restricted` of the Pod Security Standards, and a root that nobody writes to."""
    spec = pod(objects)
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context.get("runAsUser") != 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "hostUsers"}
    allowed = {"persistentVolumeClaim", "secret", "emptyDir", "configMap"}
    for volume in spec["volumes"]:
        assert volume.keys() - {"name"} <= allowed
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert not any("hostPort" in port for port in container.get("ports", ()))


def test_openshift_chooses_who_the_server_runs_as() -> None:
    context = pod(rendered({"openshift": True}))["securityContext"]
    assert not context.keys() & {"runAsUser", "runAsGroup", "fsGroup"}
    restricted(rendered({"openshift": True}))


def test_the_security_of_pods_may_be_changed() -> None:
    objects = rendered({"podSecurityContext": {"runAsUser": 1000, "supplementalGroups": [7]}})
    context = pod(objects)["securityContext"]
    assert (context["runAsUser"], context["runAsNonRoot"]) == (1000, True)
    assert context["supplementalGroups"] == [7]


def test_there_is_one_server_on_sqlite_and_never_two_at_once() -> None:
    objects = rendered({})
    spec = only(objects, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    claim = only(objects, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    (data,) = (one for one in pod(objects)["volumes"] if one["name"] == "data")
    assert data["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}


def test_a_volume_of_yours_is_taken_and_one_of_ours_may_go() -> None:
    objects = rendered({"persistence": {"existingClaim": "ours"}})
    assert not of_kind(objects, "PersistentVolumeClaim")
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "ours"}} in pod(objects)[
        "volumes"
    ]
    claim = only(rendered({"persistence": {"keep": False}}), "PersistentVolumeClaim")
    assert "annotations" not in claim["metadata"]


def test_several_share_a_postgresql_database_and_are_spread() -> None:
    objects = rendered({"database": POSTGRESQL, "replicas": 3})
    spec = only(objects, "Deployment")["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}}
    assert not of_kind(objects, "PersistentVolumeClaim")
    keys = [one["topologyKey"] for one in pod(objects)["topologySpreadConstraints"]]
    assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    without = {"database": POSTGRESQL, "topologySpread": {"enabled": False}}
    assert "topologySpreadConstraints" not in pod(rendered(without))
    assert "topologySpreadConstraints" not in pod(rendered({}))


def test_what_selects_pods_selects_those_of_this_release() -> None:
    objects = rendered(
        {
            "database": POSTGRESQL,
            "podDisruptionBudget": {"enabled": True},
            "networkPolicy": {"enabled": True},
            "metrics": {"podMonitor": {"enabled": True}},
        },
        name="blue",
    )
    selectors = [one["spec"]["selector"] for one in of_kind(objects, "Service")]
    selectors += [
        only(objects, kind)["spec"]["selector"]["matchLabels"]
        for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor")
    ]
    selectors.append(only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    wanted = {"app.kubernetes.io/name": "grantserver", "app.kubernetes.io/instance": "blue"}
    assert all(one == wanted for one in selectors)
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert wanted.items() <= labels.items()


def test_the_service_monitor_sees_the_service_with_metrics_alone() -> None:
    objects = rendered({"metrics": {"serviceMonitor": {"enabled": True, "labels": {"a": "b"}}}})
    monitor = only(objects, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["a"] == "b"
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    seen = [
        one["metadata"]["name"]
        for one in of_kind(objects, "Service")
        if wanted <= one["metadata"]["labels"].items()
    ]
    assert seen == ["grantserver-ops"]


def test_ports_that_are_named_are_there() -> None:
    on = {"enabled": True}
    objects = rendered({"metrics": {"serviceMonitor": on}, "networkPolicy": on})
    (server,) = pod(objects)["containers"]
    of_pods = {one["name"] for one in server["ports"]}
    services = [port for one in of_kind(objects, "Service") for port in one["spec"]["ports"]]
    assert {one["targetPort"] for one in services} == of_pods
    (endpoint,) = only(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] in {one["name"] for one in services}
    (endpoint,) = only(rendered({"metrics": {"podMonitor": on}}), "PodMonitor")["spec"][
        "podMetricsEndpoints"
    ]
    assert endpoint["port"] in of_pods
    probes = [server[f"{one}Probe"]["httpGet"] for one in ("startup", "readiness", "liveness")]
    assert {one["port"] for one in probes} == {"ops"} <= of_pods
    assert [one["path"] for one in probes] == ["/readyz", "/readyz", "/healthz"]
    policy = only(objects, "NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for rule in policy for port in rule["ports"]} == of_pods


def test_ports_are_those_of_the_listeners() -> None:
    listen = {"redemption": "[::]:8443", "ops": "127.0.0.1:8081"}
    (server,) = pod(rendered({"config": {"listen": listen}}))["containers"]
    assert server["ports"] == [
        {"name": "redemption", "protocol": "TCP", "containerPort": 8443},
        {"name": "ops", "protocol": "TCP", "containerPort": 8081},
    ]


def test_the_image_is_that_of_the_values() -> None:
    def image(**values: str) -> str:
        spec = pod(rendered({"image": values}))
        (one,) = {each["image"] for each in (*spec["containers"], *spec["initContainers"])}
        return str(one)

    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    digest = f"sha256:{'a' * 64}"
    assert image() == f"registry.example.com/grantserver:{version}"
    assert image(tag="1") == "registry.example.com/grantserver:1"
    assert image(tag="1", digest=digest) == f"registry.example.com/grantserver@{digest}"


def test_keys_that_the_chart_makes_are_such_as_the_server_takes(tmp_path: Path) -> None:
    given = {"sealing": {"existingSecret": "", "create": True}}
    found = []
    for path in (tmp_path / "one", tmp_path / "two"):
        secret = only(rendered(given), "Secret")
        assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        path.write_bytes(base64.b64decode(secret["data"]["sealing.keys"]))
        path.chmod(0o600)
        sealing.load_or_create(path, lambda _: b"")
        found.append(path.read_text())
    assert found[0] != found[1]


def test_the_definitions_stay_and_are_those_that_we_know() -> None:
    made = of_kind(rendered({}), "CustomResourceDefinition")
    known = [yaml.safe_load(path.read_text()) for path in sorted((DEPLOY / "crds").iterdir())]
    for one in made:
        annotations = one["metadata"]["annotations"]
        assert annotations.pop("helm.sh/resource-policy") == "keep"
        if not annotations:
            del one["metadata"]["annotations"]
    assert made == known
    assert not of_kind(rendered({"crds": {"create": False}}), "CustomResourceDefinition")


def test_rules_and_dashboard_are_those_of_the_monitoring_folder() -> None:
    folder = DEPLOY / "monitoring"
    wanted = {"prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}
    objects = rendered({"metrics": wanted})
    rules = yaml.safe_load((folder / "alerts.yaml").read_text())
    assert only(objects, "PrometheusRule")["spec"] == rules
    (config,) = (one for one in of_kind(objects, "ConfigMap") if "grantserver.json" in one["data"])
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads((folder / "dashboard.json").read_text())
    assert json.loads(config["data"]["grantserver.json"]) == dashboard


def test_alerts_lead_to_the_runbooks_that_are_named() -> None:
    page = "https://wiki.example.com/runbooks"
    wanted = {"prometheusRule": {"enabled": True, "runbookUrl": page}}
    rule = only(rendered(merged(LEAST, {"metrics": wanted})), "PrometheusRule")
    links = [
        one["annotations"]["runbook_url"]
        for group in rule["spec"]["groups"]
        for one in group["rules"]
    ]
    assert links
    assert all(link.startswith(f"{page}#grantserver") for link in links)


def test_the_plain_manifests_are_taken_too() -> None:
    for path in sorted((DEPLOY / "manifests").iterdir()):
        text = path.read_text()
        made = [one for one in yaml.load_all(text, yaml.CSafeLoader) if one]
        validated(made)
        restricted(made)
        assert "helm.sh" not in text
        assert "Secret" not in {one["kind"] for one in made}
        assert path.stem in NAMES
        assert "annotations" not in only(made, "Deployment")["metadata"]


def test_values_that_are_put_over_an_example_stay_apart_from_it() -> None:
    before = merged(LEAST, {})
    merged(LEAST, {"image": {"repository": "x"}})
    assert merged(LEAST, {}) == before


def test_one_of_several_replicas_that_ends_is_still_reached_for_a_while() -> None:
    several = merged(LEAST, {"database": POSTGRESQL, "replicas": 2})
    [container] = pod(rendered(several))["containers"]
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    for values in (LEAST, merged(several, {"drainSeconds": 0})):
        [container] = pod(rendered(values))["containers"]
        assert "lifecycle" not in container


def test_storage_time_to_end_and_scrapes_are_as_they_were_asked_for() -> None:
    wanted = {
        "persistence": {"storageClass": "fast"},
        "terminationGracePeriodSeconds": 77,
        "metrics": {"podMonitor": {"enabled": True, "interval": "17s"}},
    }
    objects = rendered(wanted)
    assert only(objects, "PersistentVolumeClaim")["spec"]["storageClassName"] == "fast"
    assert pod(objects)["terminationGracePeriodSeconds"] == 77
    [scrape] = only(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert scrape == {"port": "ops", "path": "/metrics", "interval": "17s"}
    [container] = pod(objects)["containers"]
    assert {"port": scrape["port"]} in [{"port": one["name"]} for one in container["ports"]]
    monitored = rendered({"metrics": {"serviceMonitor": {"enabled": True, "interval": "17s"}}})
    [scrape] = only(monitored, "ServiceMonitor")["spec"]["endpoints"]
    assert scrape == {"port": "ops", "path": "/metrics", "interval": "17s"}


def test_the_data_directory_is_the_charts_whatever_the_image_has() -> None:
    """A variable of the image would win over the file, and the database be elsewhere."""
    for values, directory in (
        ({}, "/var/lib/grantserver/data"),
        ({"config": {"data": {"dir": "/srv/data"}}}, "/srv/data"),
    ):
        spec = pod(rendered(values))
        for container in (*spec["initContainers"], *spec["containers"]):
            given = {one["name"]: one.get("value") for one in container["env"]}
            assert given["GRANTSERVER_DATA_DIR"] == directory
