"""Structural schemas: what is pruned, what is filled in, and what is refused."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

Schema = Mapping[str, Any]

_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}
_MICROTIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?:Z|[+-]\d\d:\d\d)")

_GO_DURATION: Final = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")
_LOOSE_DURATION: Final = re.compile(r"\d+\s*([A-Za-zµ]+)")
_UNITS: Final = ("ns", "us", "µs", "ms", "nano", "micro", "milli", "s", "m", "h", "d", "w")


def prune(value: Any, schema: Schema) -> Any:
    """Take away what the schema does not know, silently, as the API server does."""
    if isinstance(value, dict):
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            return value
        known: Mapping[str, Schema] = schema.get("properties", {})
        further = schema.get("additionalProperties")
        if further is True:
            return value
        pruned = {}
        for name, one in value.items():
            below = known.get(name, further if isinstance(further, Mapping) else None)
            if below is not None and not _is_nothing(one, below):
                pruned[name] = prune(one, below)
        return pruned
    if isinstance(value, list) and "items" in schema:
        return [prune(one, schema["items"]) for one in value]
    return value


def unknown(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """The fields that would be pruned."""
    if isinstance(value, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        known: Mapping[str, Schema] = schema.get("properties", {})
        further = schema.get("additionalProperties")
        for name, one in value.items():
            below = known.get(name, further if isinstance(further, Mapping) else None)
            if below is not None:
                yield from unknown(one, below, _below(path, name))
            elif further is not True:
                yield _below(path, name)
    elif isinstance(value, list) and "items" in schema:
        for index, one in enumerate(value):
            yield from unknown(one, schema["items"], f"{path}[{index}]")


def default(value: Any, schema: Schema) -> Any:
    """Fill in the defaults of what is absent; null counts as absent where it is not allowed."""
    if isinstance(value, dict):
        filled = dict(value)
        for name, below in schema.get("properties", {}).items():
            if "default" in below:
                nulled = name in filled and filled[name] is None and not below.get("nullable")
                if nulled or name not in filled:
                    filled[name] = below["default"]
            if name in filled:
                filled[name] = default(filled[name], below)
        further = schema.get("additionalProperties")
        if isinstance(further, Mapping):
            for name in filled.keys() - schema.get("properties", {}).keys():
                filled[name] = default(filled[name], further)
        return filled
    if isinstance(value, list) and "items" in schema:
        return [default(one, schema["items"]) for one in value]
    return value


def problems(value: Any, schema: Schema, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a value: the field, and the words for it."""
    if value is None and schema.get("nullable"):
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield path, f'Invalid value: "{_name(value)}": {path} must be an integer or a string'
        return
    wanted = schema.get("type")
    if wanted is not None and not _is(value, wanted):
        given = _name(value)
        yield path, f'Invalid value: "{given}": {path} in body must be of type {wanted}: "{given}"'
        return
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(f'"{one}"' for one in schema["enum"])
        yield path, f'Unsupported value: "{value}": supported values: {allowed}'
    if isinstance(value, dict):
        yield from _of_object(value, schema, path)
    elif isinstance(value, list):
        yield from _of_list(value, schema, path)
    elif isinstance(value, str):
        yield from _of_text(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _of_number(value, schema, path)


def _of_object(value: Mapping[str, Any], schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield _below(path, name), "Required value"
    for name, one in value.items():
        below = known.get(name, schema.get("additionalProperties"))
        if isinstance(below, Mapping):
            yield from problems(one, below, _below(path, name))


def _of_list(value: list[Any], schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    if len(value) < schema.get("minItems", 0):
        yield path, f"Invalid value: {len(value)}: {path} should have more items"
    if len(value) > schema.get("maxItems", len(value)):
        yield path, f"Too many: {len(value)}"
    for index, one in enumerate(value):
        yield from problems(one, schema.get("items", {}), f"{path}[{index}]")


def _of_text(value: str, schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    if len(value) > schema.get("maxLength", len(value)):
        yield path, f"Too long: may not be longer than {schema['maxLength']}"
    if len(value) < schema.get("minLength", 0):
        least = schema["minLength"]
        yield path, f'Invalid value: "{value}": {path} should be at least {least} chars long'
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        why = f"should match '{schema['pattern']}'"
        yield path, f'Invalid value: "{value}": {path} in body {why}'
    if not _has_format(value, schema.get("format")):
        why = f"{path} in body must be of type {schema['format']}"
        yield path, f'Invalid value: "{value}": {why}: "{value}"'


def _of_number(value: float, schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    if value < schema.get("minimum", value):
        why = f"should be greater than or equal to {schema['minimum']}"
        yield path, f"Invalid value: {value}: {path} in body {why}"
    if value > schema.get("maximum", value):
        why = f"should be less than or equal to {schema['maximum']}"
        yield path, f"Invalid value: {value}: {path} in body {why}"
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if bits is not None and not -(2**bits) <= value < 2**bits:
        yield path, f"Invalid value: {value}: {path} in body must be of type {schema['format']}"


def _is(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[wanted])


def _name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return next((name for name, types in _TYPES.items() if isinstance(value, types)), "unknown")


def _is_nothing(value: Any, schema: Schema) -> bool:
    """A null that neither may be there nor stands for a default."""
    return value is None and not schema.get("nullable") and "default" not in schema


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _has_format(value: str, wanted: str | None) -> bool:
    # Of the formats that an API server knows only these are checked here.
    if wanted == "date-time":
        return _is_time(value)
    if wanted == "microtime":
        return _MICROTIME.fullmatch(value) is not None and _is_time(value)
    if wanted == "duration":
        return _is_duration(value)
    if wanted == "byte":
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error:
            return False
    return True


def _is_duration(value: str) -> bool:
    """Go's own durations, and beside them `2 days`, `3weeks`: more than Go itself can read."""
    if value.lstrip("+-") == "0" or _GO_DURATION.fullmatch(value):
        return True
    return any(unit.lower().startswith(_UNITS) for unit in _LOOSE_DURATION.findall(value))


def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None and "T" in value
    except ValueError:
        return False
