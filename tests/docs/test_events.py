"""`docs/events.md` tells a receiver what it gets, and how it is sure of it."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.events import EventType
from app.domain.renewals import expiry_entry
from app.domain.webhooks import MOST_ATTEMPTS, Failure, headers, wait_seconds, write_secret
from tests.deploy.handbook import DOCS
from tests.domain.test_events import ENTRIES, an_event
from tests.domain.test_renewals import a_given

PAGE = (DOCS / "events.md").read_text()
SECRET = bytes(range(32))
NOW = 1_795_420_800
BODY = b'{"id":"7-ab"}'


def cells(columns: int) -> dict[str, str]:
    """The last cell of each row of the tables with so many columns, by the first."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[-1] for row in rows if len(row) == columns}


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the page shows to receivers."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)
    shown: Callable[..., None] = found["verify"]
    return shown


def test_a_receiver_that_does_as_it_is_told_takes_what_is_ours(verify: Callable[..., None]) -> None:
    sent = headers(SECRET, event_id="7-ab", body=BODY, now=NOW)
    verify(write_secret(SECRET), sent, BODY)
    other = headers(SECRET[::-1], event_id="7-ab", body=BODY, now=NOW)["webhook-signature"]
    both = {**sent, "webhook-signature": f"{other} {sent['webhook-signature']}"}
    verify(write_secret(SECRET), both, BODY)


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-id": "8-ab"},
        {"webhook-timestamp": str(NOW + 1)},
        {"webhook-signature": "v1,AAAA"},
        {"body": "{}"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_and_nothing_that_was_changed_on_its_way(
    verify: Callable[..., None], changes: dict[str, str]
) -> None:
    sent = {**headers(SECRET, event_id="7-ab", body=BODY, now=NOW), **changes}
    body = sent.pop("body", BODY.decode()).encode()
    with pytest.raises(ValueError, match="not of this message"):
        verify(write_secret(SECRET), sent, body)


def test_and_nothing_that_comes_again_later(verify: Callable[..., None]) -> None:
    sent = headers(SECRET, event_id="7-ab", body=BODY, now=NOW - 301)
    with pytest.raises(ValueError, match="too old"):
        verify(write_secret(SECRET), sent, BODY)


def test_every_event_is_explained_with_its_facts() -> None:
    events = [an_event(entry) for entry in (*ENTRIES, expiry_entry(a_given(), now=NOW))]
    assert {one.type for one in events} == set(EventType)
    for event in events:
        told = set(re.findall(r"`(\w+)`", cells(2)[event.type]))
        assert told == set(event.facts), event.type


def test_the_example_has_the_form_of_an_event() -> None:
    (line,) = re.findall(r"^\{.*\}$", PAGE, re.MULTILINE)
    shown, made = json.loads(line), an_event(ENTRIES[0]).document()
    assert list(shown) == list(made)
    assert list(shown["grant"]) == list(made["grant"])  # type: ignore[call-overload]


@pytest.mark.parametrize("failure", Failure)
def test_every_failure_is_explained(failure: Failure) -> None:
    assert f"`{failure}`" in PAGE


def test_how_long_it_is_tried_is_about_ten_hours() -> None:
    longest = sum(wait_seconds(attempt, b"\0\0") for attempt in range(1, MOST_ATTEMPTS))
    assert 8 * 3600 < longest * 0.75 < 10 * 3600 < longest < 12 * 3600
    assert f"after {MOST_ATTEMPTS} attempts" in PAGE
