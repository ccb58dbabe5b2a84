"""The chart's `config`: each setting of the server by its name in the TOML file, with its type."""

import enum
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast, get_args, get_origin

from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from app.settings import Settings

if TYPE_CHECKING:
    from pydantic import BaseModel

ELSEWHERE: Final[Mapping[str, str]] = MappingProxyType(
    {"database.url": "database.url or database.existingSecret"}
)
"""Settings that are no value under `config`, because they hold a secret; and what sets them."""

_FULLNAME: Final = '{{ include "grantserver.fullname" . }}'
OF_THE_CHART: Final[Mapping[str, tuple[Any, str]]] = MappingProxyType(
    {
        "data.dir": ("/var/lib/grantserver/data", "On the volume that the chart mounts."),
        "sealing.key_file": (
            "/run/grantserver/sealing.keys",
            "The chart puts it there; anywhere but in /run/grantserver, bring it by extraVolumes.",
        ),
        "logs.format": ("json", ""),
        "limits.peer_failures": (
            "",
            "Empty is 20, but 0 behind a Route, an Ingress or a Gateway, whose address all share.",
        ),
        "tls.issued_secret": (_FULLNAME + "-tls", ""),
        "kubernetes.namespaces": (["{{ .Release.Namespace }}"], "The rights follow."),
        "kubernetes.token_namespaces": ([], "The rights follow."),
        "kubernetes.lease": (_FULLNAME, ""),
        "exposure.name": (_FULLNAME + "-public", ""),
        "exposure.deployment": (_FULLNAME, ""),
        "exposure.selector": ({}, "Empty is the labels that the chart gives its pods."),
    }
)
"""Defaults that are the chart's and not the server's, and what is to be said of them."""

_DURATION: Final = r"^(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h))+$|\{\{"
"""A Go duration, or a template that makes one."""

_OF_FORMS: Final = re.compile(
    r"[,;] separated by commas in the environment, a list in the file"
    r"|: KEY=VALUE, separated by commas in the environment, a table in the file"
    r"|\. A value with a comma and an equals sign after it needs the table in the file"
)
"""What a meaning says of how it is written elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A value under `config`; `group` is empty for one above the groups."""

    group: str
    name: str
    default: Any
    comment: str
    schema: Mapping[str, Any]


def values() -> Iterator[Value]:
    """All of them, in the order of the settings."""
    for group, field in Settings.model_fields.items():
        if field.json_schema_extra is not None:
            yield _value("", group, field)
            continue
        for attribute, one in cast("type[BaseModel]", field.annotation).model_fields.items():
            name = one.alias or attribute
            if f"{group}.{name}" not in ELSEWHERE:
                yield _value(group, name, one)


def as_yaml() -> str:
    """The values with their defaults, each with what is said about it."""
    lines = ["config:"]
    group = ""
    for value in values():
        if value.group != group:
            group = value.group
            lines += [f"  # The group [{group}] of the settings.", f"  {group}:"]
        indent = "    " if group else "  "
        lines += [f"{indent}# {value.comment}", f"{indent}{value.name}: {_scalar(value.default)}"]
    return "\n".join(lines) + "\n"


def as_schema() -> dict[str, Any]:
    """What Helm accepts of them."""
    groups: dict[str, Any] = {}
    for value in values():
        shape = {"description": value.comment, **value.schema}
        if not value.group:
            groups[value.name] = shape
            continue
        group = groups.setdefault(
            value.group, {"type": "object", "additionalProperties": False, "properties": {}}
        )
        group["properties"][value.name] = shape
    return {"type": "object", "additionalProperties": False, "properties": groups}


def _value(group: str, name: str, field: FieldInfo) -> Value:
    facts = cast("dict[str, Any]", field.json_schema_extra)
    key = f"{group}.{name}" if group else name
    schema = _schema(field)
    default, said = OF_THE_CHART.get(key, (_default(facts["default"], schema), ""))
    if key == "limits.peer_failures":
        schema = {"anyOf": [schema, {"const": ""}]}
    meaning = _OF_FORMS.sub("", field.description or "")
    comment = f"{meaning} {said}".strip()
    return Value(group=group, name=name, default=default, comment=comment, schema=schema)


def _schema(field: FieldInfo) -> dict[str, Any]:
    kind: Any = field.annotation
    if kind is bool:
        return {"type": "boolean"}
    if kind is int and not _reads_text(field):
        bounds: dict[str, Any] = {"type": "integer"}
        for one in field.metadata:
            if isinstance(one, Ge):
                bounds["minimum"] = one.ge
            if isinstance(one, Le):
                bounds["maximum"] = one.le
        return bounds
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"type": "string", "enum": [one.value for one in kind]}
    if get_origin(kind) is tuple:
        if get_origin(get_args(kind)[0]) is tuple:
            return {"type": "object", "additionalProperties": {"type": "string"}}
        return {"type": "array", "items": {"type": "string", "minLength": 1}}
    expected = cast("dict[str, Any]", field.json_schema_extra)["expected"]
    pattern = {"pattern": _DURATION} if "duration" in expected else {}
    return {"type": "string", **pattern}


def _reads_text(field: FieldInfo) -> bool:
    """Durations are numbers in the program, and texts wherever somebody writes one."""
    return any(type(one).__name__ == "BeforeValidator" for one in field.metadata)


def _default(text: str, schema: Mapping[str, Any]) -> Any:
    if schema["type"] == "array":
        return text.split(",") if text else []
    if schema["type"] == "object":
        return dict(one.split("=", 1) for one in text.split(",")) if text else {}
    if schema["type"] in {"boolean", "integer"}:
        return json.loads(text)
    return text


def _scalar(value: Any) -> str:
    if isinstance(value, str) and "{{" in value:
        return f"'{value}'"
    if isinstance(value, list):
        return f"[{', '.join(_scalar(one) for one in value)}]"
    return json.dumps(value)
