import contextlib

from sqlalchemy import select

from app.store import authorities, health, schema, sites
from app.store.engine import Database
from tests.builders import NOW, an_authority


def test_a_beat_writes_the_time_into_the_one_row(database: Database) -> None:
    for now in (NOW, NOW + 1):
        with database.writing() as connection:
            health.beat(connection, now)
    with database.reading() as connection:
        assert connection.execute(select(schema.heartbeat.c.at)).scalars().all() == [NOW + 1]


def test_a_sound_database_has_no_problems(database: Database) -> None:
    with database.reading() as connection:
        assert health.integrity_problems(connection) == []


def test_a_reference_to_nothing_is_found(database: Database) -> None:
    with database.writing() as connection:
        issuer = authorities.add(connection, an_authority())
        sites.put(connection, name="west", issuer_id=issuer, wanted=(), now=NOW)
    with contextlib.closing(database.take_connection()) as raw:
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute("DELETE FROM authorities")
    with database.reading() as connection:
        (problem,) = health.integrity_problems(connection)
    assert problem == "a row of sites refers to a missing row of authorities"


def test_a_value_that_breaks_a_constraint_is_found(database: Database) -> None:
    with contextlib.closing(database.take_connection()) as raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        raw.execute("INSERT INTO heartbeat (id, at) VALUES (2, 0)")
    with database.reading() as connection:
        assert health.integrity_problems(connection) == ["CHECK constraint failed in heartbeat"]
