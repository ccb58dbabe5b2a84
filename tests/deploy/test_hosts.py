"""What is installed on hosts without a cluster: the unit of systemd, the file of Compose."""

import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import settings

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
UNIT = DEPLOY / "systemd" / "grantserver.service"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
DOCS = DEPLOY.parent / "docs"


def variables(text: str) -> set[str]:
    return set(re.findall(r"\bGRANTSERVER_[A-Z_]+\b", text))


KNOWN = {variable for variable, *_ in settings.catalog()} | {"GRANTSERVER_CONFIG"}


@pytest.fixture
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def test_every_setting_that_is_named_exists() -> None:
    named = variables(COMPOSE.read_text()) | variables(UNIT.read_text())
    for page in ("linux.md", "containers.md"):
        named |= variables((DOCS / page).read_text())
    assert named - {"GRANTSERVER_IMAGE"} <= KNOWN


def test_the_unit_is_one() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    found = subprocess.run(
        ["systemd-analyze", "verify", UNIT],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    told = [line for line in found.stderr.splitlines() if "is not executable" not in line]
    assert told == []


@pytest.mark.parametrize(
    "line",
    [
        *("NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict"),
        *("DynamicUser=yes", "StateDirectoryMode=0700", "MemoryDenyWriteExecute=yes"),
        *("Restart=always", "ExecReload=/bin/kill -HUP $MAINPID"),
    ],
)
def test_the_unit_takes_away_what_is_not_needed(line: str) -> None:
    assert line in UNIT.read_text().splitlines()


def test_the_unit_gives_more_time_to_end_than_the_server_takes() -> None:
    from app.serve import END_SECONDS  # noqa: PLC0415 - loads much

    (given,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert int(given) > END_SECONDS
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert int(services["grantserver"]["stop_grace_period"].removesuffix("s")) > END_SECONDS


def test_all_that_compose_refers_to_is_there(compose: dict[str, Any]) -> None:
    for kind in ("secrets", "volumes", "networks"):
        used = {
            str(one).partition(":")[0]
            for service in compose["services"].values()
            for one in service.get(kind, ())
        }
        assert used == set(compose[kind]), kind


def test_no_secret_is_in_the_environment(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            assert "PASSWORD" not in name or name.endswith("_FILE")
            assert "postgresql://" not in value


def test_the_server_may_do_nothing_that_it_need_not(compose: dict[str, Any]) -> None:
    server = compose["services"]["grantserver"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in server["security_opt"]
    assert compose["networks"]["database"]["internal"] is True
    assert compose["services"]["postgres"]["networks"] == ["database"]
    assert "ports" not in compose["services"]["postgres"]
    # Probes and metrics are for this host.
    assert [port for port in server["ports"] if not port.startswith("127.0.0.1:")] == ["9090:9090"]


def test_the_secrets_are_made_once_and_for_the_server_alone(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("the secrets are made by root")
    script = shutil.copy(DEPLOY / "compose" / "secrets.sh", tmp_path)
    subprocess.run([script], check=True, timeout=30)
    made = {
        name: tmp_path / "secrets" / Path(one["file"]).name
        for name, one in compose["secrets"].items()
    }
    before = {name: path.read_bytes() for name, path in made.items()}
    password = before["postgres-password"].decode()
    assert re.fullmatch(r"[0-9a-f]{64}", password)
    told = tomllib.loads(before["grantserver.toml"].decode())
    assert told == {
        "database": {"url": f"postgresql://grantserver:{password}@postgres/grantserver"}
    }
    found = settings.load({"GRANTSERVER_CONFIG": str(made["grantserver.toml"])})
    assert password in found.database.url
    assert (made["grantserver.toml"].stat().st_uid) == 65532
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.values()} == {0o400}
    subprocess.run([script], check=True, timeout=30)
    assert {name: path.read_bytes() for name, path in made.items()} == before
