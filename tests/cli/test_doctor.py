import contextlib
import json
import sqlite3

import pytest
from ruamel.yaml import YAML

from app import ambient
from app.crypto.sealing import generate_line
from tests.cli.conftest import Cli, Stranger
from tests.services.clusters import a_secret, put, sign


def test_where_nothing_is_nothing_is_made(cli: Cli) -> None:
    result = cli.run("doctor")
    assert result.exit_code == 1
    assert "is not there" in result.stdout
    assert "grantserver serve" in result.stdout
    assert list(cli.directory.iterdir()) == []


@pytest.mark.usefixtures("served")
def test_a_running_server_is_found_through_its_public_address(cli: Cli) -> None:
    findings = cli.json("doctor")
    assert {finding["verdict"] for finding in findings} == {"ok", "warning"}
    (warning,) = [finding for finding in findings if finding["verdict"] == "warning"]
    assert "works on this machine only" in warning["found"]
    assert "GRANTSERVER_REACH_URL" in warning["remedy"]
    assert findings[-1]["verdict"] == "ok"
    assert "answers, with a certificate of our CA" in findings[-1]["found"]
    shown = cli.done("doctor")
    assert shown.startswith("RESULT")
    assert shown.endswith("problems: 0, warnings: 1\n")
    assert "-> set GRANTSERVER_REACH_URL" in shown
    again = YAML(typ="safe").load(cli.done("doctor", "-o", "yaml"))
    assert again[1:] == findings[1:]  # the first one is the time


def test_a_server_that_does_not_answer_is_a_warning(west: Cli) -> None:
    west.environment["GRANTSERVER_REACH_URL"] = "https://127.0.0.1:9"
    found = west.json("doctor")[-1]
    assert found["verdict"] == "warning"
    assert "refuses the connection" in found["found"]
    assert "grantserver serve" in found["remedy"]


def test_a_stranger_at_the_public_address_is_a_warning(west: Cli, stranger: Stranger) -> None:
    west.environment["GRANTSERVER_REACH_URL"] = stranger.url
    assert "does not vouch" in west.json("doctor")[-1]["found"]


def test_an_answer_that_no_grant_server_gives_is_a_warning(west: Cli, stranger: Stranger) -> None:
    west.environment["GRANTSERVER_REACH_URL"] = stranger.url
    path = west.directory / "data" / "grantserver.db"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "UPDATE authorities SET certificate_pem = ? WHERE purpose = 'server'",
            (stranger.ca_pem,),
        )
    stranger.say = lambda _: (405, b"Only POST is supported\n")
    result = west.run("doctor", "-o", "json")
    last = json.loads(result.stdout)[-1]
    assert last["verdict"] == "warning"
    assert "answers 405 Method Not Allowed" in last["found"]
    assert stranger.asked[0].method == "GET"
    assert len(stranger.asked[0].path) == 37


def test_a_problem_ends_with_1_and_hides_no_other(west: Cli) -> None:
    keys = west.directory / "data" / "sealing.keys"
    (west.directory / "data").chmod(0o755)
    keys.write_text(generate_line(ambient.random_bytes))  # another installation's key
    result = west.run("doctor", "-o", "json")
    assert result.exit_code == 1
    problems = [one for one in json.loads(result.stdout) if one["verdict"] == "problem"]
    assert [one["check"] for one in problems] == [
        "permissions",
        "authority server-ca",
        "authority site-ca",
    ]
    assert problems[0]["remedy"].startswith("chmod 700")


def test_namespaces_that_wait_for_something_are_no_problem(west: Cli) -> None:
    with west.cluster() as cluster:
        put(cluster, "empty", None, ())
        sign(cluster, "prod", a_secret())
        cluster.forget_unused_keys()
    result = west.run("doctor", "-o", "json")
    assert result.exit_code == 0
    found = {one["check"]: one for one in json.loads(result.stdout)}
    assert found["site empty"]["verdict"] == "warning"
    assert found["site empty"]["remedy"].endswith("kubectl get accessgrants -n empty")
    assert not any("kubernetes-" in check or "none" in check for check in found)


def test_an_installation_that_cannot_be_opened_is_a_problem(west: Cli) -> None:
    (west.directory / "data" / "sealing.keys").chmod(0o644)
    result = west.run("doctor", "-o", "json")
    assert result.exit_code == 1
    findings = json.loads(result.stdout)
    assert {one["check"]: one["verdict"] for one in findings} == {
        "clock": "ok",
        "permissions": "problem",
        "opening": "problem",
    }
    assert "chmod 600" in findings[-1]["found"]
    assert all(one["remedy"] for one in findings if one["verdict"] == "problem")


def test_a_lost_key_file_is_told_with_what_can_be_seen_without_it(west: Cli) -> None:
    keys = west.directory / "data" / "sealing.keys"
    keys.unlink()
    findings = json.loads(west.run("doctor", "-o", "json").stdout)
    assert [(one["check"], one["verdict"]) for one in findings] == [
        ("clock", "ok"),
        ("permissions", "ok"),
        ("permissions", "problem"),
        ("opening", "problem"),
    ]
    assert findings[2]["found"] == f"{keys} is not there"
    assert not keys.exists()


def test_a_database_that_is_none_is_a_problem_with_a_remedy(west: Cli) -> None:
    (west.directory / "data" / "grantserver.db").write_bytes(b"no database" * 1000)
    last = json.loads(west.run("doctor", "-o", "json").stdout)[-1]
    assert (last["check"], last["verdict"]) == ("opening", "problem")
    assert last["remedy"]
