from typing import Any

import pytest

from app.api.problems import KINDS, Kind
from app.web.admin import document
from tests.web.admin.conftest import Desk

METHODS = {"get", "put", "post", "patch", "delete"}


@pytest.fixture(scope="module")
def described(desk: Desk) -> dict[str, Any]:
    answer = desk.server.admin("GET", "/openapi.json", token=desk.token)
    found: dict[str, Any] = answer.json()
    return found


def operations(described: dict[str, Any]) -> dict[str, Any]:
    return {
        operation["operationId"]: operation
        for path in described["paths"].values()
        for method, operation in path.items()
        if method in METHODS
    }


def test_every_operation_tells_the_problems_that_any_may_meet_with(
    described: dict[str, Any],
) -> None:
    for operation in operations(described).values():
        for kind in document.ALWAYS:
            response = operation["responses"][str(KINDS[kind].status)]
            assert response["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            }


def test_every_operation_with_a_body_tells_how_large_and_of_which_form(
    described: dict[str, Any],
) -> None:
    for operation in operations(described).values():
        assert ("413" in operation["responses"]) is ("requestBody" in operation)


def test_nothing_is_left_of_what_the_framework_says_of_problems(
    described: dict[str, Any],
) -> None:
    assert "HTTPValidationError" not in str(described)
    for operation in operations(described).values():
        response = operation["responses"].get("422")
        assert response is None or response["description"] == KINDS[Kind.INVALID].title


def test_no_shape_has_room_for_what_is_not_described(described: dict[str, Any]) -> None:
    for name, schema in described["components"]["schemas"].items():
        if schema.get("type") == "object" and name not in {"Problem", "FieldError"}:
            assert schema["additionalProperties"] is False, name


def test_every_operation_and_shape_says_what_it_is(described: dict[str, Any]) -> None:
    for name, operation in operations(described).items():
        assert operation["description"], name
    for name, schema in described["components"]["schemas"].items():
        if schema.get("type") == "object":
            assert schema["description"], name


def test_whoever_asks_shows_a_token_or_a_certificate(described: dict[str, Any]) -> None:
    assert set(described["components"]["securitySchemes"]) == {"bearer", "certificate"}
    assert described["security"] == [{"bearer": []}, {"certificate": []}]
