import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.attempts import attempt, attempt_entry
from app.domain.audit import Act, Entry
from app.domain.events import ACTS, Event, EventType, position_of, read
from app.domain.theft import theft_entry
from app.errors import Invalid
from app.store.ledger import audit_entry
from tests.builders import GRANT_ID, NOW, SUBJECT, a_redemption, a_suspicion

LINK = bytes(range(32))
ENVELOPE = {"id", "type", "at", "grant"}
REFUSAL = attempt_entry(
    attempt(grant_id=GRANT_ID, name="east", subject="s", peer="::1", refused="policy", detail="d"),
    at=NOW,
    times=3,
)
ENTRIES = [audit_entry(a_redemption()), theft_entry(a_redemption(), a_suspicion()), REFUSAL]


def an_event(entry: Entry) -> Event:
    return read(entry, position=7, link=LINK, grant_name="to-west", site="west")


def test_a_redemption_is_told_with_its_grant_and_its_certificate() -> None:
    redemption = a_redemption(serial="0a", fingerprint="0b")
    event = an_event(audit_entry(redemption))
    assert json.loads(event.body()) == {
        "id": "7-0001020304050607",
        "type": "redeemed",
        "at": "2026-09-21T14:13:20Z",
        "grant": {"id": GRANT_ID, "name": "to-west", "site": "west"},
        "subject": SUBJECT,
        "ordinal": 1,
        "name": "east",
        "peer": "192.0.2.7",
        "serial": "0a",
        "fingerprint": "0b",
    }


def test_a_refusal_says_why_and_how_often() -> None:
    told = an_event(REFUSAL).document()
    assert (told["type"], told["why"], told["detail"], told["times"]) == (
        *("refused", "policy", "d"),
        3,
    )


def test_a_theft_tells_who_came_first_and_who_came_later() -> None:
    told = an_event(ENTRIES[1]).document()
    assert told["firstAt"] == "2026-09-21T14:13:20Z"
    assert (told["type"], told["firstSubject"], told["laterSubject"], told["laterPeer"]) == (
        *("theft", SUBJECT, "mallory"),
        "198.51.100.66",
    )


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda one: one.act.value)
def test_no_fact_takes_the_place_of_what_every_event_has(entry: Entry) -> None:
    assert not an_event(entry).facts.keys() & ENVELOPE


def test_every_type_comes_of_one_act() -> None:
    assert sorted(ACTS.values()) == sorted(EventType)
    assert set(ACTS) <= {act.value for act in Act}


def test_a_line_break_in_a_name_stays_one_line() -> None:
    entry = Entry(
        at=NOW, act=Act.GRANT_REDEEMED, actor="site:a\nb\u2028", target="grant/x", details={}
    )
    assert "\n" not in an_event(entry).body()


@given(st.integers(min_value=0, max_value=10**18 - 1), st.binary(min_size=32, max_size=32))
def test_the_position_is_found_in_the_id(position: int, link: bytes) -> None:
    event = read(REFUSAL, position=position, link=link, grant_name=None, site=None)
    assert position_of(event.id) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "7-",
        "-7-0001020304050607",
        "07-0001020304050607",
        "7-000102030405060g",
        "\u0667-0001020304050607",
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="lastEventId"):
        position_of(text)


@given(st.text())
def test_no_text_breaks_the_reading_of_an_id(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert position_of(text) >= 0
