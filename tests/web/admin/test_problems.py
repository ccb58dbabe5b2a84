import json

import pytest

from app.api.problems import KINDS, MEDIA_TYPE, Problem
from app.errors import (
    Broken,
    Conflict,
    GrantServerError,
    Invalid,
    Misconfigured,
    Unauthenticated,
    Unavailable,
)
from app.web.admin import problems
from tests.errors import one_of_each, tree


def said(error: GrantServerError) -> Problem:
    answer = problems.of(error)
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem = Problem.model_validate_json(bytes(answer.body))
    assert problem.status == answer.status_code
    return problem


def test_every_error_is_a_problem() -> None:
    assert set(problems.TABLE) == set(tree())
    for error in one_of_each():
        kind = problems.kind(error)
        assert said(error).type == kind.type
        assert said(error).title == KINDS[kind].title


def test_a_wrong_value_is_named() -> None:
    (error,) = said(Invalid("window", "too short")).errors
    assert (error.field, error.why) == ("window", "too short")


def test_whoever_is_not_known_learns_nothing_but_what_to_show() -> None:
    answer = problems.of(Unauthenticated('the admin token "ci" is revoked'))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, problems.CHALLENGE)
    assert b"ci" not in answer.body
    limited = problems.of(Unauthenticated("the peer has failed too often", retry_after=3))
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "3")


@pytest.mark.parametrize(
    "error", [Broken("SELECT secret"), Misconfigured(["secret"]), Unavailable("db secret")]
)
def test_what_is_wrong_inside_stays_there(error: GrantServerError) -> None:
    assert b"secret" not in bytes(problems.of(error).body)


def test_what_may_succeed_later_says_when() -> None:
    assert problems.of(Unavailable("away")).headers["retry-after"] == "5"
    assert problems.of(Unavailable("away", retry_after=1.2)).headers["retry-after"] == "2"
    assert "retry-after" not in problems.of(Conflict("taken")).headers


def test_errors_of_a_request_are_named_as_their_author_wrote_them() -> None:
    answer = problems.malformed(
        [
            {"loc": ("body", "policy", "networks", 0), "msg": "no network", "input": "secret"},
            {"loc": ("query", "a\nb"), "msg": "not known"},
        ]
    )
    found = json.loads(bytes(answer.body))
    assert [one["field"] for one in found["errors"]] == ["policy.networks.0", "?"]
    assert "secret" not in str(found)


def test_few_of_very_many_errors_are_shown() -> None:
    answer = problems.malformed([{"loc": ("body", str(n)), "msg": "x"} for n in range(1000)])
    assert len(json.loads(bytes(answer.body))["errors"]) == 20
