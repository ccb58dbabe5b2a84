"""Against ours, and with KUBEBUILDER_ASSETS against a real API server."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.kube.api_server import Kube

SHOP = "shop"


def a_link(name: str, **spec: Any) -> dict[str, Any]:
    endpoint = {"name": "edge", "host": f"{name}.example.com", "port": "45671"}
    return {
        "apiVersion": "skupper.io/v2alpha1",
        "kind": "Link",
        "metadata": {"name": name, "namespace": SHOP},
        "spec": {"endpoints": [endpoint], "tlsCredentials": name, **spec},
    }


@pytest.fixture
def where(kube: Kube, tmp_path: Path) -> list[str]:
    kube.install_skupper()
    kube.namespace(SHOP)
    kube.create(a_link("west", cost=5, settings={"proxy-configuration": "squid"}))
    kube.create(a_link("north"))
    return ["-n", SHOP, "--kubeconfig", str(kube.kubeconfig(tmp_path / "config"))]


def test_the_links_of_a_namespace_are_listed_with_cost_and_state(
    cli: Cli, kube: Kube, where: list[str]
) -> None:
    status = {"status": "Ready", "remoteSiteName": "west-site", "message": "OK"}
    kube.patch("Link", "west", {"status": status}, SHOP, subresource="status")
    lines = cli.done("link", "list", *where).splitlines()
    assert lines[0].split() == ["NAME", "COST", "STATE", "REMOTE", "SITE", "MESSAGE", "ENDPOINTS"]
    assert lines[1].split() == ["north", "1", "-", "-", "-", "edge=north.example.com:45671"]
    assert lines[2].split()[:5] == ["west", "5", "Ready", "west-site", "OK"]


def test_a_cost_is_changed_and_nothing_else(cli: Cli, kube: Kube, where: list[str]) -> None:
    before = kube.get("Link", "west", SHOP)["spec"]
    told = cli.done("link", "cost", "west", "99999", *where)
    assert told == "Link west costs 99999 now; it was 5.\n"
    assert kube.get("Link", "west", SHOP)["spec"] == before | {"cost": 99999}


def test_an_unknown_link_is_refused(cli: Cli, where: list[str]) -> None:
    result = cli.run("link", "cost", "south", "2", *where)
    assert result.exit_code == 1
    assert "south" in result.stderr


def test_a_name_that_leads_elsewhere_is_not_sent(cli: Cli, where: list[str]) -> None:
    assert cli.run("link", "cost", "../secrets/x", "2", *where).exit_code == 2
