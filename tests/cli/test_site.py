import contextlib
import sqlite3

import pytest

from tests.cli.conftest import ENDPOINTS, Cli
from tests.services.clusters import a_secret, put, sign


def test_a_site_is_set_and_the_next_command_is_given(cli: Cli) -> None:
    result = cli.run("site", "set", "west", *ENDPOINTS, "--endpoint", "edge=[::1]:45671")
    assert result.exit_code == 0
    assert "signed by site-ca" in result.stdout
    assert "  grantserver token issue west-token.yaml --site west\n" in result.stdout
    assert result.stderr == ""


def test_sites_are_listed_as_they_would_be_typed(west: Cli) -> None:
    west.done("site", "set", "b", "--endpoint", "ha/edge=[::1]:5", *ENDPOINTS)
    lines = west.done("site", "list").splitlines()
    assert lines[0].split() == ["NAME", "KIND", "ISSUER", "ENDPOINTS"]
    assert "ha/edge=[::1]:5, inter-router=west.example.com:55671" in lines[1]


def test_a_site_is_shown_as_a_document(cli: Cli) -> None:
    cli.done("site", "set", "b", "--group", "ha", "--endpoint", "edge=[::1]:5", *ENDPOINTS)
    document = cli.json("site", "show", "b")
    assert document["endpoints"] == [
        {"role": "edge", "host": "::1", "port": 5, "group": "ha"},
        {"role": "inter-router", "host": "west.example.com", "port": 55671, "group": "ha"},
    ]
    assert document["creationTime"].endswith("Z")
    assert document["kind"] == "local"
    assert cli.json("site", "list") == [document]
    assert "Endpoint   ha/edge=[::1]:5\n" in cli.done("site", "show", "b")


def test_a_role_that_nobody_can_link_to_is_pointed_out(cli: Cli) -> None:
    result = cli.run("site", "set", "b", "--endpoint", "edge=h:5")
    assert "warning: group skupper-router of site b has no inter-router endpoint" in result.stderr
    result = cli.run("site", "set", "b", *ENDPOINTS)
    assert "note: group skupper-router of site b has no edge endpoint" in result.stderr


def test_a_site_without_endpoints_is_refused_with_what_to_write(cli: Cli) -> None:
    result = cli.run("site", "set", "west")
    assert result.exit_code == 2
    assert "--endpoint inter-router=HOST:PORT" in result.stderr
    assert cli.json("site", "list") == []


def test_without_endpoints_a_site_keeps_those_that_it_has(west: Cli) -> None:
    before = west.json("site", "show", "west")
    west.done("ca", "init", "lab-ca")
    west.done("site", "set", "west", "--issuer", "lab-ca")
    assert west.json("site", "show", "west") == {**before, "issuer": "lab-ca"}


def test_an_issuer_alone_makes_no_site(cli: Cli) -> None:
    result = cli.run("site", "set", "west", "--issuer", "site-ca")
    assert result.exit_code == 2
    assert "--endpoint inter-router=HOST:PORT" in result.stderr
    assert cli.json("site", "list") == []


def test_a_site_that_has_lost_its_endpoints_needs_new_ones(west: Cli) -> None:
    path = west.directory / "data" / "grantserver.db"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM endpoints")
    assert west.run("site", "set", "west", "--issuer", "site-ca").exit_code == 2


@pytest.mark.parametrize(
    "text", ["west.example.com", "router=h:5", "edge=h", "edge=h:0", "../x/edge=h:5", "/edge=h:5"]
)
def test_an_endpoint_that_is_none_is_refused(cli: Cli, text: str) -> None:
    result = cli.run("site", "set", "west", "--endpoint", text)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_an_unknown_authority_is_refused_with_the_known_ones(cli: Cli) -> None:
    result = cli.run("site", "set", "west", *ENDPOINTS, "--issuer", "nobody")
    assert result.exit_code == 2
    assert "site-ca" in result.stderr


def test_an_empty_list_says_how_to_make_a_site(cli: Cli) -> None:
    result = cli.run("site", "list")
    assert result.exit_code == 0
    assert result.stdout == ""
    endpoints = "--endpoint inter-router=HOST:55671 --endpoint edge=HOST:45671"
    assert f"grantserver site set NAME {endpoints}\n" in result.stderr


def test_a_site_is_removed_when_no_grant_leads_to_it(west: Cli) -> None:
    west.done("grant", "create", "lab")
    refused = west.run("site", "remove", "west")
    assert refused.exit_code == 1
    assert "1 grant leads to site" in refused.stderr
    west.done("grant", "remove", "lab")
    assert "Site west is removed" in west.done("site", "remove", "west")
    assert west.run("site", "remove", "west").exit_code == 1


def test_what_is_done_is_recorded_with_who_did_it(west: Cli) -> None:
    entry = west.json("audit", "list", "--target", "site/west")[0]
    assert entry["act"] == "site.set"
    assert entry["actor"].startswith("cli:")


def test_a_site_that_stands_for_a_namespace_is_shown_as_such_and_left_alone(west: Cli) -> None:
    with west.cluster() as cluster:
        put(cluster, "prod", sign(cluster, "prod", a_secret()))
        put(cluster, "empty", None, ())
    rows = [line.split() for line in west.done("site", "list").splitlines()[1:]]
    assert [row[:2] for row in rows] == [
        ["empty", "kubernetes"],
        ["prod", "kubernetes"],
        ["west", "local"],
    ]
    assert rows[0][2] == "(none)"
    assert rows[1][2].startswith("kubernetes-")
    assert rows[1][3] == "inter-router=west.example:55671,"
    assert west.json("site", "show", "prod")["kind"] == "kubernetes"
    assert "Kind       kubernetes\n" in west.done("site", "show", "prod")
    for words in (["set", "prod", *ENDPOINTS], ["set", "prod"], ["remove", "prod"]):
        refused = west.run("site", *words)
        assert refused.exit_code == 1
        assert "stands for the namespace of this name: change its Site" in refused.stderr
    assert [one["kind"] for one in west.json("site", "list")] == ["kubernetes"] * 2 + ["local"]
