import pytest

from app.api.grants import GrantListing
from app.api.problems import FieldError, Kind
from app.client.problems import asked
from app.errors import (
    Broken,
    Conflict,
    Forbidden,
    GrantServerError,
    Invalid,
    Missing,
    Stale,
    Unauthenticated,
    Unavailable,
)
from tests.client.servers import Misbehaving, answer, problem

TABLE: dict[Kind, type[GrantServerError]] = {
    Kind.MALFORMED: Invalid,
    Kind.UNAUTHENTICATED: Unauthenticated,
    Kind.FORBIDDEN: Forbidden,
    Kind.MISSING: Missing,
    Kind.METHOD: Invalid,
    Kind.CONFLICT: Conflict,
    Kind.STALE: Stale,
    Kind.TOO_LARGE: Invalid,
    Kind.MEDIA_TYPE: Invalid,
    Kind.INVALID: Invalid,
    Kind.LIMITED: Unauthenticated,
    Kind.BROKEN: Broken,
    Kind.UNAVAILABLE: Unavailable,
}


def caught(there: Misbehaving, said: bytes) -> GrantServerError:
    there.answers += [said]
    with pytest.raises(GrantServerError) as error:
        there.client().get_site("west")
    return error.value


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_problem_is_an_error_of_ours(there: Misbehaving, kind: Kind) -> None:
    error = caught(there, problem(kind))
    assert type(error) is TABLE[kind]
    assert kind in {Kind.UNAUTHENTICATED, Kind.LIMITED} or "it is so" in str(error)


@pytest.mark.parametrize("kind", [Kind.INVALID, Kind.MALFORMED])
def test_what_is_wrong_with_which_field_is_kept(there: Misbehaving, kind: Kind) -> None:
    errors = (FieldError(field="window", why="too long"), FieldError(field="cost", why="too low"))
    error = caught(there, problem(kind, errors=errors))
    assert isinstance(error, Invalid)
    assert (error.field, error.why) == ("window", "too long\ncost: too low")


def test_what_is_missing_is_named_as_it_is_here(there: Misbehaving) -> None:
    error = caught(there, problem(Kind.MISSING, 'no site "west"'))
    assert isinstance(error, Missing)
    assert (error.kind, error.name) == ("site", "west")


@pytest.mark.parametrize("kind", [Kind.LIMITED, Kind.UNAVAILABLE])
def test_how_long_to_wait_is_kept(there: Misbehaving, kind: Kind) -> None:
    error = caught(there, problem(kind, headers="Retry-After: 7\r\n"))
    assert isinstance(error, Unauthenticated | Unavailable)
    assert error.retry_after == 7


@pytest.mark.parametrize("written", ["soon", "-1", "Mon, 23 Nov 2026 10:00:00 GMT", "9" * 30])
def test_a_wait_that_is_no_number_of_seconds_is_none(there: Misbehaving, written: str) -> None:
    error = caught(there, problem(Kind.UNAVAILABLE, headers=f"Retry-After: {written}\r\n"))
    assert isinstance(error, Unavailable)
    assert error.retry_after is None


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(there: Misbehaving, status: int) -> None:
    error = caught(there, answer(status, headers=f"Location: {there.url}/elsewhere\r\n"))
    assert isinstance(error, Invalid)
    assert error.field == "server"
    assert len(there.asked) == 1


@pytest.mark.parametrize(
    "said",
    [
        answer(body=b"<html>", media_type="text/html"),
        answer(body=b"{"),
        answer(body={"name": "west"}),
        answer(404, b"<html>", media_type="text/html"),
        answer(404, b"{}", media_type="application/problem+json"),
        answer(404, {"type": "about:blank"}, media_type="application/problem+json"),
        answer(201, {}),
    ],
    ids=["html", "json", "shape", "404", "problem", "type", "status"],
)
def test_who_does_not_speak_the_admin_api_is_told_apart(there: Misbehaving, said: bytes) -> None:
    error = caught(there, said)
    assert isinstance(error, Invalid)
    assert error.field == "server"
    assert "no admin API" in error.why


def test_somebody_on_the_way_that_cannot_pass_us_on_is_unavailable(there: Misbehaving) -> None:
    error = caught(there, answer(502, b"<html>", media_type="text/html"))
    assert isinstance(error, Unavailable)


def test_a_field_of_a_later_release_is_passed_over(there: Misbehaving) -> None:
    site: dict[str, object] = {"name": "west", "issuer": "site-ca", "endpoints": [], "origin": None}
    there.answers += [answer(body=site | {"created_at": "2026-11-23T10:00:00Z", "new": 1})]
    assert there.client().get_site("west").value.name == "west"


def test_what_cannot_be_asked_for_names_the_field() -> None:
    with pytest.raises(Invalid) as caught:
        asked(GrantListing, site="No Name")
    assert caught.value.field == "site"
    assert "No Name" not in str(caught.value)
