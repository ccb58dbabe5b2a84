"""Objects in other shapes: the tables that `kubectl get` asks for, or without their content."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from tests.kube.fake.kinds import Column, Kind
from tests.kube.fake.ownership import Object

META: Final = "meta.k8s.io/v1"


def only_metadata(found: Object) -> Object:
    """An object without its content."""
    return {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": found["metadata"]}


def list_of_metadata(found: Sequence[Object], metadata: Object) -> Object:
    """A list of such."""
    items = [only_metadata(one) for one in found]
    listed = {"kind": "PartialObjectMetadataList", "apiVersion": META}
    return {**listed, "metadata": metadata, "items": items}


def table(kind: Kind, found: Sequence[Object], metadata: Object) -> Object:
    """Columns as the definition of the kind has them."""
    columns = kind.columns or (Column(name="Age", type="date", path=".metadata.creationTimestamp"),)
    return {
        "kind": "Table",
        "apiVersion": META,
        "metadata": metadata,
        "columnDefinitions": [
            {
                "name": "Name",
                "type": "string",
                "format": "name",
                "description": "Name must be unique within a namespace.",
                "priority": 0,
            },
            *(
                {
                    "name": one.name,
                    "type": one.type,
                    "format": "",
                    "description": one.description,
                    "priority": one.priority,
                }
                for one in columns
            ),
        ],
        "rows": [
            {
                "cells": [one["metadata"]["name"], *(_cell(one, column) for column in columns)],
                "object": only_metadata(one),
            }
            for one in found
        ],
    }


def _cell(found: Object, column: Column) -> Any:
    at: Any = found
    for step in column.path.strip(".").split("."):
        at = at.get(step) if isinstance(at, dict) else None
    if column.type == "date" and isinstance(at, str):
        age = datetime.now(UTC) - datetime.fromisoformat(at)  # noqa: TID251 - as a server does
        return f"{int(age.total_seconds())}s"
    return at
