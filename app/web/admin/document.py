"""The description of the API (OpenAPI): exact enough to make clients from it.

What FastAPI makes of the routes is completed by what the application does around them: who may
ask, and that every problem has one form.
"""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.problems import KINDS, MEDIA_TYPE, Kind, Problem

ALWAYS: Final = (
    Kind.MALFORMED,
    Kind.UNAUTHENTICATED,
    Kind.LIMITED,
    Kind.BROKEN,
    Kind.UNAVAILABLE,
)
"""Kinds of problems that any request may meet with."""

_WITH_BODY: Final = (Kind.TOO_LARGE, Kind.MEDIA_TYPE)
_METHODS: Final = frozenset({"get", "put", "post", "patch", "delete"})
_HEADERS: Final[Mapping[str, str]] = {
    "ETag": "The entity tag of what is answered, for If-Match and If-None-Match.",
    "Location": "Where the new thing is.",
}
_RETRY: Final = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}}


def answers(*kinds: Kind, ok: int = 200, headers: tuple[str, ...] = ()) -> dict[int | str, Any]:
    """Tell what an operation answers beside its shape: its headers, and its kinds of problems."""
    told: dict[int | str, Any] = {
        ok: {
            "headers": {
                name: {"schema": {"type": "string"}, "description": _HEADERS[name]}
                for name in headers
            }
        }
    }
    for kind in kinds:
        told[KINDS[kind].status] = {"description": KINDS[kind].title}
    return told


UNCHANGED: Final[dict[int | str, Any]] = {304: {"description": "It is what it was."}}


def describe(app: FastAPI) -> dict[str, Any]:
    """Write the description of all routes."""
    made = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = made["components"]["schemas"]
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    shape = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= shape.pop("$defs", {})
    schemas["Problem"] = shape
    made["components"]["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An admin token, or the token of a Kubernetes service account.",
        },
        "certificate": {"type": "mutualTLS", "description": "A client certificate."},
    }
    made["security"] = [{"bearer": []}, {"certificate": []}]
    for methods in made["paths"].values():
        for method in _METHODS & methods.keys():
            _complete(methods[method])
    return made


def _complete(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None) if not _ours(responses.get("422")) else None
    kinds = [*ALWAYS, *(_WITH_BODY if "requestBody" in operation else ())]
    for kind in kinds:
        responses.setdefault(str(KINDS[kind].status), {"description": KINDS[kind].title})
    for kind, about in KINDS.items():
        response = responses.get(str(about.status))
        if response is None:
            continue
        response["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        if kind in {Kind.LIMITED, Kind.UNAVAILABLE}:
            response["headers"] = _RETRY
        if kind is Kind.UNAUTHENTICATED:
            challenge = {"schema": {"type": "string"}, "description": "What may be shown."}
            response["headers"] = {"WWW-Authenticate": challenge}
    operation["responses"] = dict(sorted(responses.items()))


def _ours(response: Mapping[str, Any] | None) -> bool:
    """Tell our 422 from the one that FastAPI puts in everywhere."""
    return response is not None and response["description"] == KINDS[Kind.INVALID].title
