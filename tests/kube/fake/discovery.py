"""What is served, in the words of discovery, for clients that ask before they act."""

from collections.abc import Iterable, Sequence

from tests.kube import errors
from tests.kube.fake.kinds import DEFINITIONS, Kind
from tests.kube.fake.ownership import Object

VERSION = {
    "major": "1",
    "minor": "34",
    "gitVersion": "v1.34.0-fake",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "go1.25",
    "compiler": "gc",
    "platform": "linux/amd64",
}
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def discover(steps: Sequence[str], kinds: Sequence[Kind]) -> Object | str:
    """The answer for a path that is no object's; `KubeError` 404."""
    path = "/".join(steps)
    if path in {"healthz", "readyz", "livez"}:
        return "ok"
    found = _tree(kinds).get(path)
    if found is None:
        raise errors.no_such_path()
    return found


def _tree(kinds: Sequence[Kind]) -> dict[str, Object]:
    roots = sorted({_root(one) for one in kinds})
    groups = sorted({one.group for one in kinds if one.group})
    schemas = {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}
    listed = [_group(one, kinds) for one in groups]
    tree: dict[str, Object] = {
        "version": VERSION,
        "api": {"kind": "APIVersions", "versions": ["v1"]},
        "apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed},
        "openapi/v3": {"paths": schemas},
    }
    for group in listed:
        tree[f"apis/{group['name']}"] = {**group, "kind": "APIGroup", "apiVersion": "v1"}
    for root in roots:
        here = [one for one in kinds if _root(one) == root]
        tree[root] = _resources(here[0].api_version, here)
        tree[f"openapi/v3/{root}"] = _openapi(here)
    return tree


def _root(kind: Kind) -> str:
    return f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"


def _openapi(kinds: Iterable[Kind]) -> Object:
    """As much as `kubectl apply` wants to know: that the server itself looks for unknown fields."""
    validates = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    paths = {}
    for one in kinds:
        place = "namespaces/{namespace}/" if one.namespaced else ""
        which = {"group": one.group, "version": one.version, "kind": one.kind}
        paths[f"/{_root(one)}/{place}{one.plural}/{{name}}"] = {
            "patch": {"parameters": validates, "x-kubernetes-group-version-kind": which}
        }
    about = {"title": "Kubernetes", "version": VERSION["gitVersion"]}
    return {"openapi": "3.0.0", "info": about, "paths": paths}


def _group(group: str, kinds: Iterable[Kind]) -> Object:
    versions = sorted({one.version for one in kinds if one.group == group})
    listed = [{"groupVersion": f"{group}/{one}", "version": one} for one in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def _resources(group_version: str, kinds: Iterable[Kind]) -> Object:
    resources = []
    for one in kinds:
        about = {
            "name": one.plural,
            "singularName": one.singular,
            "namespaced": one.namespaced,
            "kind": one.kind,
        }
        names = {"shortNames": list(one.short_names)} if one.short_names else {}
        resources.append({**about, "verbs": _VERBS, **names})
        if one.has_status and one.key != DEFINITIONS.key:
            status = {"name": f"{one.plural}/status", "singularName": ""}
            resources.append({**about, **status, "verbs": ["get", "patch", "update"]})
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }
