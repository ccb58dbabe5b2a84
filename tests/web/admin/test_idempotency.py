from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.running import Answer
from tests.web.admin.conftest import Desk

CREATIONS = [
    ("/grants", {"name": "again", "site": "west"}),
    ("/tokens", {"site": "west"}),
    ("/admin-tokens", {"name": "again", "verbs": ["read"], "sites": ["west"]}),
]


def post(desk: Desk, path: str, body: object, key: str, token: str | None = None) -> Answer:
    return desk("POST", path, body, headers={"Idempotency-Key": key}, token=token)


@pytest.mark.parametrize(("path", "body"), CREATIONS)
def test_the_same_request_under_the_same_key_is_done_once(
    desk: Desk, path: str, body: object
) -> None:
    first = post(desk, path, body, f"key of {path}")
    assert first.status == 400  # a blank is in it
    first, second = (post(desk, path, body, f"key-of-{path}") for _ in range(2))
    assert (first.status, second.status) == (201, 201)
    assert first.body == second.body
    assert first.headers["location"] == second.headers["location"]


def test_another_request_under_the_same_key_is_refused(desk: Desk) -> None:
    assert post(desk, "/tokens", {"site": "west"}, "one").status == 201
    answer = post(desk, "/tokens", {"site": "east"}, "one")
    assert (answer.status, answer.json()["type"]) == (409, "urn:grantserver:problem:conflict")


def test_a_key_is_its_callers_own_and_of_one_operation(desk: Desk) -> None:
    mine = post(desk, "/tokens", {"site": "west"}, "shared")
    other = desk.server.admin_token()
    theirs = post(desk, "/tokens", {"site": "west"}, "shared", other)
    assert theirs.status == 201
    assert mine.json()["code"] != theirs.json()["code"]
    assert post(desk, "/grants", {"name": "shared", "site": "west"}, "shared").status == 201


def test_a_key_under_which_nothing_was_made_may_be_used_again(desk: Desk) -> None:
    desk.grant("in-the-way")
    wish = {"name": "in-the-way", "site": "west"}
    assert post(desk, "/grants", wish, "later").status == 409
    grant_id = desk("GET", "/grants?name_prefix=in-the-way").json()["items"][0]["id"]
    assert desk("DELETE", f"/grants/{grant_id}").status == 204
    assert post(desk, "/grants", wish, "later").status == 201


def test_of_many_at_once_one_makes_it_and_the_others_get_the_same_or_come_again(desk: Desk) -> None:
    with ThreadPoolExecutor(8) as several:
        answers = list(
            several.map(lambda _: post(desk, "/tokens", {"site": "west"}, "at-once"), range(8))
        )
    assert {answer.status for answer in answers} <= {201, 409}
    made = {answer.body for answer in answers if answer.status == 201}
    assert len(made) == 1
    assert {post(desk, "/tokens", {"site": "west"}, "at-once").body} == made


def test_a_right_that_was_taken_away_gets_nothing_again(desk: Desk) -> None:
    wish = {"name": "short-lived", "verbs": ["create"], "sites": ["west"]}
    token = desk("POST", "/admin-tokens", wish).json()["secret"]
    assert post(desk, "/tokens", {"site": "west"}, "mine", token).status == 201
    assert desk("DELETE", "/admin-tokens/short-lived").status == 200
    assert post(desk, "/tokens", {"site": "west"}, "mine", token).status == 401
