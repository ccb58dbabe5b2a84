"""What `kubectl kustomize` makes of our manifests, for machines that have no kubectl.

It knows the parts of a kustomization that ours use, and refuses all others. Where there is a
kubectl, a test compares the two.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

Object = dict[str, Any]

DEPLOY: Final = Path(__file__).parents[2] / "deploy" / "kubernetes"
OF_THE_CLUSTER: Final = {"ClusterRole", "ClusterRoleBinding"}
_ABOUT: Final = {"apiVersion", "kind"}
_KNOWN: Final = {"namespace", "resources", "components", "images", "configMapGenerator", "patches"}


def rendered(folder: Path, *, namespace: str = "") -> list[Object]:
    """Give the objects of a folder with a kustomization, put into a namespace if one is given."""
    objects: list[Object] = []
    _extend(objects, folder)
    if namespace:
        _move(objects, namespace)
    return objects


def _extend(objects: list[Object], folder: Path) -> None:
    """Add to `objects`, and change among them, what the kustomization of a folder says."""
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert told.keys() - _ABOUT <= _KNOWN, f"{folder} has {told.keys() - _ABOUT - _KNOWN}"
    for name in told.get("resources", ()):
        path = folder / name
        objects += rendered(path) if path.is_dir() else list(_documents(path))
    for one in told.get("configMapGenerator", ()):
        _configure(objects, one)
    # After what is generated (since kustomize 5.1), so a component has the last word on a setting.
    for name in told.get("components", ()):
        _extend(objects, folder / name)
    for one in told.get("patches", ()):
        assert one.keys() == {"path"}
        for patch in _documents(folder / one["path"]):
            _patch(objects, patch)
    for one in told.get("images", ()):
        _rename(objects, one)
    if "namespace" in told:
        _move(objects, told["namespace"])


def _documents(path: Path) -> Iterator[Object]:
    yield from (one for one in yaml.safe_load_all(path.read_text()) if one)


def _configure(objects: list[Object], told: Mapping[str, Any]) -> None:
    assert told.keys() <= {"name", "behavior", "literals"}
    data = dict(one.split("=", 1) for one in told["literals"])
    if told.get("behavior") == "merge":
        of = {"kind": "ConfigMap", "metadata": {"name": told["name"]}}
        objects[_index(objects, of)]["data"] |= data
        return
    about = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": told["name"]}}
    objects.append({**about, "data": data})


def _patch(objects: list[Object], patch: Object) -> None:
    index = _index(objects, patch)
    if patch.get("$patch") == "delete":
        del objects[index]
        return
    name = {"metadata": {"name": patch["metadata"]["name"]}}
    objects[index] = _merged(objects[index], {**patch, **name})


def _merged(before: Any, patch: Any) -> Any:
    """A strategic merge: maps by their keys, lists of named things by their names.

    What a patch names comes first in such a list, in the order of the patch.
    """
    if isinstance(before, Mapping) and isinstance(patch, Mapping):
        result = dict(before)
        for key, value in patch.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = _merged(before.get(key), value)
        return result
    if isinstance(before, list) and isinstance(patch, list) and "name" in patch[0]:
        named = {one["name"]: one for one in before}
        first = [_merged(named.pop(one["name"], None), one) for one in patch]
        return [*first, *named.values()]
    if isinstance(patch, Mapping):
        return {key: value for key, value in patch.items() if value is not None}
    return patch


def _rename(objects: list[Object], told: Mapping[str, str]) -> None:
    assert told.keys() == {"name", "newName", "newTag"}
    for one in objects:
        pod = one.get("spec", {}).get("template", {}).get("spec", {})
        for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
            if container["image"] == told["name"]:
                container["image"] = f"{told['newName']}:{told['newTag']}"


def _move(objects: list[Object], namespace: str) -> None:
    """Put everything into a namespace; of those whom roles are bound to, those that are there."""
    accounts = {
        (one["metadata"]["name"], one["metadata"].get("namespace"))
        for one in objects
        if one["kind"] == "ServiceAccount"
    }
    for one in objects:
        if one["kind"] not in OF_THE_CLUSTER:
            one["metadata"]["namespace"] = namespace
        for subject in one.get("subjects", ()):
            if (subject["name"], subject["namespace"]) in accounts:
                subject["namespace"] = namespace


def _index(objects: list[Object], wanted: Object) -> int:
    found = [
        index
        for index, one in enumerate(objects)
        if one["kind"] == wanted["kind"] and one["metadata"]["name"] == wanted["metadata"]["name"]
    ]
    assert len(found) == 1
    return found[0]
