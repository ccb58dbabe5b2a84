from tests.web.admin.conftest import Desk


def test_authorities_are_listed_without_their_keys(desk: Desk) -> None:
    first = desk("GET", "/authorities?limit=1").json()
    second = desk("GET", f"/authorities?limit=1&cursor={first['next']}").json()
    found = {one["name"]: one for one in (*first["items"], *second["items"])}
    assert set(found) == {"server-ca", "site-ca"}
    assert second["next"] is None
    assert found["site-ca"] == desk("GET", "/authorities/site-ca").json()
    assert found["site-ca"]["certificate"].startswith("-----BEGIN CERTIFICATE-----")
    assert "KEY" not in str(found)


def test_one_that_is_not_there_is_missing(desk: Desk) -> None:
    assert desk("GET", "/authorities/nobody").status == 404


def test_whoever_may_read_at_some_site_may_read_them(desk: Desk) -> None:
    token = desk.server.admin_token("read", sites=["west"])
    assert desk("GET", "/authorities", token=token).status == 200
    token = desk.server.admin_token("create", sites=["west"])
    assert desk("GET", "/authorities", token=token).status == 403
    assert desk("GET", "/authorities/site-ca", token=token).status == 403
