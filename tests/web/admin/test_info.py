from app import __version__
from tests.web.admin.conftest import Desk


def test_the_server_tells_what_it_is_and_who_asks(desk: Desk) -> None:
    info = desk("GET", "/info", token=desk.server.admin_token("read", sites=["west"])).json()
    assert info["version"] == __version__
    assert info["reach"]["url"] == "https://127.0.0.1:9090"
    assert info["reach"]["ca"].startswith("-----BEGIN CERTIFICATE-----")
    assert info["ceilings"] == {"window": None, "redemptions": None, "lifetime": "8760h"}
    assert (info["caller"]["verbs"], info["caller"]["sites"]) == (["read"], ["west"])
