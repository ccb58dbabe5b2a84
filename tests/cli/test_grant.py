import stat
import sys
from dataclasses import replace

import click
import pytest

from app.cli.grant import _code_from_input
from app.cli.local import where_it_is
from app.domain.renewals import Follower
from app.domain.times import rfc3339
from app.home import open_home
from app.services import grants
from app.services.serving import Source
from app.settings import load
from app.store import renewals
from tests.builders import CODE, GRANT_ID, NOW
from tests.cli.conftest import Cli
from tests.pki import Folder, a_root
from tests.running import Server
from tests.services.clusters import admit, put


def test_a_grant_is_made_and_its_code_shown_once(west: Cli) -> None:
    result = west.run("grant", "create", "lab", "--redemptions", "2", "--window", "25m")
    assert result.exit_code == 0
    code = next(line.split()[1] for line in result.stdout.splitlines() if line.startswith("Code"))
    assert len(code) == 24
    assert "links to site west 2 times, until 20" in result.stdout
    assert "(25m), cost 1" in result.stdout
    assert "  grantserver grant show lab --site west\n" in result.stdout
    for words in (["grant", "show", "lab"], ["grant", "list"], ["audit", "list"]):
        for form in ("table", "json", "yaml"):
            assert code not in west.done(*words, "-o", form)


def test_a_code_is_read_from_standard_input_and_not_shown(west: Cli) -> None:
    result = west.run("grant", "create", "lab", "--code", "-", typed=f"{CODE}\r\n")
    assert result.exit_code == 0
    assert CODE not in result.output
    assert "--code -" not in result.stderr


def test_a_code_is_typed_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, bool]] = []

    def prompt(_: str, **options: bool) -> str:
        asked.append(options)
        return CODE

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(click, "prompt", prompt)
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert _code_from_input() == CODE
    assert asked == [{"hide_input": True, "err": True}]


@pytest.mark.parametrize("typed", ["", "\n", "short\n"])
def test_a_code_that_is_too_short_is_refused(west: Cli, typed: str) -> None:
    result = west.run("grant", "create", "lab", "--code", "-", typed=typed)
    assert result.exit_code == 2
    assert west.json("grant", "list") == []


def test_a_code_on_the_command_line_is_warned_of(west: Cli) -> None:
    result = west.run("grant", "create", "lab", "--code", CODE)
    assert result.exit_code == 0
    assert "use --code -" in result.stderr
    assert CODE not in result.output


def test_with_a_token_file_the_code_is_in_there_alone(west: Cli) -> None:
    result = west.run("grant", "create", "lab", "--token", "lab.yaml", "--code", "-", typed=CODE)
    assert result.exit_code == 0
    assert CODE not in result.output
    path = west.directory / "lab.yaml"
    assert CODE in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "  grantserver token redeem lab.yaml\n" in result.stdout


def without_address(cli: Cli) -> None:
    """As in a cluster that has not told the server yet how it is reached."""
    del cli.environment["GRANTSERVER_REACH_URL"]
    cli.environment["GRANTSERVER_KUBERNETES_NAMESPACES"] = "*"


@pytest.mark.parametrize("words", [("grant", "create", "lab"), ("token", "issue", "lab.yaml")])
def test_while_nobody_knows_an_address_no_grant_is_made(west: Cli, words: tuple[str, ...]) -> None:
    """Its code would be shown once, with nothing to post it to."""
    without_address(west)
    result = west.run(*words)
    assert result.exit_code == 3
    assert "waiting for an address" in result.stderr
    assert west.json("grant", "list") == []
    assert not (west.directory / "lab.yaml").exists()


def test_a_grant_is_shown_also_while_nobody_knows_an_address(west: Cli) -> None:
    west.done("grant", "create", "lab")
    assert west.json("grant", "show", "lab")["url"].startswith("https://grants.example.com:9090/")
    without_address(west)
    assert west.json("grant", "show", "lab")["url"] is None
    assert "nobody knows an address" in west.done("grant", "show", "lab")


def test_whoever_gets_the_code_alone_is_told_where_the_ca_is(west: Cli) -> None:
    assert "  grantserver ca export server-ca\n" in west.done("grant", "create", "ours")
    root = a_root()
    folder = Folder(directory=west.directory / "tls")
    folder.write(root.certify("grants.example.com"), root)
    west.environment |= folder.environment
    assert f"  the CA in {folder.files.ca}\n" in west.done("grant", "create", "theirs")
    source = replace(some_source(west), files=None, secret="ops/tls")
    assert where_it_is(source) == "ca.crt of Secret ops/tls"


def some_source(cli: Cli) -> Source:
    home = open_home(load(cli.environment))
    home.database.close()
    return home.source


def test_a_short_window_is_warned_of(west: Cli) -> None:
    assert "short" in west.run("grant", "create", "a", "--window", "59s").stderr
    assert "short" not in west.run("grant", "create", "b", "--window", "60s").stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--window", "1d"],
        ["--window", "0s"],
        ["--redemptions", "0"],
        ["--cost", "0"],
        ["--issuer", "nobody"],
        ["--redemptions", "many"],
    ],
)
def test_a_wish_that_makes_no_sense_is_wrong_usage(west: Cli, words: list[str]) -> None:
    result = west.run("grant", "create", "lab", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert west.json("grant", "list") == []


def test_an_unknown_site_and_a_taken_name_are_failures(west: Cli) -> None:
    assert west.run("grant", "create", "lab", "--site", "east").exit_code == 1
    west.done("grant", "create", "lab")
    assert west.run("grant", "create", "lab").exit_code == 1


def test_a_list_shows_what_was_used(cli: Cli, served: Server) -> None:
    issued = served.issue("lab", redemptions=2, cost=7)
    assert "0 of 2" in cli.done("grant", "list")
    served.redeem(issued, name="n", subject="east")
    served.redeem(issued, name="n", subject="north")
    header, line = cli.done("grant", "list", "--site", "west").splitlines()
    assert header.split() == [
        "NAME", "SITE", "KIND", "REDEMPTIONS", "EXPIRATION", "STATE", "COST",
    ]  # fmt: skip
    assert "2 of 2" in line
    assert "used up" in line
    document = cli.json("grant", "show", "lab")
    assert document["state"] == "used_up"
    assert document["redemptionsAllowed"] == document["redemptionsMade"] == 2
    assert [one["subject"] for one in document["redemptions"]] == ["east", "north"]
    assert document["redemptions"][0]["notAfter"].endswith("Z")
    shown = cli.done("grant", "show", "lab")
    assert document["redemptions"][1]["serial"] in shown
    assert "north" in shown
    assert "127.0.0.1" in shown


def test_suspected_token_theft_is_shown_with_who_came_first(cli: Cli, served: Server) -> None:
    issued = served.issue("lab")
    served.issue("other")
    served.redeem(issued, name="mine", subject="east")
    assert "theft" not in cli.done("grant", "list") + cli.done("grant", "show", "lab")
    before = cli.json("grant", "show", "lab")
    assert (before["tokenTheftSuspected"], before["suspectedTokenTheft"]) == (False, None)
    for subject in ("mallory", "eve", "mallory", "east"):
        served.redeem(issued, name="copy", subject=subject, peer="127.0.0.66")
    lab, other = cli.done("grant", "list").splitlines()[1:]
    assert "used up, suspected token theft" in lab
    assert "theft" not in other
    assert [one["tokenTheftSuspected"] for one in cli.json("grant", "list")] == [True, False]
    shown = cli.done("grant", "show", "lab")
    assert "Suspected token theft: the code came again, from somebody else.\n" in shown
    lines = [line.split() for line in shown.splitlines()]
    parties = [(one[0], *one[2:]) for one in lines if one and one[0] in {"first", "later"}]
    assert parties == [
        ("first", "mine", "east", "127.0.0.1"),
        ("later", "copy", "mallory", "127.0.0.66"),
        ("later", "copy", "eve", "127.0.0.66"),
    ]
    theft = cli.json("grant", "show", "lab")["suspectedTokenTheft"]
    time = theft["first"].pop("time")
    assert time == before["redemptions"][0]["time"]
    assert theft["first"] == {"name": "mine", "subject": "east", "peer": "127.0.0.1"}
    assert [one["subject"] for one in theft["later"]] == ["mallory", "eve"]
    assert "theft_suspected" in cli.done("audit", "list")


def test_a_certificate_that_is_marked_as_revoked_is_shown_so(cli: Cli, served: Server) -> None:
    issued = served.issue("lab", redemptions=2)
    for subject in ("east", "north"):
        served.redeem(issued, subject=subject)
    assert "REVOKED" not in cli.done("grant", "show", "lab")
    with served.home.database.writing() as connection:
        renewals.revoke(connection, issued.grant.id, NOW)
    shown = cli.done("grant", "show", "lab")
    assert "SERIAL" in shown
    assert "REVOKED" in shown
    assert shown.count(rfc3339(NOW)) == 2
    listed = cli.json("grant", "show", "lab")["redemptions"]
    assert [one["revocationTime"] for one in listed] == [rfc3339(NOW)] * 2


def test_an_empty_list_says_what_to_do(west: Cli) -> None:
    assert "grantserver token issue token.yaml\n" in west.run("grant", "list").stderr
    filtered = west.run("grant", "list", "--site", "west")
    assert "There are no grants of site west." in filtered.stderr
    assert "token issue token.yaml --site west" in filtered.stderr


def test_the_grants_of_a_site_that_is_not_there_are_missing(west: Cli) -> None:
    for form in ("table", "json"):
        result = west.run("grant", "list", "--site", "nosuch", "-o", form)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert 'no site "nosuch": `grantserver site list` shows what there is' in result.stderr


def test_a_grant_is_revoked_and_removed(west: Cli) -> None:
    west.done("grant", "create", "lab")
    assert "is revoked; it was redeemed 0 of 1" in west.done("grant", "revoke", "lab")
    document = west.json("grant", "show", "lab")
    assert document["state"] == "revoked"
    assert document["revocationTime"].endswith("Z")
    assert "Revoked" in west.done("grant", "show", "lab")
    removed = west.done("grant", "remove", document["id"], "--site", "west")
    assert f"grantserver audit list --target grant/{document['id']}" in removed
    missing = west.run("grant", "show", "lab")
    assert missing.exit_code == 1
    assert "grantserver grant list" in missing.stderr


def test_certificates_are_revoked_with_a_grant_or_one_redemption_alone(
    cli: Cli, served: Server
) -> None:
    issued = served.issue("lab", redemptions=3)
    for subject in ("east", "north", "south"):
        served.redeem(issued, subject=subject)
    told = cli.done("grant", "revoke", "lab", "--redemption", "2")
    assert "Redemption 2 of grant lab of site west is revoked: 1 certificate revoked" in told
    assert "Routers do not ask" in told
    document = cli.json("grant", "show", "lab")
    assert document["state"] == "used_up"
    listed = document["redemptions"]
    assert [one["revocationTime"] is not None for one in listed] == [False, True, False]
    assert [[each["good"] for each in one["certificates"]] for one in listed] == [
        *([True], [False], [True]),
    ]
    told = cli.done("grant", "revoke", "lab")
    assert "it was redeemed 3 of 3: 2 certificates revoked with it." in told
    told = cli.done("grant", "revoke", "lab", "--redemption", "1")
    assert "there was no certificate left to revoke" in told
    missing = cli.run("grant", "revoke", "lab", "--redemption", "4")
    assert missing.exit_code == 1
    assert 'no redemption of grant "lab" "4"' in missing.stderr
    assert cli.run("grant", "revoke", "lab", "--redemption", "0").exit_code == 2


def test_certificates_that_followed_are_shown_with_what_became_of_each(
    cli: Cli, served: Server
) -> None:
    issued = served.issue("lab")
    served.redeem(issued)
    assert "Certificates, as they followed" not in cli.done("grant", "show", "lab")
    given = grants.certificates(served.home.database, issued.grant.id)
    follower = Follower(
        redemption_id=given[0].redemption_id, replaces=given[0].serial, key_hash=bytes(32),
        certificate_pem="PEM", serial="0b", fingerprint="f", issuer_id=1,
        issued_at=given[0].issued_at, not_after=given[0].not_after,
    )  # fmt: skip
    with served.home.database.writing() as connection:
        renewals.add(connection, follower, until=given[0].issued_at - 1)
    shown = cli.done("grant", "show", "lab")
    (table,) = shown.split("Certificates, as they followed:\n")[1:]
    first, second = table.splitlines()[1:3]
    assert "superseded 20" in first
    assert "good" in second
    (redemption,) = cli.json("grant", "show", "lab")["redemptions"]
    assert [one["replaces"] for one in redemption["certificates"]] == [None, given[0].serial]
    assert [one["good"] for one in redemption["certificates"]] == [False, True]


def test_both_kinds_of_grants_are_listed_and_told_apart(west: Cli) -> None:
    long = "n" * 99
    west.done("grant", "create", "lab")
    with west.cluster() as cluster:
        put(cluster, "prod")
        admit(cluster, namespace="prod", name=long)
    rows = [line.split()[:5] for line in west.done("grant", "list").splitlines()]
    assert rows[0][:3] == ["NAME", "SITE", "KIND"]
    local, resource = sorted(rows[1:], key=lambda row: row[2], reverse=True)
    assert local[:3] == ["lab", "west", "local"]
    assert resource[1:] == ["prod", "kubernetes", "0", "of"]
    documents = {one["kind"]: one for one in west.json("grant", "list")}
    assert documents["local"]["accessGrant"] is None
    assert documents["kubernetes"]["accessGrant"] == {"namespace": "prod", "name": long}
    assert [one["kind"] for one in west.json("grant", "list", "--site", "prod")] == ["kubernetes"]

    for name in (long, resource[0], GRANT_ID):
        shown = west.done("grant", "show", name)
        assert f"AccessGrant   prod/{long}\n" in shown
        assert "Kind          kubernetes\n" in shown
        assert west.json("grant", "show", name)["accessGrant"]["name"] == long
    assert west.json("grant", "show", "lab")["kind"] == "local"
    assert "AccessGrant" not in west.done("grant", "show", "lab")
    assert CODE not in shown + west.done("grant", "list", "-o", "yaml")


def test_the_grant_of_a_resource_is_revoked_but_not_removed(west: Cli) -> None:
    with west.cluster() as cluster:
        put(cluster, "prod")
        admit(cluster, namespace="prod")
    refused = west.run("grant", "remove", "to-west")
    assert refused.exit_code == 1
    assert 'stands for AccessGrant "to-west" in namespace "prod"' in refused.stderr
    assert "delete the resource" in refused.stderr
    assert "is revoked" in west.done("grant", "revoke", "to-west", "--site", "prod")
    assert west.json("grant", "show", "to-west")["state"] == "revoked"
    assert west.run("grant", "remove", "to-west").exit_code == 1
    with west.cluster() as cluster:
        cluster.revoke("prod", "to-west")
    west.done("grant", "remove", "to-west")
    assert west.json("grant", "list") == []


def test_a_policy_is_given_shown_and_kept_to(west: Cli) -> None:
    west.done(
        *("grant", "create", "lab", "--subject", "east-*", "--subject", "north"),
        *("--from", "10.1.0.0/16", "--per-subject", "1", "--name-prefix", "east-"),
        *("--lifetime", "720h", "--key-type", "ed25519", "--not-before", "2020-01-01T00:00:00Z"),
        *("--label", "team=ops", "--description", "Stores of the east"),
    )
    shown = west.json("grant", "show", "lab")
    assert shown["policy"] == {
        "subjects": ["east-*", "north"],
        "networks": ["10.1.0.0/16"],
        "lifetime": 720 * 3600,
        "keyType": "ed25519",
        "perSubject": 1,
        "namePrefix": "east-",
    }
    assert (shown["labels"], shown["description"]) == ({"team": "ops"}, "Stores of the east")
    assert shown["notBefore"] == "2020-01-01T00:00:00Z"
    lines = {
        line.partition("  ")[0]: line for line in west.done("grant", "show", "lab").split("\n")
    }
    for name, text in {
        "Subjects": "east-*, north",
        "From": "10.1.0.0/16",
        "Lifetime": "720h",
        "Labels": "team=ops",
    }.items():
        assert lines[name].endswith(text)


@pytest.mark.parametrize(
    ("option", "text", "field"),
    [
        ("--subject", "", "subjects"),
        ("--from", "10.1.0.1/16", "networks"),
        ("--per-subject", "0", "per_subject"),
        ("--name-prefix", "East", "name_prefix"),
        ("--lifetime", "1d", "lifetime"),
        ("--lifetime", "9000h", "lifetime"),
        ("--not-before", "tomorrow", "not_before"),
        ("--label", "team", "label"),
        ("--label", "te am=ops", "labels"),
        ("--description", "x" * 1001, "description"),
    ],
)
def test_a_policy_that_makes_no_sense_names_its_field(
    west: Cli, option: str, text: str, field: str
) -> None:
    result = west.run("grant", "create", "lab", option, text)
    assert result.exit_code == 2
    assert f"error: {field}: " in result.stderr
    assert west.json("grant", "list") == []


def test_no_grant_exceeds_a_ceiling_of_the_server(west: Cli) -> None:
    west.environment["GRANTSERVER_CEILINGS_WINDOW"] = "1h"
    west.environment["GRANTSERVER_CEILINGS_REDEMPTIONS"] = "2"
    for option, text, field in (("--window", "61m", "window"), ("--redemptions", "3", "redemptio")):
        result = west.run("grant", "create", "lab", option, text)
        assert result.exit_code == 2
        assert f"error: {field}" in result.stderr
    west.done("grant", "create", "lab", "--window", "1h", "--redemptions", "2")
    for option, text in (("--window", "2h"), ("--redemptions", "3")):
        assert west.run("grant", "extend", "lab", option, text).exit_code == 2


def test_a_grant_is_extended_in_time_and_in_number(west: Cli) -> None:
    west.done("grant", "create", "lab", "--window", "10m")
    told = west.done("grant", "extend", "lab", "--window", "1h", "--redemptions", "5")
    assert "it was redeemed 0 of 5" in told
    until = "2100-01-01T00:00:00Z"
    assert until in west.done("grant", "extend", "lab", "--until", until)
    shown = west.json("grant", "show", "lab")
    assert (shown["expirationTime"], shown["redemptionsAllowed"]) == (until, 5)


@pytest.mark.parametrize(
    "options", [(), ("--window", "1h", "--until", "2100-01-01T00:00:00Z"), ("--until", "soon")]
)
def test_what_shall_be_extended_is_said_once(west: Cli, options: tuple[str, ...]) -> None:
    west.done("grant", "create", "lab")
    before = west.json("grant", "show", "lab")
    assert west.run("grant", "extend", "lab", *options).exit_code == 2
    assert west.json("grant", "show", "lab") == before
