from typing import Any

import pytest

from tests.web.admin.conftest import Desk

NORTH: dict[str, Any] = {
    "endpoints": [
        {"role": "inter-router", "host": "2001:db8::1", "port": 55671},
        {"role": "edge", "host": "north.example.com", "port": 45671, "group": "other"},
    ]
}


def test_a_site_is_made_shown_changed_and_removed(desk: Desk) -> None:
    made = desk("PUT", "/sites/north", NORTH, headers={"If-None-Match": "*"})
    assert made.status == 200
    assert [one["group"] for one in made.json()["endpoints"]] == ["other", "skupper-router"]
    shown = desk("GET", "/sites/north")
    assert (shown.json(), shown.headers["etag"]) == (made.json(), made.headers["etag"])
    again = desk("PUT", "/sites/north", NORTH, headers={"If-None-Match": "*"})
    assert again.status == 412
    changed = desk(
        "PUT", "/sites/north", {"endpoints": []}, headers={"If-Match": made.headers["etag"]}
    )
    assert (changed.status, changed.json()["endpoints"]) == (200, [])
    stale = desk("DELETE", "/sites/north", headers={"If-Match": made.headers["etag"]})
    assert stale.status == 412
    assert desk("DELETE", "/sites/north").status == 204
    assert desk("DELETE", "/sites/north").status == 404
    assert desk("GET", "/sites/north").status == 404
    gone = desk("PUT", "/sites/north", NORTH, headers={"If-Match": made.headers["etag"]})
    assert gone.status == 412


def test_whoever_has_the_newest_representation_is_told_so(desk: Desk) -> None:
    tag = desk("GET", "/sites/west").headers["etag"]
    assert desk("GET", "/sites/west", headers={"If-None-Match": tag}).status == 304


def test_sites_are_listed_by_name_as_far_as_they_may_be_read(desk: Desk) -> None:
    page = desk("GET", "/sites?limit=1").json()
    assert [one["name"] for one in page["items"]] == ["east"]
    page = desk("GET", f"/sites?limit=1&cursor={page['next']}").json()
    assert [one["name"] for one in page["items"]] == ["west"]
    assert page["next"] is None
    token = desk.server.admin_token("read", sites=["west"])
    answer = desk("GET", "/sites", token=token).json()
    assert [one["name"] for one in answer["items"]] == ["west"]
    assert desk("GET", "/sites/east", token=token).status == 404


def test_a_site_to_which_a_grant_leads_stays(desk: Desk) -> None:
    desk.grant("leads")
    assert desk("DELETE", "/sites/west").status == 409


def test_whoever_manages_a_site_manages_that_one(desk: Desk) -> None:
    token = desk.server.admin_token("read", "manage", sites=["south"])
    assert desk("PUT", "/sites/south", NORTH, token=token).status == 200
    assert desk("PUT", "/sites/west", NORTH, token=token).status == 403
    assert desk("DELETE", "/sites/west", token=token).status == 404
    assert desk("DELETE", "/sites/south", token=token).status == 204


@pytest.mark.parametrize(
    ("wish", "status", "field"),
    [
        ({}, 400, "endpoints"),
        ({"endpoints": [{"role": "hub", "host": "a", "port": 1}]}, 400, "endpoints.0.role"),
        ({"endpoints": [{"role": "edge", "host": "a", "port": 0}]}, 400, "endpoints.0.port"),
        ({"endpoints": [{"role": "edge", "host": "a..b", "port": 1}]}, 422, "endpoints"),
        ({"endpoints": [], "issuer": "nobody"}, 422, "issuer"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_its_field(
    desk: Desk, wish: dict[str, Any], status: int, field: str
) -> None:
    answer = desk("PUT", "/sites/bad", wish)
    assert (answer.status, answer.json()["errors"][0]["field"]) == (status, field)
