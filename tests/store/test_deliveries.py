from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.domain.webhooks import Delivery, Failure
from app.store import deliveries, webhooks
from app.store.engine import Connection, Database
from tests.builders import NOW
from tests.domain.test_webhooks import HOOK
from tests.store.test_webhooks import OTHER

FIRST = Delivery(
    webhook_id=HOOK.id, position=1, event_id="1-ab", body="{}", attempts=0, next_at=NOW
)
SECOND = replace(FIRST, position=2, event_id="2-ab")
FOREIGN = replace(FIRST, webhook_id=OTHER.id)


@pytest.fixture
def three(database: Database) -> Database:
    with database.writing() as connection:
        webhooks.add(connection, HOOK)
        webhooks.add(connection, OTHER)
        deliveries.add(connection, [FIRST, SECOND, FOREIGN])
        deliveries.add(connection, [])
    return database


def due(connection: Connection, now: int = NOW, limit: int = 9) -> Sequence[Delivery]:
    return deliveries.due(connection, HOOK.id, now=now, limit=limit)


def give_up(connection: Connection, one: Delivery, at: int = NOW) -> bool:
    return deliveries.failed(
        connection, one, status=500, failure=Failure.STATUS, next_at=at, dead_at=at
    )


def test_what_is_due_is_given_in_order_and_by_webhook(three: Database) -> None:
    with three.reading() as connection:
        assert due(connection, NOW - 1) == []
        assert due(connection) == [FIRST, SECOND]
        assert due(connection, limit=1) == [FIRST]
        assert deliveries.is_due(connection, NOW)
        assert not deliveries.is_due(connection, NOW - 1)
        assert deliveries.count_pending(connection) == {HOOK.id: 2, OTHER.id: 1}


def test_an_attempt_is_begun_by_one_and_again_when_its_time_is_over(three: Database) -> None:
    with three.writing() as connection:
        assert deliveries.claim(connection, FIRST, until=NOW + 60)
        assert not deliveries.claim(connection, FIRST, until=NOW + 60)
        assert due(connection, NOW + 59) == [SECOND]
        assert due(connection, NOW + 60)[1] == replace(FIRST, attempts=1, next_at=NOW + 60)


def test_what_has_arrived_leaves_nothing(three: Database) -> None:
    with three.writing() as connection:
        deliveries.arrived(connection, FIRST)
        assert due(connection) == [SECOND]


def test_what_failed_waits_and_tells_why(three: Database) -> None:
    with three.writing() as connection:
        assert deliveries.failed(
            connection, FIRST, status=503, failure=Failure.STATUS, next_at=NOW + 5, dead_at=None
        )
        assert due(connection) == [SECOND]
        assert due(connection, NOW + 5)[1] == replace(
            FIRST, status=503, failure=Failure.STATUS, next_at=NOW + 5
        )


def test_the_outcome_of_an_attempt_that_was_overtaken_does_not_count(three: Database) -> None:
    with three.writing() as connection:
        deliveries.claim(connection, FIRST, until=NOW + 60)
        assert not give_up(connection, FIRST)
        assert deliveries.count_dead(connection) == {}


def test_what_was_given_up_waits_for_nobody_until_it_is_sent_anew(three: Database) -> None:
    with three.writing() as connection:
        for one in (FIRST, SECOND, FOREIGN):
            assert give_up(connection, one)
        assert not deliveries.is_due(connection, NOW + 99)
        assert deliveries.count_pending(connection) == {}
        assert deliveries.count_dead(connection) == {HOOK.id: 2, OTHER.id: 1}
        told = replace(SECOND, status=500, failure=Failure.STATUS, dead_at=NOW)
        assert deliveries.dead(connection, HOOK.id, 9)[1] == told
        assert len(deliveries.dead(connection, HOOK.id, 1)) == 1
        assert deliveries.dead_event(connection, HOOK.id, 2) == "2-ab"
        assert deliveries.dead_event(connection, HOOK.id, 3) is None
        assert deliveries.send_anew(connection, HOOK.id, position=2, now=NOW + 9) == 1
        assert deliveries.send_anew(connection, HOOK.id, position=2, now=NOW + 9) == 0
        assert deliveries.send_anew(connection, HOOK.id, position=None, now=NOW + 9) == 1
        assert [(one.attempts, one.dead_at) for one in due(connection, NOW + 9)] == [(0, None)] * 2
        assert deliveries.count_dead(connection) == {OTHER.id: 1}


def test_what_a_disabled_webhook_waits_for_is_not_due(three: Database) -> None:
    with three.writing() as connection:
        webhooks.disable(connection, HOOK.id)
        webhooks.disable(connection, OTHER.id)
        assert not deliveries.is_due(connection, NOW)


def test_what_was_given_up_long_ago_is_forgotten_some_at_a_time(three: Database) -> None:
    with three.writing() as connection:
        give_up(connection, FIRST, NOW)
        give_up(connection, SECOND, NOW + 1)
        give_up(connection, FOREIGN, NOW)
        assert deliveries.count_forgettable(connection, until=NOW) == 2
        assert deliveries.forget(connection, until=NOW, limit=1) == 1
        assert deliveries.forget(connection, until=NOW, limit=9) == 1
        assert deliveries.count_dead(connection) == {HOOK.id: 1}


def test_deliveries_go_with_their_webhook(three: Database) -> None:
    with three.writing() as connection:
        webhooks.remove(connection, HOOK.id)
        assert deliveries.count_pending(connection) == {OTHER.id: 1}
