"""Merge patches (RFC 7396) and JSON patches (RFC 6902), on values that stay as they were."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from tests.kube.errors import bad_request, unprocessable


def merge(target: Any, patch: Any) -> Any:
    """What a merge patch makes of a value."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, one in patch.items():
        if one is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), one)
    return merged


def operate(target: Any, operations: Sequence[Mapping[str, Any]]) -> Any:
    """What a JSON patch makes of a value; `KubeError` 422 if one of its operations fails."""
    document = {"": copy.deepcopy(target)}
    for operation in operations:
        try:
            _operate(document, operation)
        except (LookupError, ValueError, TypeError) as error:
            raise unprocessable(
                "the server rejected our request due to an error in our request"
            ) from error
    return document[""]


def _operate(document: dict[str, Any], operation: Mapping[str, Any]) -> None:
    verb, path = operation["op"], _steps(operation["path"])
    if verb == "add":
        _add(document, path, operation["value"])
    elif verb == "remove":
        _take(document, path)
    elif verb == "replace":
        _take(document, path)
        _add(document, path, operation["value"])
    elif verb == "test":
        if _get(document, path) != operation.get("value"):
            raise ValueError("test failed")
    elif verb in {"move", "copy"}:
        source = _steps(operation["from"])
        moved = _take(document, source) if verb == "move" else _get(document, source)
        _add(document, path, copy.deepcopy(moved))
    else:
        raise bad_request(f"unknown operation {verb!r}")


def _steps(pointer: str) -> list[str]:
    return [one.replace("~1", "/").replace("~0", "~") for one in pointer.split("/")]


def _get(document: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document


def _add(document: Any, steps: Sequence[str], value: Any) -> None:
    above, last = _get(document, steps[:-1]), steps[-1]
    if isinstance(above, list):
        index = len(above) if last == "-" else int(last)
        if not 0 <= index <= len(above):
            raise IndexError(index)
        above.insert(index, value)
    elif isinstance(above, dict):
        above[last] = value
    else:
        raise TypeError(last)


def _take(document: Any, steps: Sequence[str]) -> Any:
    above, last = _get(document, steps[:-1]), steps[-1]
    return above.pop(int(last)) if isinstance(above, list) else above.pop(last)
