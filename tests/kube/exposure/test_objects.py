import copy
from typing import Any

import pytest

from app.kube.exposure.objects import MANAGER, is_as_wanted, is_ours, kept, owned_by
from app.kube.exposure.plan import MARK
from app.kube.resources import Object
from tests.kube.exposure.scene import INSTALLATION, OUR_LABELS

OURS = {
    "manager": MANAGER,
    "operation": "Apply",
    "fieldsV1": {
        "f:metadata": {"f:labels": {f"f:{MARK}": {}}},
        "f:spec": {
            "f:type": {},
            "f:ports": {'k:{"port":9090,"protocol":"TCP"}': {".": {}, "f:port": {}, "f:name": {}}},
        },
    },
}
THEIRS = {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:more": {}}}}
WANTED: Object = {
    "metadata": {"labels": {MARK: INSTALLATION}},
    "spec": {"type": "ClusterIP", "ports": [{"name": "in", "port": 9090, "protocol": "TCP"}]},
}


def found(**changes: Any) -> Object:
    made = copy.deepcopy(WANTED)
    made["metadata"] |= {"name": "x", "namespace": "y", "managedFields": [THEIRS, OURS]}
    made["spec"] |= {"clusterIP": "10.0.0.1", "more": True}
    made["spec"] |= changes
    return made


def test_what_is_kept_is_what_is_read() -> None:
    whole = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "x",
            "namespace": "y",
            "uid": "1",
            "resourceVersion": "2",
            "labels": OUR_LABELS,
            "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [THEIRS, OURS],
        },
        "spec": {"a": 1},
        "status": {"b": 2},
    }
    made = kept(whole)
    assert made.keys() == {"metadata", "spec", "status"}
    assert made["metadata"]["managedFields"] == [OURS]
    assert made["metadata"]["generation"] == 3
    assert "creationTimestamp" not in made["metadata"]
    assert is_ours(made, INSTALLATION)


@pytest.mark.parametrize(
    ("labels", "managers", "ours"),
    [
        (OUR_LABELS, [OURS], True),
        (OUR_LABELS, [], False),
        (OUR_LABELS, [OURS | {"operation": "Update"}], False),
        (OUR_LABELS, [OURS | {"manager": "kubectl"}], False),
        (OUR_LABELS, [OURS | {"subresource": "status"}], False),
        ({MARK: "another"}, [OURS], False),
        ({}, [OURS], False),
        (None, [OURS], False),
    ],
)
def test_ours_is_what_has_our_mark_and_was_applied_by_us(
    labels: dict[str, str] | None, managers: list[Object], ours: bool
) -> None:
    metadata = {"name": "x", "labels": labels, "managedFields": managers}
    assert is_ours({"metadata": metadata}, INSTALLATION) is ours


def test_what_others_add_is_theirs() -> None:
    assert is_as_wanted(found(), WANTED)
    ports = [*found()["spec"]["ports"], {"name": "theirs", "port": 1, "protocol": "TCP"}]
    assert is_as_wanted(found(ports=ports), WANTED)


def test_what_is_otherwise_is_not_as_wanted() -> None:
    assert not is_as_wanted(found(type="NodePort"), WANTED)
    assert not is_as_wanted(found(ports=[]), WANTED)
    assert not is_as_wanted(found(ports="x"), WANTED)
    other = [{"name": "other", "port": 9090, "protocol": "TCP"}]
    assert not is_as_wanted(found(ports=other), WANTED)
    gone = found()
    del gone["spec"]["type"]
    assert not is_as_wanted(gone, WANTED)
    assert not is_as_wanted({**found(), "spec": None}, WANTED)


def test_what_was_wanted_before_and_is_no_more_is_not_as_wanted() -> None:
    """A field, an item of a list, and what is in one."""
    for change in (
        {"spec": {"ports": WANTED["spec"]["ports"]}},
        {"spec": {"type": "ClusterIP", "ports": [{"port": 9090, "protocol": "TCP"}]}},
        {"spec": {"type": "ClusterIP", "ports": []}},
        {"spec": {"type": "ClusterIP"}},
    ):
        assert not is_as_wanted(found(), WANTED | change), change


def test_a_list_that_is_one_field_has_nothing_more_in_it() -> None:
    wanted = {"metadata": {}, "spec": {"hostnames": ["a.example"]}}
    managed = [OURS | {"fieldsV1": {"f:spec": {"f:hostnames": {}}}}]

    def is_so(*hostnames: str) -> bool:
        there = {"metadata": {"managedFields": managed}, "spec": {"hostnames": list(hostnames)}}
        return is_as_wanted(there, wanted)

    assert is_so("a.example")
    assert not is_so("a.example", "b.example")
    assert not is_so("b.example")


def test_an_owner_is_named_by_its_uid() -> None:
    deployment = {"metadata": {"name": "grantserver", "uid": "7"}}
    body = owned_by(WANTED, deployment)
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Deployment", "grantserver", "7")
    assert "ownerReferences" not in WANTED["metadata"]
    assert owned_by(WANTED, None) == WANTED
    other = found()
    other["metadata"]["ownerReferences"] = [owner | {"uid": "8"}, owner]
    assert is_as_wanted(other, body)
    other["metadata"]["ownerReferences"] = [owner | {"uid": "8"}]
    assert not is_as_wanted(other, body)
