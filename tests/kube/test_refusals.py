from typing import Any

import pytest

from app.errors import Conflict, GrantServerError, Invalid, Missing, Unavailable
from app.kube.refusals import patience, refusal

SECRET = "s3cret-c0de"


def refused(status: int, body: dict[str, Any] | None = None) -> GrantServerError:
    return refusal(
        status,
        body or {},
        doing="patch grants",
        kind="AccessGrant",
        name="west/grant",
        retry_after=7,
    )


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (400, Invalid, "AccessGrant: patch grants: the API server does not accept it (400)"),
        (401, Unavailable, "patch grants: the API server does not accept our credentials"),
        (
            403,
            Unavailable,
            "patch grants: the API server forbids it: look at the role that we have",
        ),
        (404, Missing, 'no AccessGrant "west/grant"'),
        (405, Unavailable, "patch grants: the API server answers 405"),
        (409, Conflict, "patch grants: Conflict"),
        (410, Missing, 'no AccessGrant "west/grant"'),
        (422, Invalid, "AccessGrant: patch grants: the API server does not accept it (422)"),
        (429, Unavailable, "patch grants: the API server has too much to do"),
        (500, Unavailable, "patch grants: the API server answers 500"),
        (503, Unavailable, "patch grants: the API server answers 503"),
        (0, Unavailable, "patch grants: the API server answers 0"),
    ],
)
def test_every_status_has_its_error(status: int, kind: type[GrantServerError], text: str) -> None:
    error = refused(status)
    assert type(error) is kind
    assert str(error) == text
    assert getattr(error, "forbidden", False) is (status == 403)
    if isinstance(error, Unavailable) and status not in {401, 403}:
        assert error.retry_after == 7


def test_the_reason_is_told() -> None:
    assert str(refused(409, {"reason": "AlreadyExists"})) == "patch grants: AlreadyExists"
    assert str(refused(500, {"reason": "InternalError"})).endswith("answers 500 InternalError")


def test_fields_that_are_not_valid_are_named_and_their_values_are_not() -> None:
    causes = [
        {
            "field": "spec.code",
            "reason": "FieldValueInvalid",
            "message": f'Invalid value: "{SECRET}"',
        },
        {"field": "spec.code", "reason": "FieldValueTooLong", "message": SECRET},
        {"field": "spec.redemptionsAllowed", "message": SECRET},
        {"field": f"spec {SECRET}"},
        {"field": 7},
        "not a cause",
    ]
    error = refused(422, {"reason": "Invalid", "message": SECRET, "details": {"causes": causes}})
    assert isinstance(error, Invalid)
    assert error.field == "spec.code, spec.redemptionsAllowed"
    assert SECRET not in str(error)


@pytest.mark.parametrize("field", ["reason", "message", "status", "kind", "details"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422, 429, 500])
def test_no_word_of_the_server_gets_into_an_error(status: int, field: str) -> None:
    body: dict[str, Any] = {field: f"quoting: {SECRET}"}
    assert SECRET not in str(refused(status, body))
    body = {"details": {"causes": {"field": SECRET}}, "reason": {"word": SECRET}}
    assert SECRET not in str(refused(status, body))


def test_not_all_fields_of_a_document_are_named() -> None:
    causes = [{"field": f"spec.f{number}"} for number in range(100)]
    error = refused(422, {"details": {"causes": causes}})
    assert isinstance(error, Invalid)
    assert error.field == "spec.f0, spec.f1, spec.f2, spec.f3, spec.f4"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1", 1.0),
        ("0", 0.0),
        ("999999", 3600.0),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("9" * 400, None),
    ],
)
def test_patience_is_asked_for_in_seconds(header: str | None, seconds: float | None) -> None:
    assert patience(header) == seconds
