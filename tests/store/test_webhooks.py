from dataclasses import replace

import pytest

from app.domain.events import EventType
from app.errors import Conflict
from app.store import webhooks
from app.store.engine import Database
from tests.domain.test_webhooks import HOOK

OTHER = replace(HOOK, id=HOOK.id.replace("2", "3"), name="other", sites=None, ca_pem="PEM")


@pytest.fixture
def two(database: Database) -> Database:
    with database.writing() as connection:
        webhooks.add(connection, HOOK)
        webhooks.add(connection, OTHER)
    return database


def test_what_is_written_is_read_as_it_was(two: Database) -> None:
    with two.reading() as connection:
        assert webhooks.every(connection) == [OTHER, HOOK]
        assert webhooks.by_name(connection, "portal") == HOOK
        assert webhooks.by_name(connection, "nobody") is None
        assert webhooks.count(connection) == 2


def test_a_name_is_given_once(two: Database) -> None:
    with pytest.raises(Conflict), two.writing() as connection:
        webhooks.add(connection, replace(OTHER, id=OTHER.id.replace("3", "4")))


def test_events_can_be_changed_and_nothing_else_is_touched(two: Database) -> None:
    changed = replace(HOOK, events=frozenset(EventType), enabled=False)
    with two.writing() as connection:
        webhooks.change(connection, replace(changed, url="https://elsewhere.example"))
        assert webhooks.every(connection) == [OTHER, changed]


def test_one_is_disabled_once(two: Database) -> None:
    with two.writing() as connection:
        assert webhooks.disable(connection, HOOK.id)
        assert not webhooks.disable(connection, HOOK.id)
        assert [one.enabled for one in webhooks.every(connection)] == [True, False]


def test_who_has_moved_already_is_moved_no_more(two: Database) -> None:
    with two.writing() as connection:
        assert webhooks.move(connection, [HOOK.id], before=0, after=5)
        assert not webhooks.move(connection, [HOOK.id], before=0, after=7)
        assert [one.position for one in webhooks.every(connection)] == [0, 5]


def test_one_that_is_removed_is_gone(two: Database) -> None:
    with two.writing() as connection:
        webhooks.remove(connection, HOOK.id)
        assert webhooks.every(connection) == [OTHER]
