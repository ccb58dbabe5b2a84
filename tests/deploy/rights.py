"""What manifests allow a service account, in the form that an API server of the tests takes."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.deploy.kustomize import Object

Rule = dict[str, Any]


def rules(objects: Sequence[Object], account: str, namespace: str) -> list[Rule]:
    """The rules of all roles that an account is bound to; without `namespaces`: everywhere."""
    found: list[Rule] = []
    for binding in objects:
        if not binding["kind"].endswith("RoleBinding"):
            continue
        subjects = [(one["kind"], one["name"], one["namespace"]) for one in binding["subjects"]]
        if ("ServiceAccount", account, namespace) not in subjects:
            continue
        place = binding["metadata"].get("namespace")
        found += (
            rule if place is None else {**rule, "namespaces": [place]}
            for rule in _role(objects, binding)["rules"]
        )
    return found


def granted(given: Sequence[Rule]) -> set[tuple[str, str, str]]:
    """Group, resource and verb of all that rules allow, as requests are counted."""
    return {
        (group, resource, verb)
        for rule in given
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def roles(objects: Sequence[Object]) -> Iterator[Object]:
    """All roles there are."""
    yield from (one for one in objects if one["kind"] in {"Role", "ClusterRole"})


def _role(objects: Sequence[Object], binding: Object) -> Object:
    wanted = binding["roleRef"]
    place = binding["metadata"].get("namespace") if wanted["kind"] == "Role" else None
    (found,) = (
        one
        for one in roles(objects)
        if (one["kind"], one["metadata"]["name"]) == (wanted["kind"], wanted["name"])
        and one["metadata"].get("namespace") == place
    )
    return found
