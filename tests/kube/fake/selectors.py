"""Label and field selectors, as a list or a watch names them."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.kube.errors import bad_request

Selects = Callable[[Mapping[str, Any]], bool]

_SET: Final = re.compile(r"(\S+)\s+(in|notin)\s*\(([^)]*)\)")
_EQUAL: Final = re.compile(r"([^\s=!]+)\s*(==|=|!=)\s*([^\s=!]*)")
_HERE: Final = re.compile(r"!?[A-Za-z0-9][\w./-]*")
_FIELDS: Final = {"metadata.name", "metadata.namespace"}
_OF_EVENTS: Final = {
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.uid",
    "reason",
    "type",
}
_OF_SECRETS: Final = {"type"}


def selecting(labels: str, fields: str, kind: str) -> Selects:
    """Read both selectors of a request; `KubeError` 400 for what cannot be read."""
    wanted = [_label(one) for one in _split(labels)]
    of_kind = {"Event": _OF_EVENTS, "Secret": _OF_SECRETS}.get(kind, set())
    wanted += [_field(one, _FIELDS | of_kind) for one in _split(fields)]
    return lambda found: all(one(found) for one in wanted)


def _split(text: str) -> list[str]:
    return [one.strip() for one in re.split(r",(?![^(]*\))", text) if one.strip()]


def _label(text: str) -> Selects:
    if match := _SET.fullmatch(text):
        name, values = match[1], {one.strip() for one in match[3].split(",")}
        inside = match[2] == "in"
        # A label that is not there is in no set, which `notin` accepts.
        return lambda found: (_labels(found).get(name) in values) == inside
    if match := _EQUAL.fullmatch(text):
        name, equal, value = match[1], match[2] != "!=", match[3]
        return lambda found: (_labels(found).get(name) == value) == equal
    if _HERE.fullmatch(text):
        name, here = text.lstrip("!"), not text.startswith("!")
        return lambda found: (name in _labels(found)) == here
    raise bad_request(f"unable to parse requirement: {text}")


def _labels(found: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = found["metadata"].get("labels") or {}
    return labels


def _field(text: str, known: set[str]) -> Selects:
    match = _EQUAL.fullmatch(text)
    if match is None:
        raise bad_request(f"invalid selector: {text!r}; can't understand it")
    path, equal, value = match[1], match[2] != "!=", match[3]
    if path not in known:
        raise bad_request(f"field label not supported: {path}")
    return lambda found: (_at(found, path) == value) == equal


def _at(found: Mapping[str, Any], path: str) -> str:
    at: Any = found
    for name in path.split("."):
        at = at.get(name, "") if isinstance(at, Mapping) else ""
    return str(at)
