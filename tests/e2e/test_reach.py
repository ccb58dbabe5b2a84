"""Tokens lead to us by whatever address they carry, and go on doing so when it changes."""

import ssl
from functools import partial
from pathlib import Path

import pytest

from app import ambient
from app.services import addresses
from app.services.self_check import SelfCheck
from app.store.addresses import AddressRow
from tests.crew import eventually
from tests.e2e.clients import Holder, holder, issue, shown_at, takes
from tests.pki import Folder, a_root
from tests.running import Server, running

PLAIN = {"GRANTSERVER_REACH_URL": ""}  # as where none is set


@pytest.fixture(autouse=True)
def _dials_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses here are those of documents; the server's look at its own is another matter."""
    defaults = SelfCheck.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "settle_seconds", 3600.0)


def a_holder(server: Server, name: str, *, redemptions: int = 1) -> Holder:
    return holder(issue(server.home, name, redemptions=redemptions), server.addresses.redemption)


def tell(server: Server, url: str, *hosts: str, problem: str = "") -> None:
    """As whoever sees a new address in the cluster does."""
    row = AddressRow(url=url, hosts=hosts, problem=problem)
    assert addresses.tell(server.home.database, row, now=ambient.utc_now())


def is_taken(server: Server, ca_pem: str, host: str) -> bool:
    """Tell whether a client that dials this host takes what is shown."""
    return takes(ca_pem, host, server.addresses.redemption)


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        pytest.param("[::1]:0", "https://[::1]:9090", id="IPv6"),
        pytest.param("[::]:0", "https://[2001:db8:0:0::7]:9090", id="IPv6 written at length"),
        pytest.param("127.0.0.1:0", "https://127.0.0.1:9090", id="IPv4"),
        pytest.param("127.0.0.1:0", "https://grants.west.example", id="a name"),
        pytest.param("127.0.0.1:0", "https://Grants.WEST.example:443", id="a name in capitals"),
        pytest.param(
            "127.0.0.1:0",
            f"https://grants.{'x' * 60}.west.example",
            id="a name too long for a common name",
        ),
    ],
)
def test_a_token_redeems_at_the_address_that_it_carries(
    tmp_path: Path, listen: str, url: str
) -> None:
    settings = {"GRANTSERVER_LISTEN_REDEMPTION": listen, "GRANTSERVER_REACH_URL": url}
    with running(tmp_path, **settings) as server:
        ours = a_holder(server, "ours")
        assert ours.token.url.startswith(url.lower())
        assert ours.redeem("east") == 200
        others = a_holder(server, "others")
        for host in ("elsewhere.example", "192.0.2.7", "2001:db8::8"):
            assert not is_taken(server, others.token.ca_pem, host)


def test_all_further_hosts_are_taken_as_well(tmp_path: Path) -> None:
    settings = {"GRANTSERVER_REACH_HOSTS": "nat.example, 203.0.113.9, fd00::9"}
    with running(tmp_path, **settings) as server:
        tell(server, "https://lost.example", "svc.west.example")  # REACH_URL wins
        ca_pem = server.home.reach().ca_pem
        assert eventually(lambda: is_taken(server, ca_pem, "svc.west.example"))
        for host in ("nat.example", "203.0.113.9", "fd00::9", "127.0.0.1"):
            assert is_taken(server, ca_pem, host)
        assert server.home.reach().url == "https://127.0.0.1:9090"


def test_tokens_that_are_out_redeem_after_the_address_has_changed(tmp_path: Path) -> None:
    with running(tmp_path, **PLAIN) as server:
        ca_pem = server.home.reach().ca_pem
        holders: list[Holder] = []
        for host in ("one.example", "192.0.2.7", "[2001:db8::7]", "two.example"):
            tell(server, f"https://{host}:9090")
            assert eventually(partial(is_taken, server, ca_pem, host.strip("[]")))
            holders.append(a_holder(server, f"of-{len(holders)}", redemptions=2))
            assert holders[-1].token.url.startswith(f"https://{host}:9090/")
            assert holders[-1].redeem("first") == 200
        assert [one.redeem("second") for one in holders] == [200] * 4


def test_an_address_that_vanishes_takes_no_token_that_is_out_along(tmp_path: Path) -> None:
    with running(tmp_path, **PLAIN) as server:
        tell(server, "https://one.example:9090")
        ca_pem = server.home.reach().ca_pem
        assert eventually(lambda: is_taken(server, ca_pem, "one.example"))
        out = a_holder(server, "out", redemptions=3)
        shown = shown_at(server.addresses.redemption)
        assert out.redeem("before") == 200
        tell(server, "", problem="waiting for an address of Service west/public")
        # Off a cluster there is always an address; in one there is none now.
        assert eventually(lambda: is_taken(server, ca_pem, "localhost"))
        assert out.redeem("meanwhile") == 200
        tell(server, "https://one.example:9090")
        assert eventually(lambda: is_taken(server, ca_pem, "one.example"))
        assert shown_at(server.addresses.redemption) != shown
        assert out.redeem("after") == 200


def test_a_client_of_tls_1_2_is_refused_before_and_after_a_change(tmp_path: Path) -> None:
    with running(tmp_path, **PLAIN) as server:
        for host in ("one.example", "two.example"):
            tell(server, f"https://{host}:9090")
            ca_pem = server.home.reach().ca_pem
            assert eventually(partial(is_taken, server, ca_pem, host))
            out = a_holder(server, f"at-{host.partition('.')[0]}")
            out.context.minimum_version = ssl.TLSVersion.TLSv1_2
            out.context.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(ssl.SSLError) as refusal:
                out.redeem("old")
            assert refusal.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"


def test_tokens_carry_the_ca_of_the_certificates_files(tmp_path: Path) -> None:
    root = a_root()
    folder = Folder(directory=tmp_path / "tls")
    folder.write(root.certify("name.example", name="below", ca=True).certify("127.0.0.1"), root)
    with running(tmp_path, **folder.environment) as server:
        theirs = a_holder(server, "theirs")
        assert theirs.token.ca_pem.strip() == root.pem.decode().strip()
        assert theirs.redeem("east") == 200
