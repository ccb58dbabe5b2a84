"""Whose an object is, and whether it is as it is wanted: pure, by its labels and managedFields.

Ours is what carries our mark and was applied by us. Whoever takes the mark off has taken the object
over; a mark that somebody has copied along with a manifest makes nothing ours.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.kube.exposure.plan import MARK
from app.kube.resources import DEPLOYMENTS, Object

MANAGER: Final = "grantserver"
"""The field manager of all that is applied."""

_KEPT: Final = (
    "namespace",
    "name",
    "uid",
    "resourceVersion",
    "generation",
    "labels",
    "annotations",
    "ownerReferences",
    "deletionTimestamp",
)
_PARTS: Final = ("spec", "status", "type", "data")
_SHARED: Final = frozenset({"ports", "listeners", "ownerReferences"})
"""Lists in which each item has its own manager: what others have put there is theirs."""


def kept(found: Object) -> Object:
    """Give what an informer keeps of an object: without the bookkeeping about others' fields."""
    metadata = {name: one for name, one in found["metadata"].items() if name in _KEPT}
    metadata["managedFields"] = [
        one for one in found["metadata"].get("managedFields") or () if _is_of_ours(one)
    ]
    return {name: one for name, one in found.items() if name in _PARTS} | {"metadata": metadata}


def is_ours(found: Object, installation: str) -> bool:
    """Tell whether this installation has made an object."""
    labels = found["metadata"].get("labels") or {}
    return labels.get(MARK) == installation and _applied(found) is not None


def owned_by(body: Object, deployment: Object | None) -> Object:
    """Give an object the Deployment as its owner, with which it goes; None: nobody."""
    if deployment is None:
        return body
    owner = {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.kind,
        "name": deployment["metadata"]["name"],
        "uid": deployment["metadata"]["uid"],
    }
    return body | {"metadata": body["metadata"] | {"ownerReferences": [owner]}}


def is_as_wanted(found: Object, wanted: Object) -> bool:
    """Tell whether all that is wanted is so, and nothing of ours is left that is not."""
    return _holds(found, wanted) and not _has_more(_applied(found) or {}, wanted)


def _applied(found: Object) -> Mapping[str, Any] | None:
    """Give the fields that we have applied, as `fieldsV1` has them; None: we never did."""
    entries = found["metadata"].get("managedFields") or ()
    return next((one.get("fieldsV1") or {} for one in entries if _is_of_ours(one)), None)


def _is_of_ours(entry: Mapping[str, Any]) -> bool:
    told = (entry.get("manager"), entry.get("operation"), entry.get("subresource", ""))
    return told == (MANAGER, "Apply", "")


def _holds(found: Any, wanted: Any, name: str = "") -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            below in found and _holds(found[below], one, below) for below, one in wanted.items()
        )
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if not isinstance(found, Sequence) or isinstance(found, str):
            return False
        if name in _SHARED:
            return all(any(_holds(there, one) for there in found) for one in wanted)
        return len(found) == len(wanted) and all(map(_holds, found, wanted))
    return bool(found == wanted)


def _has_more(fields: Mapping[str, Any], wanted: Any) -> bool:
    """Tell whether there is a field among these that is not wanted (any more)."""
    for step, below in fields.items():
        kind, _, text = step.partition(":")
        if kind == "f":
            if not isinstance(wanted, Mapping) or text not in wanted:
                return True
            inner = wanted[text]
        elif kind == "k":
            inner = _item(wanted, json.loads(text))
            if inner is None:
                return True
        else:
            continue  # the container itself, and what only atomic values have
        if below and _has_more(below, inner):
            return True
    return False


def _item(wanted: Any, keys: Mapping[str, Any]) -> Mapping[str, Any] | None:
    listed = wanted if isinstance(wanted, list) else []
    return next((one for one in listed if all(one.get(k) == v for k, v in keys.items())), None)
