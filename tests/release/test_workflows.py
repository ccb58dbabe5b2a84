"""The workflows may do little, and call commands that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
WRITES = {"contents", "packages", "id-token", "attestations"}


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request: pytest.FixtureRequest) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(request.param.read_text())
    return found


def test_there_are_two() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]


def test_nothing_is_allowed_that_is_not_needed(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for name, job in workflow["jobs"].items():
        allowed = {what for what, how in job.get("permissions", {}).items() if how == "write"}
        assert allowed == (WRITES if name == "publish" else set())
        assert job["timeout-minutes"] <= 40


def test_a_pull_request_of_a_stranger_gets_no_secret(workflow: dict[Any, Any]) -> None:
    triggers = workflow[True]  # which is how YAML reads "on"
    assert not {"pull_request_target", "workflow_run"} & set(triggers)
    assert "secrets." not in str(workflow)
    for step in steps(workflow):
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
        # What others name is not put into a command by text.
        assert "${{" not in step.get("run", "")


def test_every_command_exists(workflow: dict[str, Any]) -> None:
    ran = "\n".join(step.get("run", "") for step in steps(workflow))
    for line in re.findall(r"^make (.+)$", ran, re.MULTILINE):
        assert set(line.split()) <= TARGETS
    if ".ci/run" in ran:
        assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
