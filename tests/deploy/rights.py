"""What manifests allow a service account, in the form that an API server of the tests takes."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from tests.deploy.kustomize import Object

Rule = dict[str, Any]
Right = tuple[str, str, str, str]
"""Group, resource, verb, and the name of the only object that it is for, or nothing."""


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


def named(given: Sequence[Rule]) -> set[Right]:
    """The same with the names that rules are for."""
    return {
        (group, resource, verb, name)
        for rule in given
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def said(what: str, verbs: str) -> set[Right]:
    """The same by the handbook: `RESOURCES` (`GROUP`) named `NAME`, and verbs."""
    before, _, name = what.partition(" named ")
    words = re.findall(r"`([^`]+)`", before)
    in_brackets = re.search(r"\(`([^`]+)`\)", before)
    group = in_brackets[1] if in_brackets else ""
    return {
        (group, resource, verb, name.strip("`"))
        for resource in words
        if resource != group
        for verb in verbs.split(", ")
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
