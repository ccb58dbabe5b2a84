import json

import pytest
from ruamel.yaml import YAML

from tests.cli.conftest import Cli
from tests.strangers import Stranger

TOLD = {
    "grant": "lab",
    "site": "west",
    "state": "active",
    "redemptionsMade": 0,
    "redemptionsAllowed": 1,
    "expirationTime": "2026-01-01T00:00:00Z",
    "linkCost": 1,
    "redemptions": [],
}


@pytest.mark.usefixtures("served")
def test_what_is_left_is_told_without_using_it(cli: Cli) -> None:
    cli.done("token", "issue", "t.yaml", "--name", "lab", "--redemptions", "2", "--cost", "3")
    assert "0 of 2, 2 left" in cli.done("token", "inspect", "t.yaml")
    cli.done("token", "redeem", "t.yaml", "--subject", "east")
    shown = cli.done("token", "inspect", "t.yaml")
    assert "1 of 2, 1 left" in shown
    assert "east" in shown
    document = cli.json("token", "inspect", "t.yaml")
    assert document["redemptionsMade"] == 1
    assert document["state"] == "active"
    written = cli.done("token", "inspect", "t.yaml", "-o", "yaml")
    assert YAML(typ="safe").load(written) == document
    assert cli.json("grant", "show", "lab")["redemptionsMade"] == 1


@pytest.mark.usefixtures("served")
def test_why_nothing_is_left_and_what_is_asked_for_is_told(cli: Cli) -> None:
    asked = ("--name-prefix", "east-", "--from", "10.0.0.0/8", "--subject", "a", "--subject", "b*")
    further = ("--per-subject", "2", "--lifetime", "720h", "--key-type", "p256")
    cli.done("token", "issue", "t.yaml", "--redemptions", "3", *asked, *further)
    lines = cli.done("token", "inspect", "t.yaml").splitlines()
    for line in (
        "Redeemable    no: this address is in none of the networks it is for",
        "Subjects      a, b*",
        "Name prefix   east-",
        "Per subject   2",
        "Key type      p256",
        "Lifetime      720h",
        "Address       is in none of the grant's networks",
    ):
        assert line in lines
    assert any(line.startswith("Begin         20") for line in lines)
    assert "10.0.0.0" not in "\n".join(lines)
    document = cli.json("token", "inspect", "t.yaml")
    assert document["reasons"][0]["reason"] == "network"


@pytest.mark.usefixtures("served")
def test_a_token_that_is_good_is_said_to_be(cli: Cli) -> None:
    cli.done("token", "issue", "t.yaml", "--from", "127.0.0.0/8")
    lines = cli.done("token", "inspect", "t.yaml").splitlines()
    assert "Redeemable    yes" in lines
    assert "Address       fits" in lines


def test_of_many_redemptions_the_number_of_all_is_told(cli: Cli, stranger: Stranger) -> None:
    newest = [{"ordinal": 30, "name": "n", "subject": "s", "time": "t"}]
    told = TOLD | {"redemptionsMade": 30, "redemptionsAllowed": 40, "redemptions": newest}
    stranger.say = lambda _: (200, json.dumps(told).encode())
    shown = cli.done("token", "inspect", "-", typed=stranger.token())
    assert "The newest 1 of 30 redemptions:\n" in shown
    assert shown.splitlines()[-1].split() == ["30", "t", "n", "s"]


@pytest.mark.parametrize(
    "odd",
    [
        {"redeemable": False},
        {"redeemable": False, "reasons": 7},
        {"redeemable": False, "reasons": [7]},
        {"reasons": []},
        {"policy": 7},
        {"policy": [7]},
        {"policy": {"subjects": 7}},
    ],
)
def test_odd_reasons_and_policies_are_a_failure(
    cli: Cli, stranger: Stranger, odd: dict[str, object]
) -> None:
    stranger.say = lambda _: (200, json.dumps(TOLD | odd).encode())
    result = cli.run("token", "inspect", "-", typed=stranger.token())
    assert result.exit_code == 1
    assert result.stderr == "error: the server's answer does not tell what is left of the token\n"


@pytest.mark.usefixtures("served")
def test_suspected_theft_is_told_to_the_holder_of_the_code(cli: Cli) -> None:
    cli.done("token", "issue", "t.yaml", "--name", "lab")
    cli.done("token", "redeem", "t.yaml", "--subject", "east")
    assert "theft" not in cli.done("token", "inspect", "t.yaml")
    assert cli.json("token", "inspect", "t.yaml")["suspectedTokenTheft"] is None
    assert cli.run("token", "redeem", "t.yaml", "--subject", "mallory").exit_code == 1
    shown = cli.done("token", "inspect", "t.yaml")
    assert "Suspected token theft: the code came again, from somebody else.\n" in shown
    lines = [line.split() for line in shown.splitlines()]
    came = [(one[0], one[-1]) for one in lines if one and one[0] in {"first", "later"}]
    assert came == [("first", "east"), ("later", "mallory")]
    theft = cli.json("token", "inspect", "t.yaml")["suspectedTokenTheft"]
    assert [one["subject"] for one in theft["later"]] == ["mallory"]


@pytest.mark.parametrize(
    ("theft", "shown"),
    [
        ({"first": None, "later": [{"subject": "eve"}]}, True),
        (None, False),
        (7, None),
        ([], False),
        ({"later": [{}]}, None),
        ({"first": None}, None),
        ({"first": 7, "later": []}, None),
        ({"first": {}, "later": [7]}, None),
        ({"first": {}, "later": 7}, None),
    ],
)
def test_an_odd_tale_of_theft_is_a_failure(
    cli: Cli, stranger: Stranger, theft: object, shown: bool | None
) -> None:
    told = TOLD | {"state": "used_up", "suspectedTokenTheft": theft}
    stranger.say = lambda _: (200, json.dumps(told).encode())
    result = cli.run("token", "inspect", "-", typed=stranger.token())
    assert result.exit_code == (1 if shown is None else 0)
    assert ("eve" in result.stdout) == bool(shown)


@pytest.mark.parametrize("state", ["expired", "revoked", "used_up"])
def test_of_a_grant_that_is_over_nothing_is_left(cli: Cli, stranger: Stranger, state: str) -> None:
    told = TOLD | {"state": state}
    stranger.say = lambda _: (200, json.dumps(told).encode())
    shown = cli.done("token", "inspect", "-", typed=stranger.token())
    assert f"Redemptions   0 of 1, {state.replace('_', ' ')}\n" in shown
    assert "left" not in shown


@pytest.mark.usefixtures("served")
def test_a_wrong_code_learns_nothing(cli: Cli) -> None:
    cli.done("token", "issue", "t.yaml")
    path = cli.directory / "t.yaml"
    code = cli.directory.joinpath("t.yaml").read_text().split('code: "')[1][:24]
    path.write_text(path.read_text().replace(code, "x" * 24))
    result = cli.run("token", "inspect", "t.yaml")
    assert result.exit_code == 1
    assert "the code does not belong to the grant" in result.stderr
    assert "x" * 24 not in result.stderr


def test_a_server_that_cannot_tell_is_named_as_such(cli: Cli, stranger: Stranger) -> None:
    stranger.say = lambda _: (405, b"Only POST is supported\n")
    result = cli.run("token", "inspect", "-", typed=stranger.token())
    assert result.exit_code == 1
    assert "cannot tell what is left" in result.stderr
    assert stranger.asked[0].method == "GET"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"redemptionsMade": "1"}',
        b"[" * 90_000,
        json.dumps(
            {
                "redemptionsMade": 1,
                "redemptionsAllowed": 2,
                "redemptions": [7],
                "grant": "x",
                "site": "x",
                "state": "x",
                "expirationTime": "x",
                "linkCost": 1,
            }
        ).encode(),
    ],
    ids=["nothing", "list", "null", "empty", "text", "deep", "no-redemption"],
)
def test_an_odd_answer_is_a_failure(cli: Cli, stranger: Stranger, body: bytes) -> None:
    stranger.say = lambda _: (200, body)
    result = cli.run("token", "inspect", "-", typed=stranger.token())
    assert result.exit_code == 1
    assert result.stderr == "error: the server's answer does not tell what is left of the token\n"
