from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from app import ambient
from app.domain.events import EventType
from app.domain.webhooks import MOST_ATTEMPTS, Failure
from app.metrics import Delivering
from app.posting import Posted
from app.services import audit, dispatch
from app.services.dispatch import CLAIM_SECONDS, Attempt, Noted, Slots
from app.store import deliveries, webhooks
from app.store.engine import Database
from tests.builders import NOW, Stand
from tests.domain.test_webhooks import HOOK
from tests.services.test_events import a_redeemed, a_theft, write
from tests.store.test_webhooks import OTHER

BAD = Posted(status=500, failure=Failure.STATUS)


@pytest.fixture
def database(request: pytest.FixtureRequest, kind: str) -> Database:
    made = request.getfixturevalue(f"{kind}_database")
    assert isinstance(made, Database)
    return made


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def grant_id(stand: Stand) -> str:
    """The id of a grant of site west, of which two webhooks are told."""
    stand.set_site()
    made = stand.make_grant().grant.id
    write(stand.database)
    with stand.database.writing() as connection:
        webhooks.add(connection, HOOK)
        webhooks.add(connection, replace(OTHER, events=frozenset(EventType)))
    return made


def hand_out(database: Database) -> bool:
    with database.writing() as connection:
        return dispatch.hand_out(connection, webhooks.every(connection), now=NOW)


def begin(database: Database, now: int = NOW, **slots: Any) -> list[Attempt]:
    with database.writing() as connection:
        found = webhooks.every(connection)
        return list(dispatch.begin(connection, found, Slots(**slots), now=now))


def note(database: Database, attempt: Attempt, posted: Posted, now: int = NOW) -> Noted:
    with database.writing() as connection:
        return dispatch.note(
            connection, attempt, posted, now=now, random_bytes=ambient.random_bytes
        )


def waiting(database: Database) -> dict[str, int]:
    with database.reading() as connection:
        return dict(deliveries.count_pending(connection))


def test_each_webhook_is_given_what_it_wants_once(stand: Stand, grant_id: str) -> None:
    database = stand.database
    write(database, a_redeemed(grant_id), a_theft(grant_id), a_redeemed("gone"))
    while hand_out(database):
        pass
    assert waiting(database) == {HOOK.id: 1, OTHER.id: 3}
    assert not hand_out(database)
    assert waiting(database) == {HOOK.id: 1, OTHER.id: 3}
    with database.reading() as connection:
        positions = {one.position for one in webhooks.every(connection)}
    assert len(positions) == 1


def test_much_is_handed_out_step_by_step(
    stand: Stand, grant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_STEP", 4)
    write(stand.database, *(a_redeemed(grant_id) for _ in range(5)))
    steps = 1
    while hand_out(stand.database):
        steps += 1
    assert steps > 2
    assert waiting(stand.database) == {HOOK.id: 5, OTHER.id: 5}


def test_an_attempt_is_begun_by_one_courier_until_its_time_is_over(
    stand: Stand, grant_id: str
) -> None:
    database = stand.database
    write(database, a_redeemed(grant_id))
    hand_out(database)
    first = begin(database)
    assert sorted(one.webhook.name for one in first) == ["other", "portal"]
    assert begin(database) == []
    assert begin(database, NOW + CLAIM_SECONDS - 1) == []
    again = begin(database, NOW + CLAIM_SECONDS)
    assert [one.delivery.event_id for one in again] == [one.delivery.event_id for one in first]
    assert {one.delivery.attempts for one in again} == {2}


def test_what_has_arrived_is_gone_and_what_failed_comes_again_later(
    stand: Stand, grant_id: str
) -> None:
    database = stand.database
    write(database, a_redeemed(grant_id))
    hand_out(database)
    arrived, failed = begin(database)
    assert note(database, arrived, Posted(status=200)).outcome is Delivering.DELIVERED
    assert note(database, failed, BAD).outcome is Delivering.FAILED
    assert begin(database, NOW + 6) == []
    (again,) = begin(database, NOW + 10)
    assert again.webhook == failed.webhook
    assert again.delivery.body == failed.delivery.body


def test_the_last_attempt_gives_it_up(stand: Stand, grant_id: str) -> None:
    database, now = stand.database, NOW
    write(database, a_redeemed(grant_id))
    hand_out(database)
    outcomes: list[Delivering] = []
    for _ in range(MOST_ATTEMPTS):
        tried = [one for one in begin(database, now) if one.webhook.id == HOOK.id]
        outcomes.extend(note(database, one, BAD, now).outcome for one in tried)
        now += 3600
    assert outcomes == [Delivering.FAILED] * (MOST_ATTEMPTS - 1) + [Delivering.DEAD]
    with database.reading() as connection:
        (dead,) = deliveries.dead(connection, HOOK.id, 9)
    assert (dead.attempts, dead.status, dead.failure) == (MOST_ATTEMPTS, 500, Failure.STATUS)


def test_who_is_gone_is_disabled_once_and_the_event_is_kept(stand: Stand, grant_id: str) -> None:
    database = stand.database
    write(database, a_redeemed(grant_id), a_theft(grant_id))
    hand_out(database)
    gone = Posted(status=410, failure=Failure.STATUS)
    first, second = (one for one in begin(database) if one.webhook.id == OTHER.id)
    assert note(database, first, gone).disabled
    assert not note(database, second, gone).disabled
    (entry,) = audit.latest(database, limit=9, act="webhook.disabled")
    assert (entry.actor, entry.target) == ("server", "webhook/other")
    assert waiting(database)[OTHER.id] == 2


def test_one_webhook_has_half_of_the_slots_at_most() -> None:
    slots = Slots()
    assert slots.room("a") == 4
    slots.flying["a"] += 4
    assert (slots.room("a"), slots.room("b")) == (0, 4)
    slots.flying["b"] += 3
    assert slots.room("c") == 1


def test_however_many_fail_the_others_have_slots() -> None:
    failing = frozenset("abcdefgh")
    slots = Slots(flying=Counter("abc"), failing=failing)
    assert (slots.room("a"), slots.room("d")) == (0, 1)
    slots.flying["d"] += 1
    assert slots.room("e") == 0
    assert slots.room("well") == 4
