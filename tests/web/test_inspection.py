"""What the holder of a code is told, over a real listener."""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import ambient
from app.domain.certificates import KeyType
from app.domain.policies import Policy
from app.domain.prospects import Obstacle
from app.domain.times import parse_rfc3339
from app.services import grants
from app.services.grants import Issued
from tests.running import Answer, Server, running

PAGE = (Path(__file__).parent.parent.parent / "docs" / "endpoints.md").read_text()
FULL = Policy(
    subjects=("east-*",),
    networks=("127.0.1.0/24",),
    lifetime_seconds=3600,
    key_type=KeyType.P256,
    per_subject=1,
    name_prefix="east-",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(
        tmp_path_factory.mktemp("server"), GRANTSERVER_LIMITS_PEER_FAILURES="0"
    ) as started:
        yield started


def fresh() -> str:
    return f"grant-{uuid.uuid4().hex[:12]}"


def ask(server: Server, issued: Issued, code: str | None = None, peer: str = "127.0.0.1") -> Answer:
    headers = {"Authorization": f"Bearer {code or issued.code}"}
    return server.request("GET", f"/{issued.grant.id}", headers=headers, peer=peer)


def told(server: Server, issued: Issued, peer: str = "127.0.0.1") -> Any:
    answer = ask(server, issued, peer=peer)
    assert answer.status == 200
    return json.loads(answer.body)


def revoke(server: Server, issued: Issued) -> None:
    grants.revoke(server.home.database, issued.grant.id, actor="test", now=ambient.utc_now())


def use_up(server: Server, issued: Issued) -> None:
    assert server.redeem(issued).status == 200


def leave(_: Server, __: Issued) -> None:
    pass


def test_until_when_and_how_often_is_told_in_words_and_seconds(server: Server) -> None:
    begin = ambient.utc_now() - 5
    issued = server.issue(fresh(), redemptions=3, not_before=begin, ago=10)
    server.redeem(issued, name="first", subject="east")
    found = told(server, issued)
    assert found["beginSeconds"] == begin
    assert found["expirationSeconds"] == issued.grant.expires_at
    assert abs(found["timeSeconds"] - ambient.utc_now()) <= 5
    for moment in ("begin", "expiration"):
        assert parse_rfc3339(found[f"{moment}Time"]) == found[f"{moment}Seconds"]
    assert parse_rfc3339(found["time"]) == found["timeSeconds"]
    counts = [found[f"redemptions{name}"] for name in ("Allowed", "Made", "Left")]
    assert counts == [3, 1, 2]
    (one,) = found["redemptions"]
    assert (one["ordinal"], one["name"], one["subject"]) == (1, "first", "east")
    assert parse_rfc3339(one["time"]) == one["timeSeconds"]
    assert (found["redeemable"], found["reasons"]) == (True, [])
    assert (found["policy"], found["addressFits"]) == (None, None)


def test_a_grant_without_a_beginning_of_its_own_begins_when_it_was_made(server: Server) -> None:
    issued = server.issue(fresh(), ago=10)
    assert told(server, issued)["beginSeconds"] == issued.grant.created_at


def test_the_newest_twenty_redemptions_are_told_with_the_number_of_all(server: Server) -> None:
    issued = server.issue(fresh(), redemptions=30)
    for number in range(22):
        assert server.redeem(issued, subject=f"east-{number}").status == 200
    found = told(server, issued)
    assert found["redemptionsMade"] == 22
    assert [one["ordinal"] for one in found["redemptions"]] == list(range(3, 23))


@pytest.mark.parametrize(
    ("wish", "end", "reason", "words"),
    [
        ({"ago": 601}, leave, "expired", "it has expired at 20"),
        ({}, revoke, "revoked", "it was revoked at 20"),
        ({}, use_up, "used_up", "its one redemption is used"),
        ({"not_before": 2_000_000_000, "window_seconds": 10**9}, leave, "not_begun", "it begins"),
        ({"policy": FULL}, leave, "network", "this address is in none of the networks"),
    ],
)
def test_why_nothing_is_left_is_told(
    server: Server,
    wish: dict[str, Any],
    end: Callable[[Server, Issued], None],
    reason: str,
    words: str,
) -> None:
    issued = server.issue(fresh(), **wish)
    end(server, issued)
    found = told(server, issued)
    assert found["redeemable"] is False
    assert [one["reason"] for one in found["reasons"]] == [reason]
    assert found["reasons"][0]["text"].startswith(words)
    assert server.redeem(issued, subject="east-9").status == 404


def test_what_a_claim_has_to_fulfil_is_told_but_no_network(server: Server) -> None:
    issued = server.issue(fresh(), policy=FULL)
    asked = {
        "subjects": ["east-*"],
        "lifetime": 3600,
        "keyType": "p256",
        "perSubject": 1,
        "namePrefix": "east-",
    }
    outside, inside = told(server, issued), told(server, issued, peer="127.0.1.7")
    assert outside["policy"] == inside["policy"] == asked
    assert (outside["addressFits"], outside["redeemable"]) == (False, False)
    assert (inside["addressFits"], inside["redeemable"]) == (True, True)
    assert "127.0" not in json.dumps([outside, inside])


def test_whoever_has_not_the_code_is_told_the_same_whatever_the_grant_is_like(
    server: Server,
) -> None:
    answers = []
    for wish, end in (({}, leave), ({"ago": 601}, leave), ({}, revoke), ({"policy": FULL}, leave)):
        issued = server.issue(fresh(), **wish)
        end(server, issued)
        answers.append(ask(server, issued, "wrong"))
    assert {(one.status, one.body) for one in answers} == {
        (403, b"Redemption of access token refused\n")
    }
    headers = [{**one.headers, "x-request-id": "", "date": ""} for one in answers]
    assert all(one == headers[0] for one in headers)


def test_codes_that_are_guessed_here_count_as_those_that_are_redeemed(tmp_path: Path) -> None:
    with running(tmp_path, GRANTSERVER_LIMITS_PEER_FAILURES="3") as server:
        issued = server.issue(fresh())
        statuses = [ask(server, issued, "wrong").status for _ in range(4)]
        assert statuses == [403, 403, 403, 429]
        assert ask(server, issued).status == 429
        assert server.redeem(issued).status == 429
        assert told(server, issued, peer="127.0.0.3")["redeemable"] is True


def test_every_field_and_reason_is_documented(server: Server) -> None:
    issued = server.issue(fresh(), policy=FULL)
    fields, reasons = section().split("| reason | meaning |")
    documented = re.findall(r"^\| `(\w+)` \|", fields, re.MULTILINE)
    assert documented == list(told(server, issued))
    rows = [line for line in reasons.splitlines() if line.startswith("| `")]
    named = re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows))
    assert set(named) == {one.value for one in Obstacle}


def section() -> str:
    """What the page of endpoints says of this one."""
    return PAGE.split("### `GET /<grant>` with", 1)[1].split("\n### ", 1)[0]
