"""What does not go together is refused before anything is made, with what to do instead."""

from typing import Any

import pytest

from tests.helm.rendering import IMAGE, LEAST, POSTGRESQL, merged, notes, refusal, rendered

CASES: list[tuple[dict[str, Any], str]] = [
    ({"replicas": 2}, "replicas=2, and SQLite serves one"),
    ({"autoscaling": {"enabled": True}}, "autoscaling.enabled, and SQLite serves one"),
    ({"podDisruptionBudget": {"enabled": True}}, "SQLite serves one replica"),
    ({"database": {"type": "postgresql"}}, "needs the URL of a database"),
    ({"database": {**POSTGRESQL, "url": "postgresql://x/y"}}, "are both set"),
    ({"database": {"existingSecret": "x"}}, "set database.type=postgresql"),
    ({"database": {"url": "postgresql://x/y"}}, "set database.type=postgresql"),
    ({"sealing": {"create": True}}, "are both set"),
    ({"sealing": {"existingSecret": ""}}, "--set sealing.existingSecret=grantserver-sealing"),
    ({"image": {"repository": ""}}, "--set image.repository="),
    ({"config": {"kubernetes": {"namespaces": []}}}, "Nobody is served"),
    ({"config": {"kubernetes": {"namespaces": ["*", "west"]}}}, "stands alone"),
    ({"config": {"kubernetes": {"token_namespaces": ["east", "*"]}}}, "stands alone"),
    ({"config": {"kubernetes": {"namespaces": ["west", ""]}}}, "minLength: got 0"),
    ({"config": {"kubernetes": {"namespaces": ["{{ .Values.nameOverride }}"]}}}, "no name of a"),
    ({"config": {"kubernetes": {"token_namespaces": ["Bad_NS"]}}}, "no name of a namespace"),
    ({"config": {"kubernetes": {"namespaces": ["west", "west"]}}}, "twice"),
    ({"config": {"exposure": {"type": "url"}}}, "config.reach.url"),
    ({"config": {"listen": {"ops": "9091"}}}, "no HOST:PORT"),
    ({"config": {"listen": {"ops": "[::]:9090"}}}, "have the same port 9090"),
    ({"autoscaling": {"minReplicas": 7}}, "is more than autoscaling.maxReplicas=6"),
    ({"config": {"certificates": {"lifetime": "90d"}}}, "does not match pattern"),
    ({"terminationGracePeriodSeconds": 5}, "minimum: got 5, want 20"),
    ({"drainSeconds": 11}, "terminationGracePeriodSeconds=30 is too short"),
    (
        {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
        "counted twice",
    ),
]


@pytest.mark.parametrize(("values", "said"), CASES, ids=[said for _, said in CASES])
def test_it_is_said_what_does_not_go_together(values: dict[str, Any], said: str) -> None:
    assert said in refusal(merged(LEAST, values))


def test_a_url_that_is_refused_is_not_shown() -> None:
    url = "postgresql://grantserver:hunter2@database.example.com/grantserver"
    assert "hunter2" not in refusal(merged(LEAST, {"database": {"url": url}}))


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 2, "database": POSTGRESQL},
        {"replicas": 0},
        {"config": {"kubernetes": {"namespaces": []}, "reach": {"url": "https://x.example"}}},
        {"sealing": {"existingSecret": ""}, "config": {"sealing": {"key_file": "/run/keys/x"}}},
    ],
)
def test_what_goes_together_is_not_refused(values: dict[str, Any]) -> None:
    assert rendered(values)


def test_nothing_but_the_image_and_the_keys_has_to_be_said() -> None:
    assert "image.repository is empty" in refusal({"sealing": {"create": True}})
    assert "keys that protect the database" in refusal({"image": IMAGE})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "kubectl -n grantserver get service grantserver-public"),
        ({}, "namespace: grantserver"),
        ({}, "kubectl -n grantserver exec deploy/grantserver -- grantserver doctor"),
        ({"config": {"kubernetes": {"namespaces": ["*"]}}}, "namespace: west"),
        ({"config": {"reach": {"url": "https://grants.example"}}}, "\n  https://grants.example\n"),
        ({"config": {"exposure": {"type": "route"}}}, "get route grantserver-public"),
        ({"config": {"kubernetes": {"token_namespaces": ["*"]}}}, "get accesstokens,links -A"),
        ({"sealing": {"existingSecret": "", "create": True}}, "get secret grantserver-sealing"),
        ({"rbac": {"create": False}}, "has no rights"),
    ],
)
def test_the_next_command_is_said(values: dict[str, Any], said: str) -> None:
    assert said in notes(values)


def test_a_connecting_side_is_not_told_of_grants() -> None:
    told = notes({"config": {"kubernetes": {"namespaces": [], "token_namespaces": ["east"]}}})
    assert "AccessGrant" not in told
    assert "doctor" not in told
