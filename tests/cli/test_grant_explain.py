import pytest
from ruamel.yaml import YAML

from tests.cli.conftest import Cli


@pytest.mark.usefixtures("served")
def test_the_story_of_a_grant_is_told(cli: Cli) -> None:
    cli.done("token", "issue", "t.yaml", "--name", "lab", "--name-prefix", "east-")
    cli.done("token", "redeem", "t.yaml", "--subject", "east", "--name", "east-1")
    cli.done("grant", "extend", "lab", "--redemptions", "2")
    shown = cli.done("grant", "explain", "lab")
    lines = shown.splitlines()
    assert lines[0].split() == ["TIME", "WHAT", "WHO", "FROM", "SERIAL"]
    assert "made: 1 redemption; until" in lines[1]
    assert "the name begins with east-" in lines[1]
    assert "redemption 1: Link east-1, certificate until" in lines[2]
    assert "site:east" in lines[2]
    assert "127.0.0.1" in lines[2]
    assert "extended: 2 redemptions (were 1)" in lines[3]
    assert lines[4] == ""
    assert "Redemptions   1 of 2, 1 left" in lines
    assert "Next claim    redemption 2 of 2, if the name begins with east-" in lines
    cli.done("grant", "revoke", "lab")
    document = cli.json("grant", "explain", "lab")
    assert [one["act"] for one in document["moments"]] == [
        *("grant.created", "grant.redeemed", "grant.extended", "grant.revoked"),
        "grant.certificates_revoked",
    ]
    redeemed = document["moments"][1]
    assert redeemed["serial"] == cli.json("grant", "show", "lab")["redemptions"][0]["serial"]
    assert (document["state"], document["redemptionsLeft"]) == ("revoked", 0)
    assert [one["reason"] for one in document["reasons"]] == ["revoked"]
    assert document["revocationTime"] in document["nextClaim"]
    assert document["conditions"] == ["the name begins with east-"]
    assert document["momentsLeftOut"] == 0
    written = YAML(typ="safe").load(cli.done("grant", "explain", "lab", "-o", "yaml"))
    assert written.keys() == document.keys()
    assert written["moments"] == document["moments"]
    assert "\nRevoked " in cli.done("grant", "explain", "lab")


def test_of_a_long_story_the_newest_is_shown(west: Cli) -> None:
    west.done("grant", "create", "lab")
    west.done("grant", "extend", "lab", "--redemptions", "2")
    west.done("grant", "extend", "lab", "--redemptions", "3")
    shown = west.done("grant", "explain", "lab", "--site", "west", "-n", "1")
    assert "2 older moments are left out" in shown
    assert "(were 2)" in shown
    assert "(were 1)" not in shown
    assert west.json("grant", "explain", "lab", "-n", "1")["momentsLeftOut"] == 2


def test_a_grant_that_is_not_there_is_said_to_be_missing(west: Cli) -> None:
    result = west.run("grant", "explain", "lab")
    assert result.exit_code == 1
    assert 'no grant "lab"' in result.stderr
