from typing import Any

import pytest

from app.ambient import utc_now
from app.domain.times import parse_rfc3339, rfc3339
from tests.web.admin.conftest import Desk


def seconds(text: str) -> int:
    found = parse_rfc3339(text)
    assert found is not None
    return found


def names(desk: Desk, query: str) -> list[str]:
    return [one["name"] for one in desk("GET", f"/grants?{query}").json()["items"]]


def test_a_grant_is_created_with_all_that_it_may_ask_for(desk: Desk) -> None:
    wish: dict[str, Any] = {
        "name": "whole",
        "site": "west",
        "redemptions": 10,
        "window": "24h",
        "cost": 5,
        "policy": {
            "subjects": ["east-*"],
            "networks": ["10.1.0.0/16"],
            "lifetime": "720h",
            "key_type": "p256",
            "per_subject": 2,
            "name_prefix": "east-",
        },
        "not_before": rfc3339(utc_now() + 60),
        "labels": {"team": "ops"},
        "description": "Stores of the east\nticket 4711",
    }
    answer = desk("POST", "/grants", wish)
    assert answer.status == 201
    made = answer.json()
    grant = made["grant"]
    assert answer.headers["location"] == f"/api/v1/grants/{grant['id']}"
    assert grant["policy"] == wish["policy"] | {"lifetime": "720h"}
    for name in ("name", "site", "redemptions", "cost", "not_before", "labels", "description"):
        assert grant[name] == wish[name]
    assert seconds(grant["expires_at"]) - seconds(grant["created_at"]) == 86400
    assert (grant["state"], grant["redeemed"], grant["revoked_at"]) == ("active", 0, None)
    assert made["code"] in made["token"]


def test_a_grant_is_shown_without_its_code(desk: Desk) -> None:
    made = desk("POST", "/grants", {"name": "shown", "site": "west"}).json()
    answer = desk("GET", f"/grants/{made['grant']['id']}")
    assert (answer.status, answer.json()) == (200, made["grant"])
    assert made["code"].encode() not in answer.body
    assert answer.headers["cache-control"] == "no-store"


def test_whoever_has_the_newest_representation_is_told_so(desk: Desk) -> None:
    path = f"/grants/{desk.grant('same')}"
    tag = desk("GET", path).headers["etag"]
    answer = desk("GET", path, headers={"If-None-Match": tag})
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)


def test_one_that_is_not_there_is_missing(desk: Desk) -> None:
    answer = desk("GET", "/grants/01a207f9-7e28-75c3-a393-242cdc50ffb9")
    assert (answer.status, answer.json()["type"]) == (404, "urn:grantserver:problem:missing")
    assert desk("GET", "/grants/lab").status == 400


def test_a_list_is_filtered_sorted_and_cut_into_pages(desk: Desk) -> None:
    for number in (3, 1, 2):
        desk.grant(f"page-{number}", labels={"page": str(number % 2)}, window=f"{number}h")
    assert names(desk, "name_prefix=page-&sort=name") == ["page-1", "page-2", "page-3"]
    assert names(desk, "name_prefix=page-&sort=expires_at&order=desc") == [
        "page-3",
        "page-2",
        "page-1",
    ]
    assert names(desk, "name_prefix=page-&label=page=1&sort=name") == ["page-1", "page-3"]
    assert names(desk, "name_prefix=page-&state=revoked") == []
    assert names(desk, "name_prefix=page-&site=east") == []
    found, query = [], "name_prefix=page-&sort=name&limit=2"
    page = desk("GET", f"/grants?{query}").json()
    assert len(page["items"]) == 2
    found += page["items"]
    page = desk("GET", f"/grants?{query}&cursor={page['next']}").json()
    assert page["next"] is None
    found += page["items"]
    assert [one["name"] for one in found] == ["page-1", "page-2", "page-3"]


def test_a_cursor_fits_the_order_that_it_came_from(desk: Desk) -> None:
    for name in ("order-a", "order-b"):
        desk.grant(name)
    cursor = desk("GET", "/grants?limit=1&sort=name").json()["next"]
    for query in ("sort=created_at", "sort=name&order=desc"):
        answer = desk("GET", f"/grants?limit=1&{query}&cursor={cursor}")
        assert answer.status == 422
        assert answer.json()["errors"][0]["field"] == "cursor"


def test_a_list_holds_what_the_caller_may_read(desk: Desk) -> None:
    desk.grant("of-west")
    desk("POST", "/grants", {"name": "of-east", "site": "east"})
    token = desk.server.admin_token("read", sites=["east"])
    answer = desk("GET", "/grants?limit=500", token=token).json()
    assert {one["site"] for one in answer["items"]} == {"east"}
    assert desk("GET", "/grants?site=west", token=token).json()["items"] == []


def test_what_the_caller_may_not_read_does_not_exist(desk: Desk) -> None:
    grant_id = desk.grant("hidden")
    token = desk.server.admin_token("*", sites=["east"])
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/revoke"),
        ("GET", "/redemptions"),
    ):
        body: dict[str, str] | None = {} if method == "PATCH" else None
        answer = desk(method, f"/grants/{grant_id}{path}", body, token=token)
        assert answer.status == 404, (method, path)


def test_whoever_may_only_read_is_told_so(desk: Desk) -> None:
    grant_id = desk.grant("read-only")
    token = desk.server.admin_token("read")
    assert desk("GET", f"/grants/{grant_id}", token=token).status == 200
    for method, path, body in (
        ("PATCH", f"/grants/{grant_id}", {"description": "x"}),
        ("DELETE", f"/grants/{grant_id}", None),
        ("POST", f"/grants/{grant_id}/revoke", None),
        ("POST", "/grants", {"name": "x", "site": "west"}),
        ("POST", "/grants", {"name": "x", "site": "nowhere"}),
        ("POST", "/grants", {"name": "x"}),
    ):
        answer = desk(method, path, body, token=token)
        assert (answer.status, answer.json()["title"]) == (403, "This is not allowed")


def test_what_is_given_is_changed_and_nothing_else(desk: Desk) -> None:
    grant_id = desk.grant("changing", labels={"a": "1"}, description="before")
    before = desk("GET", f"/grants/{grant_id}").json()
    answer = desk("PATCH", f"/grants/{grant_id}", {"labels": {"b": "2"}, "redemptions": 3})
    assert answer.status == 200
    assert answer.json() == before | {"labels": {"b": "2"}, "redemptions": 3}
    assert answer.headers["etag"] == desk("GET", f"/grants/{grant_id}").headers["etag"]
    less = desk("PATCH", f"/grants/{grant_id}", {"redemptions": 1})
    assert (less.status, less.json()["errors"][0]["field"]) == (422, "redemptions")
    never = desk("PATCH", f"/grants/{grant_id}", {"expires_at": "soon"})
    assert (never.status, never.json()["errors"][0]["field"]) == (422, "expires_at")


def test_an_extension_counts_from_now(desk: Desk) -> None:
    grant_id = desk.grant("longer", window="1m")
    answer = desk("POST", f"/grants/{grant_id}/extend", {"window": "2h", "redemptions": 5})
    assert answer.status == 200
    assert abs(seconds(answer.json()["expires_at"]) - utc_now() - 7200) < 60
    assert answer.json()["redemptions"] == 5
    assert desk("POST", f"/grants/{grant_id}/extend", {}).status == 422
    assert desk("POST", f"/grants/{grant_id}/extend", {"window": "1m"}).status == 422


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", {"description": "x"}),
        ("POST", "/extend", {"redemptions": 9}),
        ("POST", "/revoke", None),
        ("DELETE", "", None),
    ],
)
def test_a_change_may_be_bound_to_what_was_looked_at(
    desk: Desk, method: str, path: str, body: object
) -> None:
    name = f"bound-{method.lower()}{path.replace('/', '-')}"
    grant_id = desk.grant(name)
    tag = desk("GET", f"/grants/{grant_id}").headers["etag"]
    assert desk("PATCH", f"/grants/{grant_id}", {"labels": {"x": "y"}}).status == 200
    answer = desk(method, f"/grants/{grant_id}{path}", body, headers={"If-Match": tag})
    assert (answer.status, answer.json()["type"]) == (412, "urn:grantserver:problem:stale")
    newest = desk("GET", f"/grants/{grant_id}").headers["etag"]
    answer = desk(method, f"/grants/{grant_id}{path}", body, headers={"If-Match": newest})
    assert answer.status in {200, 204}


def test_a_grant_is_ended_with_its_certificates_or_without(desk: Desk) -> None:
    for name, body, count in (("with", None, 1), ("without", {"certificates": False}, 0)):
        issued = desk.server.issue(name)
        assert desk.server.redeem(issued).status == 200
        answer = desk("POST", f"/grants/{issued.grant.id}/revoke", body)
        assert (answer.status, answer.json()["certificates"]) == (200, count)
        assert answer.json()["grant"]["state"] == "revoked"
    again = desk("POST", f"/grants/{issued.grant.id}/extend", {"redemptions": 9})
    assert again.status == 409


def test_a_deleted_grant_is_gone(desk: Desk) -> None:
    grant_id = desk.grant("gone")
    assert desk("DELETE", f"/grants/{grant_id}").status == 204
    assert desk("DELETE", f"/grants/{grant_id}").status == 404


def test_a_name_that_looks_like_the_id_of_another_grant_takes_nothing_from_it(desk: Desk) -> None:
    victim = desk.grant("victim")
    decoy = desk.grant(victim)
    assert desk("POST", f"/grants/{victim}/revoke").json()["grant"]["name"] == "victim"
    assert desk("GET", f"/grants/{decoy}").json()["state"] == "active"


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"name": "Lab"}, "name"),
        ({"name": "lab", "window": "soon"}, "window"),
        ({"name": "lab", "redemptions": 0}, "redemptions"),
        ({"name": "lab", "code": "short"}, "code"),
        ({"name": "lab", "labels": {"a b": "c"}}, "labels.a b.[key]"),
        ({"name": "lab", "policy": {"networks": ["anywhere"]}}, "policy.networks.0"),
        ({"name": "lab", "polices": {}}, "polices"),
        ({"name": "lab", "description": "\x07"}, "description"),
        ({"name": "lab", "description": "\ud800"}, "description"),
    ],
)
def test_a_malformed_wish_is_refused_by_its_field(
    desk: Desk, wish: dict[str, Any], field: str
) -> None:
    answer = desk("POST", "/grants", {"site": "west"} | wish)
    assert answer.status == 400
    assert [one["field"] for one in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"window": "0s"}, "window"),
        ({"issuer": "nobody"}, "issuer"),
        ({"not_before": "2999-01-01T00:00:00Z"}, "not_before"),
        ({"not_before": "tomorrow"}, "not_before"),
        ({"policy": {"networks": ["10.0.0.1/8"]}}, "networks"),
        ({"policy": {"lifetime": "999999h"}}, "lifetime"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_its_field(
    desk: Desk, wish: dict[str, Any], field: str
) -> None:
    answer = desk("POST", "/grants", {"name": "lab", "site": "west"} | wish)
    assert (answer.status, answer.json()["errors"][0]["field"]) == (422, field)


def test_where_there_are_several_sites_one_has_to_be_named(desk: Desk) -> None:
    answer = desk("POST", "/grants", {"name": "somewhere"})
    assert (answer.status, answer.json()["errors"][0]["field"]) == (422, "site")
    assert "east" not in answer.body.decode()
    assert desk("POST", "/grants", {"name": "lab", "site": "nowhere"}).status == 404


def test_a_name_is_taken_once_at_a_site(desk: Desk) -> None:
    desk.grant("taken")
    assert desk("POST", "/grants", {"name": "taken", "site": "west"}).status == 409
    assert desk("POST", "/grants", {"name": "taken", "site": "east"}).status == 201
