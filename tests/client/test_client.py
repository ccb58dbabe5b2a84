import json

import pytest

from app.api.grants import Extension, NewGrant
from app.api.problems import Kind
from app.api.sites import SiteWish
from app.client.client import RETRIES
from app.errors import Conflict, Invalid, Unavailable
from tests.client.servers import CUT, Misbehaving, answer, problem

GRANT = {
    "id": "01a207f9-7e28-75c3-a393-242cdc50ffb9",
    "name": "lab",
    "site": "west",
    "state": "active",
    "redemptions": 1,
    "redeemed": 0,
    "cost": 1,
    "created_at": "2026-11-23T10:00:00Z",
    "expires_at": "2026-11-23T10:15:00Z",
    "revoked_at": None,
    "issuer": None,
    "policy": None,
    "not_before": None,
    "labels": {},
    "description": "",
}
MADE = {"grant": GRANT, "code": "the-code-of-the-grant", "token": None}
SITE: dict[str, object] = {
    "name": "west",
    "issuer": "site-ca",
    "endpoints": [],
    "origin": None,
    "created_at": "2026-11-23T10:00:00Z",
}


def keys(there: Misbehaving) -> list[str]:
    return [one.headers["Idempotency-Key"] for one in there.asked]


def test_a_creation_whose_answer_was_lost_is_asked_for_again_under_its_key(
    there: Misbehaving,
) -> None:
    there.answers += [CUT, CUT, CUT, answer(201, MADE)]
    made = there.client().create_grant(NewGrant(name="lab"))
    assert made.code == "the-code-of-the-grant"
    assert len(there.asked) == 4
    assert len(set(keys(there))) == 1
    assert {one.body for one in there.asked} == {there.asked[0].body}


def test_each_creation_has_a_key_of_its_own(there: Misbehaving) -> None:
    there.answers += [answer(201, MADE), answer(201, MADE)]
    client = there.client()
    for _ in range(2):
        client.create_grant(NewGrant(name="lab"))
    assert len(set(keys(there))) == 2


def test_after_some_tries_it_is_given_up(there: Misbehaving) -> None:
    there.answers += [CUT] * 9
    with pytest.raises(Unavailable):
        there.client().create_grant(NewGrant(name="lab"))
    assert len(there.asked) == 1 + RETRIES


def test_while_the_first_question_is_under_way_the_next_is_asked_again(
    there: Misbehaving,
) -> None:
    there.answers += [CUT, problem(Kind.CONFLICT), answer(201, MADE)]
    assert there.client().create_grant(NewGrant(name="lab")).grant.name == "lab"
    assert len(set(keys(there))) == 1


def test_a_conflict_at_once_is_one(there: Misbehaving) -> None:
    there.answers += [problem(Kind.CONFLICT)]
    with pytest.raises(Conflict):
        there.client().create_grant(NewGrant(name="lab"))


def test_a_change_without_a_key_is_asked_for_once(there: Misbehaving) -> None:
    there.answers += [CUT, answer(body=GRANT)]
    with pytest.raises(Unavailable):
        there.client().extend_grant("x", Extension(redemptions=2))
    assert len(there.asked) == 1


def test_nor_does_it_go_over_a_connection_that_may_have_ended(there: Misbehaving) -> None:
    there.answers += [answer(body=GRANT), answer(204)]
    client = there.client()
    client.get_grant("x")
    client.delete_grant("x")
    assert [one.connection for one in there.asked] == [1, 2]


def test_a_change_says_what_the_thing_was_like(there: Misbehaving) -> None:
    there.answers += [answer(body=SITE, headers='ETag: "a"\r\n'), answer(body=SITE), answer(204)]
    client = there.client()
    seen = client.get_site("west")
    client.set_site("west", SiteWish(endpoints=()), if_match=seen.etag)
    client.delete_site("west", if_match=seen.etag)
    assert [one.headers.get("If-Match") for one in there.asked] == [None, '"a"', '"a"']


def test_a_site_that_is_to_be_new_replaces_none(there: Misbehaving) -> None:
    there.answers += [answer(body=SITE)]
    there.client().set_site("west", SiteWish(endpoints=()), new=True)
    assert there.asked[0].headers["If-None-Match"] == "*"


def page(names: str, following: str | None) -> bytes:
    return answer(body={"items": [SITE | {"name": name} for name in names], "next": following})


def test_pages_follow_each_other_as_they_are_taken(there: Misbehaving) -> None:
    there.answers += [page("ab", "c1"), page("cd", None)]
    found = there.client().sites(most=10)
    assert next(found).name == "a"
    assert len(there.asked) == 1
    assert [one.name for one in found] == ["b", "c", "d"]
    assert [one.path for one in there.asked] == [
        "/api/v1/sites?limit=10",
        "/api/v1/sites?limit=8&cursor=c1",
    ]


def test_no_more_are_given_than_were_asked_for(there: Misbehaving) -> None:
    there.answers += [page("abc", "c1"), page("defgh", "c2")]
    assert [one.name for one in there.client().sites(most=5)] == list("abcde")
    assert len(there.asked) == 2


def test_a_list_that_never_ends_is_left(there: Misbehaving) -> None:
    there.answers += [page("a", "c1"), page("", "c1")]
    with pytest.raises(Invalid, match="empty page"):
        list(there.client().sites(most=10))


@pytest.mark.parametrize("name", ["../info", "a/b", "a?b=c", "a#b", ".", "..", "", "a b", "ü"])
def test_a_name_is_one_part_of_a_path_whatever_is_in_it(there: Misbehaving, name: str) -> None:
    there.answers += [answer(body=SITE)]
    there.client().get_site(name)
    (asked,) = there.asked
    assert asked.path.startswith("/api/v1/sites/")
    assert not set(asked.path.removeprefix("/api/v1/sites/")) & set("/?# ")
    assert asked.path.rpartition("/")[2] not in {"", ".", ".."}


def test_what_is_not_said_is_not_sent(there: Misbehaving) -> None:
    there.answers += [answer(201, MADE)]
    there.client().create_grant(NewGrant(name="lab"))
    sent = json.loads(there.asked[0].body)
    assert "code" not in sent
    assert "site" not in sent


def test_the_code_is_in_no_representation(there: Misbehaving) -> None:
    there.answers += [answer(201, MADE)]
    made = there.client().create_grant(NewGrant(name="lab"))
    assert made.code not in repr(made)


def test_all_of_an_operation_ends_by_its_deadline(there: Misbehaving) -> None:
    there.answers += [CUT]
    with pytest.raises(Unavailable, match="in time"):
        there.client(seconds=0.4).info()
    assert len(there.asked) == 2
