import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from ruamel.yaml import YAML

from app import ambient
from app.crypto.sealing import generate_line
from tests.cli.conftest import Cli
from tests.pki import Folder, a_root
from tests.running import Server
from tests.services.clusters import a_secret, put, sign
from tests.strangers import Stranger


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
    assert "shows our certificate, and the CA of tokens vouches for it" in findings[-1]["found"]
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


def last(result: Result) -> Any:
    """The finding about the public address, which comes last."""
    found = json.loads(result.stdout)[-1]
    assert found["check"] == "public address"
    return found


def test_a_stranger_at_the_public_address_is_a_problem_and_is_sent_nothing(
    west: Cli, stranger: Stranger
) -> None:
    west.environment["GRANTSERVER_REACH_URL"] = stranger.url
    result = west.run("doctor", "-o", "json")
    assert result.exit_code == 1
    found = last(result)
    assert found["verdict"] == "problem"
    assert "none of ours: that of CN=127.0.0.1, issued by CN=stranger; " in found["found"]
    assert "pass TLS through" in found["remedy"]
    assert stranger.asked == []


def test_a_stranger_that_our_ca_vouches_for_is_asked_no_code(west: Cli, stranger: Stranger) -> None:
    west.environment["GRANTSERVER_REACH_URL"] = stranger.url
    path = west.directory / "data" / "grantserver.db"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "UPDATE authorities SET certificate_pem = ? WHERE purpose = 'server'",
            (stranger.ca_pem,),
        )
    stranger.say = lambda _: (405, b"Only POST is supported\n")
    result = west.run("doctor", "-o", "json")
    assert result.exit_code == 1
    assert "clients take it, because the CA of tokens vouches" in last(result)["found"]
    (asked,) = stranger.asked
    assert (asked.method, asked.path, asked.body) == ("GET", "/", b"")
    assert set(asked.headers) == {"Host", "Accept", "Connection"}


def test_a_host_that_the_certificate_does_not_carry_is_a_problem_twice(
    cli: Cli, served: Server
) -> None:
    cli.environment["GRANTSERVER_REACH_URL"] = f"https://localhost:{served.addresses.redemption[1]}"
    result = cli.run("doctor", "-o", "json")
    assert result.exit_code == 1
    findings = {one["check"]: one for one in json.loads(result.stdout) if one["verdict"] != "ok"}
    assert set(findings) >= {"server certificate", "public address"}
    assert "no client takes (Hostname mismatch" in last(result)["found"]
    assert "it is ours, for 127.0.0.1, good from" in last(result)["found"]


def test_without_an_address_it_is_said_what_is_waited_for(west: Cli) -> None:
    del west.environment["GRANTSERVER_REACH_URL"]
    west.environment["GRANTSERVER_KUBERNETES_NAMESPACES"] = "west"
    found = west.json("doctor")[-1]
    assert (found["check"], found["verdict"]) == ("public address", "warning")
    assert "waiting for an address" in found["found"]
    assert "GRANTSERVER_REACH_URL" in found["remedy"]


def test_the_address_that_a_cluster_gives_is_dialled(west: Cli) -> None:
    del west.environment["GRANTSERVER_REACH_URL"]
    west.environment["GRANTSERVER_KUBERNETES_NAMESPACES"] = "west"
    path = west.directory / "data" / "grantserver.db"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE addresses SET url = 'https://127.0.0.1:9', hosts = 'b.example'")
    findings = west.json("doctor")
    assert "127.0.0.1:9 refuses the connection" in findings[-1]["found"]


def test_files_that_cannot_be_used_are_a_problem_and_hide_no_other(
    west: Cli, tmp_path: Path
) -> None:
    folder = Folder(directory=tmp_path / "tls")
    root, other = a_root(), a_root()
    folder.write(root.certify("grants.example.com"), other)
    west.environment |= folder.environment
    result = west.run("doctor", "-o", "json")
    assert result.exit_code == 1
    findings = {one["check"]: one for one in json.loads(result.stdout)}
    assert findings["server certificate"]["verdict"] == "problem"
    assert "mend the files" in findings["server certificate"]["remedy"]
    assert findings["public address"]["verdict"] == "warning"
    assert findings["authority site-ca"]["verdict"] == "ok"


def test_the_certificate_of_files_is_what_has_to_be_shown(
    west: Cli, tmp_path: Path, stranger: Stranger
) -> None:
    folder = Folder(directory=tmp_path / "tls")
    root = a_root()
    folder.write(root.certify("127.0.0.1"), root)
    west.environment |= folder.environment
    west.environment["GRANTSERVER_REACH_URL"] = stranger.url
    result = west.run("doctor", "-o", "json")
    findings = [one for one in json.loads(result.stdout) if one["check"] == "server certificate"]
    assert {one["verdict"] for one in findings} == {"ok"}
    assert "none of ours" in last(result)["found"]


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
    found = json.loads(west.run("doctor", "-o", "json").stdout)[-1]
    assert (found["check"], found["verdict"]) == ("opening", "problem")
    assert found["remedy"]
