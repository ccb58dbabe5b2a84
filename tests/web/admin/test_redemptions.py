from tests.web.admin.conftest import Desk


def redeemed(desk: Desk, name: str, count: int) -> str:
    issued = desk.server.issue(name, redemptions=count)
    for number in range(count):
        assert (
            desk.server.redeem(issued, name=f"link-{number}", subject=f"s-{number}").status == 200
        )
    return f"/grants/{issued.grant.id}/redemptions"


def test_redemptions_are_listed_page_by_page_in_their_order(desk: Desk) -> None:
    path = redeemed(desk, "listed", 3)
    page = desk("GET", f"{path}?limit=2").json()
    assert [one["name"] for one in page["items"]] == ["link-0", "link-1"]
    page = desk("GET", f"{path}?limit=2&cursor={page['next']}").json()
    assert [(one["ordinal"], one["subject"]) for one in page["items"]] == [(3, "s-2")]
    assert page["next"] is None


def test_a_cursor_belongs_to_its_grant(desk: Desk) -> None:
    one, other = (redeemed(desk, name, 2) for name in ("cursor-one", "cursor-other"))
    cursor = desk("GET", f"{one}?limit=1").json()["next"]
    assert desk("GET", f"{other}?cursor={cursor}").status == 422


def test_a_redemption_tells_who_came_from_where_and_got_what(desk: Desk) -> None:
    path = redeemed(desk, "told", 1)
    (listed,) = desk("GET", path).json()["items"]
    assert desk("GET", f"{path}/1").json() == listed
    assert (listed["name"], listed["subject"], listed["peer"]) == ("link-0", "s-0", "127.0.0.1")
    assert len(listed["fingerprint"]) == 64
    assert listed["revoked_at"] is None
    assert desk("GET", f"{path}/2").status == 404
    assert desk("GET", f"{path}/0").status == 400


def test_one_redemption_is_revoked_and_the_others_stay(desk: Desk) -> None:
    path = redeemed(desk, "one-of-two", 2)
    answer = desk("POST", f"{path}/2/revoke")
    assert (answer.status, answer.json()["certificates"]) == (200, 1)
    assert answer.json()["redemption"]["revoked_at"] is not None
    assert desk("GET", f"{path}/1").json()["revoked_at"] is None
    assert desk("POST", f"{path}/2/revoke").json()["certificates"] == 0
    assert desk("POST", f"{path}/3/revoke").status == 404
    token = desk.server.admin_token("read")
    assert desk("POST", f"{path}/1/revoke", token=token).status == 403
