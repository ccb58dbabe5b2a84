from tests.web.admin.conftest import Desk


def test_what_was_done_is_told_the_newest_first(desk: Desk) -> None:
    grant_id = desk.grant("audited")
    assert desk("DELETE", f"/grants/{grant_id}").status == 204
    page = desk("GET", f"/audit?target=grant/{grant_id}").json()
    assert [one["act"] for one in page["items"]] == ["grant.removed", "grant.created"]
    assert {one["actor"].partition(":")[0] for one in page["items"]} == {"token"}
    assert page["items"][0]["id"] > page["items"][1]["id"]


def test_it_is_read_page_by_page_and_filtered(desk: Desk) -> None:
    for number in range(3):
        desk.grant(f"act-{number}")
    query = "act=grant.created&actor=token:&since=2026-01-01T00:00:00Z&limit=2"
    first = desk("GET", f"/audit?{query}").json()
    second = desk("GET", f"/audit?{query}&cursor={first['next']}").json()
    names = [one["details"]["name"] for one in (*first["items"], *second["items"])]
    assert names[:3] == ["act-2", "act-1", "act-0"]
    assert desk("GET", "/audit?until=2000-01-01T00:00:00Z").json() == {"items": [], "next": None}


def test_what_no_entry_can_have_is_refused_by_its_name(desk: Desk) -> None:
    for query, status, field in (
        ("act=grant.invented", 422, "act"),
        ("act=GRANT", 400, "act"),
        ("since=yesterday", 422, "since"),
        ("since=2026-02-01T00:00:00Z&until=2026-01-01T00:00:00Z", 422, "until"),
        ("cursor=xxxx", 422, "cursor"),
    ):
        answer = desk("GET", f"/audit?{query}")
        assert (answer.status, answer.json()["errors"][0]["field"]) == (status, field)


def test_it_is_read_by_who_may_at_every_site(desk: Desk) -> None:
    assert desk("GET", "/audit", token=desk.server.admin_token("audit")).status == 200
    token = desk.server.admin_token("audit", sites=["west"])
    assert desk("GET", "/audit", token=token).status == 403
    assert desk("GET", "/audit", token=desk.server.admin_token("read")).status == 403
