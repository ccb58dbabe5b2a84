import json
import os
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

LINK = """apiVersion: skupper.io/v2alpha1
kind: Link
metadata:
  name: {name}
spec:
  endpoints:
    - name: inter-router
      host: {name}.example.com
      port: "55671"
      group: skupper-router
  tlsCredentials: {name}
{cost}"""


def put(namespace: Path, name: str, cost: str = "", file: str = "") -> Path:
    directory = namespace / "input" / "resources"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / (file or f"Link-{name}.yaml")
    path.write_text(LINK.format(name=name, cost=cost))
    return path


@pytest.fixture
def namespace(tmp_path: Path) -> Path:
    made = tmp_path / "namespaces" / "shop"
    put(made, "west", "  cost: 5\n")
    put(made, "north")
    (made / "input" / "resources" / "Secret-west.yaml").write_text("kind: Secret\n")
    return made


def test_the_links_of_a_system_site_are_listed_by_name(cli: Cli, namespace: Path) -> None:
    found = cli.json("link", "list", "--dir", str(namespace))
    assert [(one["name"], one["cost"], one["state"]) for one in found] == [
        ("north", 1, None),
        ("west", 5, None),
    ]
    assert found[1]["endpoints"] == ["inter-router=west.example.com:55671"]


def test_without_links_it_is_said_how_to_come_by_one(cli: Cli, tmp_path: Path) -> None:
    result = cli.run("link", "list", "--dir", str(tmp_path))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "token redeem" in result.stderr


def test_what_is_no_file_is_not_waited_for(cli: Cli, namespace: Path) -> None:
    os.mkfifo(namespace / "input" / "resources" / "a.yaml")
    found = cli.json("link", "list", "--dir", str(namespace))
    assert [one["name"] for one in found] == ["north", "west"]


def test_a_cost_is_changed_and_nothing_else(cli: Cli, namespace: Path) -> None:
    path = namespace / "input" / "resources" / "Link-west.yaml"
    path.chmod(0o640)
    before = path.read_text()
    told = cli.done("link", "cost", "west", "99999", "--dir", str(namespace))
    assert told.splitlines()[0] == "Link west costs 99999 now; it was 5."
    assert told.splitlines()[-1] == "  skupper system reload -n shop"
    assert path.read_text() == before.replace("cost: 5", "cost: 99999")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(one.name for one in path.parent.iterdir()) == [
        "Link-north.yaml",
        "Link-west.yaml",
        "Secret-west.yaml",
    ]


def test_the_cost_that_it_has_already_writes_nothing(cli: Cli, namespace: Path) -> None:
    path = namespace / "input" / "resources" / "Link-west.yaml"
    before = path.stat().st_ino
    assert "as it did before" in cli.done("link", "cost", "west", "5", "--dir", str(namespace))
    assert path.stat().st_ino == before


def test_an_unknown_link_is_refused(cli: Cli, namespace: Path) -> None:
    result = cli.run("link", "cost", "../../x", "2", "--dir", str(namespace))
    assert result.exit_code == 1
    assert "Link" in result.stderr


def test_a_link_in_two_files_is_left_to_its_owner(cli: Cli, namespace: Path) -> None:
    put(namespace, "west", file="more.yml")
    result = cli.run("link", "cost", "west", "2", "--dir", str(namespace))
    assert result.exit_code == 1
    assert "edit it" in result.stderr


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_listed(
    cli: Cli, namespace: Path
) -> None:
    resources = namespace / "input" / "resources"
    (resources / "bad.yaml").write_text("a: [")
    (resources / "bytes.yaml").write_bytes(b"\xff")
    (resources / "gone.yaml").symlink_to("nowhere")
    result = cli.run("link", "list", "--dir", str(namespace), "-o", "json")
    assert [one["name"] for one in json.loads(result.stdout)] == ["north", "west"]
    for name in ("bad.yaml", "bytes.yaml", "gone.yaml"):
        assert name in result.stderr
    cli.done("link", "cost", "west", "7", "--dir", str(namespace))
