from pathlib import Path

import pytest

from tests.cli.conftest import Cli

NETWORK = """
links:
  - {from: east, to: hub, cost: 2}
  - {from: hub, to: west, cost: 1}
  - {from: east, to: west, cost: 5}
from: east
to: [hub, west]
"""


@pytest.fixture
def network(tmp_path: Path) -> str:
    path = tmp_path / "network.yaml"
    path.write_text(NETWORK)
    return str(path)


def test_ways_order_of_failover_and_losses_are_shown(cli: Cli, network: str) -> None:
    lines = cli.done("link", "plan", network, "--connections", "5").splitlines()
    assert lines[0] == "Connections from east go to the first of these that is there:"
    assert lines[1].split() == [
        *("SITE", "COST", "BY", "WAY", "OF", "GETS", "CONNECTIONS", "FROM", "OF", "5", "OPEN"),
    ]
    assert lines[2].split() == ["first", "hub", "2", "east", ">", "hub", "no.", "1", "3"]
    assert lines[3].split() == [
        *("then", "west", "3", "east", ">", "hub", ">", "west", "no.", "3", "2"),
    ]
    assert lines[4] == "When one link is lost, new connections go to:"
    assert lines[6].split() == ["east", "-", "hub", "west", "east", ">", "west", "5"]


def test_the_same_is_given_as_a_document(cli: Cli, network: str) -> None:
    document = cli.json("link", "plan", network, "--from", "west", "--to", "east")
    assert document["routes"] == [
        {
            "site": "east",
            "cost": 3,
            "path": ["west", "hub", "east"],
            "firstConnection": 1,
            "connections": 0,
        }
    ]
    assert document["lostLinks"][0] == {
        "from": "hub",
        "to": "west",
        "site": "east",
        "cost": 5,
        "path": ["west", "east"],
    }


def test_a_link_that_all_depends_on_and_a_site_out_of_reach_are_pointed_out(
    cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "n.yaml"
    path.write_text("{links: [{from: a, to: b}, {from: c, to: d}], from: a, to: [b, c]}")
    result = cli.run("link", "plan", str(path))
    assert result.exit_code == 0
    assert "nobody: the service is lost" in result.stdout
    assert "warning: no links lead from a to c" in result.stderr


def test_a_server_at_home_needs_no_link(cli: Cli, network: str) -> None:
    assert "its own site" in cli.done("link", "plan", network, "--to", "east", "--to", "hub")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff", "no text in UTF-8"),
        (b"links: [{from: a, to: b, cost: x}]", "links[0].cost"),
        (b"links: [{from: a, to: b}]", "from"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(
    cli: Cli, tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "n.yaml"
    path.write_bytes(content)
    result = cli.run("link", "plan", str(path))
    assert result.exit_code == 2
    assert says in result.stderr
