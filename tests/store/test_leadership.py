import threading

import pytest
from sqlalchemy import delete, select

from app.errors import Broken, Unavailable
from app.store import leadership, schema
from app.store.engine import Database
from tests.builders import NOW


def term(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.execute(select(schema.leadership.c.term)).scalar_one())


def test_whoever_begins_gets_a_number_above_all_before_and_not_below_the_time(
    database: Database,
) -> None:
    assert term(database) == 0
    for now, given in ((NOW, NOW), (NOW, NOW + 1), (NOW - 50, NOW + 2), (NOW + 9, NOW + 9)):
        with database.writing() as connection:
            assert leadership.begin(connection, now) == given
        assert term(database) == given


def test_who_was_overtaken_is_told_and_who_leads_is_not(database: Database) -> None:
    with database.writing() as connection:
        first, second = (leadership.begin(connection, NOW) for _ in range(2))
        assert leadership.is_overtaken(connection, first)
        assert not leadership.is_overtaken(connection, second)
        leadership.check(connection, second)
        with pytest.raises(Unavailable, match="leads by now"):
            leadership.check(connection, first)


def test_nobody_else_begins_while_a_leader_is_writing(database: Database, url: str) -> None:
    other, done = Database(url), threading.Event()
    former = database.led(NOW)

    def begin() -> None:
        other.led(NOW)
        done.set()

    thread = threading.Thread(target=begin)
    with former.writing():
        thread.start()
        assert not done.wait(0.2)
    thread.join(20)
    assert done.is_set()
    with pytest.raises(Unavailable), former.writing():
        pytest.fail("it has begun to write")
    assert former.is_overtaken()
    with database.writing():  # whoever never led is asked nothing
        assert not database.is_overtaken()
    other.close()


def test_a_row_that_somebody_took_away_is_told(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(delete(schema.leadership))
    with pytest.raises(Broken, match="not there"), database.writing() as connection:
        leadership.begin(connection, NOW)
