from typing import Any

import pytest

from app.domain.audit import Act
from app.services import audit
from app.services.expiring import ExpiryNotices
from app.store import expiring, renewals
from app.store.engine import Database
from tests.builders import GRANT_ID, NOW, Clock
from tests.store.spending import furnish
from tests.store.test_renewals import a_follower, redeem

HOUR = 3600
DAY = 24 * HOUR
END = NOW + 30 * DAY


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """Run the test on each of the databases."""
    made = request.getfixturevalue(f"{request.param}_database")
    assert isinstance(made, Database)
    furnish(made)
    return made


def notices(database: Database, **changes: Any) -> ExpiryNotices:
    made: dict[str, Any] = {"ahead_seconds": 7 * DAY, "clock": Clock(END - 7 * DAY)}
    return ExpiryNotices(database=database, **(made | changes))


def give(database: Database, *serials: str, **changes: Any) -> None:
    with database.writing() as connection:
        for ordinal, serial in enumerate(serials, start=1):
            row = {"not_after": END, "ordinal": ordinal} | changes
            redeem(connection, serial=serial, **row)


def told(database: Database) -> list[object]:
    found = audit.latest(database, limit=99, act=Act.CERTIFICATE_EXPIRING.value)
    return [one.details["serial"] for one in found]


def test_of_each_certificate_it_is_told_once_by_however_many(database: Database) -> None:
    give(database, "a", "b", "c")
    one, other = notices(database), notices(database)
    assert (one.sweep(), other.sweep(), one.sweep()) == (3, 0, 0)
    assert told(database) == ["a", "b", "c"]
    (entry,) = audit.latest(database, limit=1)
    assert (entry.target, entry.actor, entry.at) == (f"grant/{GRANT_ID}", "server", END - 7 * DAY)


def test_before_its_time_it_is_told_of_none(database: Database) -> None:
    give(database, "a")
    clock = Clock(END - 7 * DAY - 1)
    sweeper = notices(database, clock=clock)
    assert sweeper.sweep() == 0
    clock.now += 1
    assert sweeper.sweep() == 1
    clock.now = END
    assert notices(database, clock=clock).sweep() == 0


def test_one_that_lives_for_a_day_is_told_of_in_its_last_quarter(database: Database) -> None:
    give(database, "a", not_after=NOW + DAY)
    clock = Clock(NOW + 17 * HOUR)
    assert notices(database, clock=clock).sweep() == 0
    clock.now = NOW + 18 * HOUR
    assert notices(database, clock=clock).sweep() == 1


def test_one_that_took_the_place_of_another_is_told_of_instead(database: Database) -> None:
    give(database, "a")
    with database.writing() as connection:
        follower = a_follower(replaces="a", serial="f", not_after=END + HOUR)
        renewals.add(connection, follower, until=NOW + HOUR)
    sweeper = notices(database, clock=Clock(END - DAY))
    assert sweeper.sweep() == 1
    assert told(database) == ["f"]


def test_turned_off_it_looks_at_nothing(database: Database) -> None:
    give(database, "a")
    assert notices(database, ahead_seconds=0).sweep() == 0
    assert told(database) == []


def test_a_sweep_is_bounded_and_the_next_one_goes_on(database: Database) -> None:
    give(database, *"abcdefg")
    sweeper = notices(database, step=2, most=4)
    assert [sweeper.sweep() for _ in range(3)] == [4, 3, 0]
    assert told(database) == list("abcdefg")
    give(database, "h", ordinal=8)
    assert sweeper.sweep() + sweeper.sweep() == 1


def test_notes_are_forgotten_when_their_certificates_have_ended(database: Database) -> None:
    give(database, "a", "b")
    clock = Clock(END - DAY)
    sweeper = notices(database, clock=clock)
    sweeper.sweep()
    clock.now = END
    sweeper.sweep()
    with database.reading() as connection:
        assert not expiring.has_ended(connection, until=END)
    assert sweeper.sweep() == 0
    assert told(database) == ["a", "b"]
