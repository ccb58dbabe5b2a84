from typing import Any

import pytest

from tests.web.admin.conftest import Desk


def test_a_token_is_made_used_shown_and_revoked(desk: Desk) -> None:
    wish = {"name": "portal", "verbs": ["read", "create"], "sites": ["west"], "window": "24h"}
    answer = desk("POST", "/admin-tokens", wish)
    assert answer.status == 201
    assert answer.headers["location"] == "/api/v1/admin-tokens/portal"
    secret, made = answer.json()["secret"], answer.json()["admin_token"]
    assert (made["verbs"], made["sites"], made["state"]) == (["read", "create"], ["west"], "active")
    who = desk("GET", "/info", token=secret).json()["caller"]
    assert who == {"kind": "token", "name": "portal", "verbs": made["verbs"], "sites": ["west"]}
    shown = desk("GET", "/admin-tokens/portal")
    assert shown.json()["id"] == made["id"]
    assert secret.encode() not in shown.body
    assert desk("DELETE", "/admin-tokens/portal").json()["state"] == "revoked"
    assert desk("GET", "/info", token=secret).status == 401
    assert desk("GET", "/admin-tokens/portal").json()["state"] == "revoked"


def test_tokens_are_listed_page_by_page(desk: Desk) -> None:
    for number in range(3):
        wish = {"name": f"listed-{number}", "verbs": ["read"], "sites": ["*"]}
        assert desk("POST", "/admin-tokens", wish).status == 201
    found: list[str] = []
    cursor = ""
    while True:
        page = desk("GET", f"/admin-tokens?limit=2{cursor}").json()
        found += [one["name"] for one in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == sorted(found)
    assert {"listed-0", "listed-1", "listed-2"} <= set(found)


def test_nobody_gives_away_more_than_they_have(desk: Desk) -> None:
    mine = desk.server.admin_token("read", "manage")
    for verbs, status in ((["read"], 201), (["read", "create"], 403), (["*"], 403)):
        wish = {
            "name": f"given-{len(verbs)}-{verbs[-1] == '*'}".lower(),
            "verbs": verbs,
            "sites": ["*"],
        }
        assert desk("POST", "/admin-tokens", wish, token=mine).status == status


def test_they_are_managed_by_who_may_at_every_site(desk: Desk) -> None:
    token = desk.server.admin_token("*", sites=["west"])
    wish = {"name": "mine", "verbs": ["read"], "sites": ["west"]}
    for method, path, body in (
        ("GET", "/admin-tokens", None),
        ("POST", "/admin-tokens", wish),
        ("GET", "/admin-tokens/portal", None),
        ("DELETE", "/admin-tokens/portal", None),
    ):
        assert desk(method, path, body, token=token).status == 403


def test_one_that_is_not_there_is_missing(desk: Desk) -> None:
    assert desk("GET", "/admin-tokens/nobody").status == 404
    assert desk("DELETE", "/admin-tokens/nobody").status == 404


@pytest.mark.parametrize(
    ("wish", "status", "field"),
    [
        ({"verbs": ["read"], "sites": []}, 400, "sites"),
        ({"verbs": [], "sites": ["*"]}, 400, "verbs"),
        ({"verbs": ["read"], "sites": ["*"], "window": "999999h"}, 422, "window"),
        ({"verbs": ["read"], "sites": ["*"], "window": "0s"}, 422, "window"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_its_field(
    desk: Desk, wish: dict[str, Any], status: int, field: str
) -> None:
    answer = desk("POST", "/admin-tokens", {"name": "bad"} | wish)
    assert (answer.status, answer.json()["errors"][0]["field"]) == (status, field)
