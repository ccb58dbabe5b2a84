"""`docs/endpoints.md` lists every path that is answered: no more, no less."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry
from starlette.routing import Route

from app.web import renewal
from app.web.ops import create_app
from tests.deploy.handbook import DOCS, section
from tests.running import running

PAGE = (DOCS / "endpoints.md").read_text()
CLAIMS = ["POST /<grant>", "POST /<site>/<grant name>", "GET /<grant>"]


def test_every_path_of_the_ops_listener_is_documented_and_no_other() -> None:
    routes = create_app(registry=CollectorRegistry(), checks={}).routes
    served = {f"GET {route.path}" for route in routes if isinstance(route, Route)}
    documented = re.findall(
        r"^\| `(GET /[^`]+)` \|", section("The ops listener", PAGE), re.MULTILINE
    )
    assert set(documented) == served
    assert len(documented) == len(served)


def test_every_path_of_the_redemption_listener_is_documented_and_answered(tmp_path: Path) -> None:
    listener = PAGE.partition("\n## The redemption listener\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^### `([A-Z]+ /[^`]*)`", listener, re.MULTILINE)
    assert documented == [*CLAIMS, f"POST {renewal.PATH}", "GET /crl/<authority>.crl"]
    with running(tmp_path, GRANTSERVER_GRANTS_REDEMPTION_BY_KEY="true") as server:
        issued = server.issue(redemptions=2)
        code = issued.code.encode()
        bearer = {"Authorization": f"Bearer {issued.code}"}
        answers = [
            server.request("POST", f"/{issued.grant.id}", code, {"name": "a"}),
            server.request("POST", "/west/grant-west", code, {"name": "b"}),
            server.request("GET", f"/{issued.grant.id}", headers=bearer),
            server.request("POST", renewal.PATH, b"no renewal"),
            server.request("GET", "/crl/site-ca.crl"),
        ]
    assert [answer.status for answer in answers] == [200, 200, 200, 400, 200]
