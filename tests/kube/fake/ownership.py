"""Who owns which field: managedFields, and what server-side apply does by them.

A path is a tuple of steps as `fieldsV1` writes them: `f:` and a field, `k:` and the keys of an
item in an associative list, `v:` and an item of a set. Other lists are atomic: one field.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.kube.errors import manager_conflict
from tests.kube.fake.schema import Schema

Path = tuple[str, ...]
Object = dict[str, Any]

_STRINGS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA: Final[Schema] = {
    "type": "object",
    "properties": {
        "labels": _STRINGS,
        "annotations": _STRINGS,
        "finalizers": {
            "type": "array",
            "items": {"type": "string"},
            "x-kubernetes-list-type": "set",
        },
        "ownerReferences": {
            "type": "array",
            "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
        },
    },
}
# The value of what is only known to be there: a container, an item of a list.
_HERE: Final = object()


@dataclass(slots=True, kw_only=True)
class Owner:
    """One entry of managedFields."""

    manager: str
    operation: str
    subresource: str
    api_version: str
    time: str
    fields: set[Path] = field(default_factory=set)

    @property
    def applies(self) -> bool:
        return self.operation == "Apply"

    def is_same(self, manager: str, operation: str, subresource: str) -> bool:
        mine = (self.manager, self.operation, self.subresource)
        return mine == (manager, operation, subresource)

    def written(self) -> Object:
        entry = {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _nested(self.fields),
        }
        return entry | ({"subresource": self.subresource} if self.subresource else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Who writes, by which name, to which part, and when."""

    manager: str
    subresource: str = ""
    time: str
    api_version: str


def owners(found: Mapping[str, Any]) -> list[Owner]:
    """Read managedFields."""
    return [
        Owner(
            manager=entry.get("manager", ""),
            operation=entry["operation"],
            subresource=entry.get("subresource", ""),
            api_version=entry["apiVersion"],
            time=entry.get("time", ""),
            fields=set(_paths(entry.get("fieldsV1", {}))),
        )
        for entry in found["metadata"].get("managedFields") or ()
    ]


def updated(old: Mapping[str, Any], new: Object, schema: Schema, writer: Writer) -> Object:
    """`new` with its managedFields: what was changed belongs to the writer alone."""
    kept = owners(old)
    changed, removed = _compare(old, new, schema)
    if changed or removed:
        kept = _without(kept, changed | removed, writer, "Update")
        mine = _entry(kept, writer, "Update")
        mine.fields = (mine.fields | changed) - removed
    return _with(new, kept)


def applied(
    live: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    schema: Schema,
    writer: Writer,
    *,
    force: bool,
) -> Object:
    """What applying `config` makes of `live`; `KubeError` 409 for fields of others.

    Fields that this manager applied before and does not apply any more go, unless somebody
    else owns them too.
    """
    whole = _whole(schema)
    before: Mapping[str, Any] = live or {"metadata": {}}
    kept = owners(before)
    mine = _entry(kept, writer, "Apply")
    last, mine.fields = mine.fields, set(_leaves(config, whole))
    merged = _merged(before, config, whole)
    of_others = set().union(*(one.fields for one in kept if one is not mine))
    dropped = {
        path
        for path in last - mine.fields - of_others
        # An item goes with all that is in it, unless somebody has a part of it.
        if not any(one[: len(path)] == path for one in mine.fields | of_others)
    }
    merged = _removed(merged, dropped, whole) if dropped else merged
    changed, removed = _compare(before, merged, schema)
    conflicts = [
        (_shown(path), f'conflict with "{one.manager}"' + _with_what(one))
        for one in kept
        if one is not mine
        for path in sorted(one.fields & changed)
    ]
    if conflicts and not force:
        raise manager_conflict(conflicts)
    for one in kept:
        if one is not mine:
            one.fields -= changed | removed
    if changed or removed or mine.fields != last:
        mine.time = writer.time
    return _with(merged, kept)


def _with_what(owner: Owner) -> str:
    if owner.applies:
        return ""
    sub = f" with subresource {json.dumps(owner.subresource)}" if owner.subresource else ""
    return f"{sub} using {owner.api_version}"


def _whole(schema: Schema) -> Schema:
    known = {**schema.get("properties", {}), "metadata": _METADATA}
    return {**schema, "type": "object", "properties": known}


def _entry(kept: list[Owner], writer: Writer, operation: str) -> Owner:
    for one in kept:
        if one.is_same(writer.manager, operation, writer.subresource):
            return one
    made = Owner(
        manager=writer.manager,
        operation=operation,
        subresource=writer.subresource,
        api_version=writer.api_version,
        time=writer.time,
    )
    kept.append(made)
    return made


def _without(kept: Sequence[Owner], lost: set[Path], writer: Writer, operation: str) -> list[Owner]:
    left = []
    for one in kept:
        if one.is_same(writer.manager, operation, writer.subresource):
            one.time = writer.time
        else:
            one.fields -= lost
        left.append(one)
    return left


def _with(found: Mapping[str, Any], kept: Sequence[Owner]) -> Object:
    metadata = {name: one for name, one in found["metadata"].items() if name != "managedFields"}
    written = [one.written() for one in kept if one.fields]
    if written:
        metadata["managedFields"] = written
    return {**found, "metadata": metadata}


def _compare(
    old: Mapping[str, Any], new: Mapping[str, Any], schema: Schema
) -> tuple[set[Path], set[Path]]:
    """What was added or modified, and what was removed."""
    whole = _whole(schema)
    before, after = _leaves(old, whole, containers=True), _leaves(new, whole, containers=True)
    changed = {path for path, one in after.items() if path not in before or before[path] != one}
    return changed, before.keys() - after.keys()


def _leaves(
    found: Mapping[str, Any], schema: Schema, *, containers: bool = False
) -> dict[Path, Any]:
    """Every field that can be owned, with its value; names and bookkeeping are nobody's.

    Who applies owns what is in a container; who makes it by another write owns itself, too.
    """
    metadata = found.get("metadata") or {}
    kept = {name: metadata[name] for name in _METADATA["properties"] if metadata.get(name)}
    owned = {
        name: one
        for name, one in found.items()
        if name not in {"apiVersion", "kind", "metadata"} and one is not None
    }
    leaves = dict(_walk(owned | ({"metadata": kept} if kept else {}), schema, ()))
    if containers:
        for path in list(leaves):
            for length in range(1, len(path)):
                leaves.setdefault(path[:length], _HERE)
        leaves.pop(("f:metadata",), None)
    return leaves


def _walk(value: Any, schema: Schema, at: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        for name, one in value.items():
            yield from _walk(one, _below(schema, name), (*at, f"f:{name}"))
    elif isinstance(value, list) and value and _is_associative(schema):
        for one in value:
            step = _step(one, schema)
            yield (*at, step), _HERE
            if isinstance(one, dict):
                yield from _walk(one, schema["items"], (*at, step))
    elif at:
        yield at, _HERE if value in ({}, []) else value


def _below(schema: Schema, name: str) -> Schema:
    further = schema.get("additionalProperties")
    below: Schema = schema.get("properties", {}).get(
        name, further if isinstance(further, Mapping) else {}
    )
    return below


def _is_associative(schema: Schema) -> bool:
    return schema.get("x-kubernetes-list-type") in {"map", "set"}


def _step(item: Any, schema: Schema) -> str:
    if schema["x-kubernetes-list-type"] == "set":
        return f"v:{json.dumps(item)}"
    known = schema["items"].get("properties", {})
    keys = {
        key: item.get(key, known.get(key, {}).get("default"))
        for key in schema["x-kubernetes-list-map-keys"]
    }
    return f"k:{json.dumps(keys, sort_keys=True, separators=(',', ':'))}"


def _merged(live: Any, config: Any, schema: Schema) -> Any:
    if isinstance(config, dict) and isinstance(live, Mapping):
        merged = dict(live)
        for name, one in config.items():
            merged[name] = _merged(live.get(name), one, _below(schema, name))
        return merged
    if isinstance(config, list) and isinstance(live, list) and _is_associative(schema):
        wanted = {_step(one, schema): one for one in config}
        items = []
        for one in live:
            step = _step(one, schema)
            given = wanted.pop(step, one)
            items.append(_merged(one, given, schema["items"]))
        return items + list(wanted.values())
    return config


def _removed(value: Any, lost: set[Path], schema: Schema) -> Any:
    """A container without these paths in it; what lies at a path goes with all that is in it."""
    heads: dict[str, set[Path]] = {}
    for path in lost:
        heads.setdefault(path[0], set()).add(path[1:])
    none: set[Path] = set()
    if isinstance(value, dict):
        left = {}
        for name, one in value.items():
            below = heads.get(f"f:{name}", none)
            if () not in below:
                # What is empty now is null, which a definition has to allow to be taken so far.
                left[name] = _removed(one, below, _below(schema, name)) or None if below else one
        return left
    steps = [(one, heads.get(_step(one, schema), none)) for one in value]
    return [
        _removed(one, below, schema["items"]) if below else one
        for one, below in steps
        if () not in below
    ]


def _nested(fields: set[Path]) -> Object:
    """As `fieldsV1` has it; a field that is owned beside what is in it has a dot."""
    nested: Object = {}
    for path in sorted(fields):
        at = nested
        for step in path:
            at = at.setdefault(step, {})
        at["."] = {}
    return _without_lone_dots(nested)


def _without_lone_dots(nested: Object) -> Object:
    return {
        step: {} if below.keys() == {"."} else _without_lone_dots(below)
        for step, below in nested.items()
    }


def _paths(nested: Mapping[str, Any], at: Path = ()) -> Iterator[Path]:
    for step, below in nested.items():
        if step == ".":
            yield at
        elif below:
            yield from _paths(below, (*at, step))
        else:
            yield (*at, step)


def _shown(path: Path) -> str:
    shown = ""
    for step in path:
        kind, _, rest = step.partition(":")
        if kind == "f":
            shown += f".{rest}"
        elif kind == "k":
            keys = ",".join(f"{name}={json.dumps(one)}" for name, one in json.loads(rest).items())
            shown += f"[{keys}]"
        else:
            shown += f"[={rest}]"
    return shown
