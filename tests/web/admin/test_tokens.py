import yaml

from tests.web.admin.conftest import Desk


def test_a_token_and_its_grant_are_made_in_one(desk: Desk) -> None:
    answer = desk("POST", "/tokens", {"site": "west"})
    assert answer.status == 201
    made = answer.json()
    token = yaml.safe_load(made["token"])
    grant = made["grant"]
    assert token["kind"] == "AccessToken"
    assert token["spec"]["code"] == made["code"]
    assert token["spec"]["url"].endswith(f"/{grant['id']}")
    assert token["metadata"]["name"] == grant["name"]
    assert (grant["redemptions"], grant["site"]) == (1, "west")
    assert answer.headers["location"] == f"/api/v1/grants/{grant['id']}"


def test_the_token_redeems(desk: Desk) -> None:
    made = desk("POST", "/tokens", {"site": "west", "name": "redeems", "cost": 7}).json()
    answer = desk.server.request(
        "POST",
        f"/{made['grant']['id']}",
        made["code"].encode(),
        {"name": "link", "subject": "east"},
    )
    assert answer.status == 200
    assert b'"cost": 7' in answer.body or b"cost: 7" in answer.body
    assert desk("GET", f"/grants/{made['grant']['id']}").json()["state"] == "used_up"


def test_it_is_shown_once(desk: Desk) -> None:
    made = desk("POST", "/tokens", {"site": "west"}).json()
    everything = desk("GET", "/grants?limit=500").body + desk("GET", "/audit?limit=500").body
    assert made["code"].encode() not in everything


def test_whoever_may_not_create_gets_none(desk: Desk) -> None:
    token = desk.server.admin_token("create", sites=["east"])
    assert desk("POST", "/tokens", {"site": "west"}, token=token).status == 403
    assert desk("POST", "/tokens", {"site": "east"}, token=token).status == 201
