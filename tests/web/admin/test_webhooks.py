from typing import Any

import pytest

from tests.web.admin.conftest import Desk

WISH: dict[str, Any] = {
    "url": "https://portal.example.com:8443/in?key=s3cret",
    "events": ["redeemed", "theft"],
    "sites": ["west"],
}


def made(desk: Desk, name: str, **changes: object) -> dict[str, Any]:
    answer = desk("POST", "/webhooks", {"name": name} | WISH | changes)
    assert answer.status == 201, answer
    found: dict[str, Any] = answer.json()
    return found


def test_a_webhook_is_made_shown_changed_and_removed(desk: Desk) -> None:
    answer = made(desk, "portal")
    assert answer["secret"].startswith("whsec_")
    webhook = answer["webhook"]
    assert (webhook["origin"], webhook["events"], webhook["sites"]) == (
        "https://portal.example.com:8443",
        ["redeemed", "theft"],
        ["west"],
    )
    shown = desk("GET", "/webhooks/portal")
    assert shown.json()["id"] == webhook["id"]
    assert b"s3cret" not in shown.body
    assert answer["secret"].encode() not in shown.body
    changed = desk("PATCH", "/webhooks/portal", {"enabled": False, "events": ["refused"]}).json()
    assert (changed["enabled"], changed["events"]) == (False, ["refused"])
    assert "portal" in [one["name"] for one in desk("GET", "/webhooks").json()["items"]]
    assert desk("DELETE", "/webhooks/portal").status == 204
    assert desk("DELETE", "/webhooks/portal").status == 404


def test_it_is_made_once_under_a_key(desk: Desk) -> None:
    headers = {"Idempotency-Key": "webhook-1"}
    wish = {"name": "once"} | WISH
    first, second = (desk("POST", "/webhooks", wish, headers=headers) for _ in range(2))
    assert (first.status, second.status) == (201, 201)
    assert first.body == second.body
    assert desk("POST", "/webhooks", wish).status == 409


def test_what_was_given_up_is_listed_and_sent_anew(desk: Desk) -> None:
    made(desk, "dead")
    assert desk("GET", "/webhooks/dead/dead").json() == {"items": []}
    assert desk("POST", "/webhooks/dead/redeliver").json() == {"deliveries": 0}
    body = {"event_id": "1-" + "0" * 16}
    assert desk("POST", "/webhooks/dead/redeliver", body).status == 404
    assert desk("POST", "/webhooks/dead/redeliver", {"event_id": "1"}).status == 400
    assert desk("GET", "/webhooks/nobody/dead").status == 404


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"url": "http://portal.example.com/"}, 422, "url"),
        ({"url": "ftp://portal.example.com/"}, 422, "url"),
        ({"ca": "no certificate"}, 422, "ca"),
        ({"events": ["deleted"]}, 400, "events.0"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_its_field(
    desk: Desk, change: dict[str, object], status: int, field: str
) -> None:
    answer = desk("POST", "/webhooks", {"name": "bad"} | WISH | change)
    assert (answer.status, answer.json()["errors"][0]["field"]) == (status, field)
    assert b"s3cret" not in answer.body
