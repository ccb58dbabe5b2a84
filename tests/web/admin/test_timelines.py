from tests.web.admin.conftest import Desk


def test_a_grant_tells_what_happened_to_it_and_what_a_next_claim_would_get(desk: Desk) -> None:
    issued = desk.server.issue("story")
    assert desk.server.redeem(issued).status == 200
    path = f"/grants/{issued.grant.id}"
    assert desk("POST", f"{path}/revoke").status == 200
    story = desk("GET", f"{path}/timeline").json()
    assert (story["name"], story["site"], story["left_out"]) == ("story", "west", 0)
    acts = [one["act"] for one in story["moments"]]
    assert acts[:2] == ["grant.created", "grant.redeemed"]
    assert "grant.revoked" in acts
    assert story["moments"][1]["peer"] == "127.0.0.1"
    standing = story["standing"]
    assert (standing["state"], standing["left"], standing["redeemed"]) == ("revoked", 0, 1)
    assert standing["revoked_at"] is not None
    assert "revoked" in [one["reason"] for one in standing["obstructions"]]
    assert issued.code not in str(story)


def test_of_a_long_story_the_newest_is_told(desk: Desk) -> None:
    grant_id = desk.grant("long-story")
    for number in range(3):
        assert desk("PATCH", f"/grants/{grant_id}", {"description": str(number)}).status == 200
    story = desk("GET", f"/grants/{grant_id}/timeline?limit=2").json()
    assert ([one["act"] for one in story["moments"]], story["left_out"]) == (
        ["grant.changed", "grant.changed"],
        2,
    )
    assert desk("GET", f"/grants/{grant_id}/timeline?limit=0").status == 400


def test_it_is_told_to_who_may_read_it(desk: Desk) -> None:
    path = f"/grants/{desk.grant('private-story')}/timeline"
    assert desk("GET", path, token=desk.server.admin_token("read", sites=["west"])).status == 200
    assert desk("GET", path, token=desk.server.admin_token(sites=["east"])).status == 404
