import contextlib
import dataclasses

import pytest
from sqlalchemy import MetaData, insert, select, text

from app.store import access_grants, authorities, health, schema, sites
from app.store.access_grants import AccessGrantRow
from app.store.engine import Database
from tests.builders import GRANT_ID, NOW, WINDOW, a_grant, a_redemption, an_authority
from tests.postgresql import Cluster
from tests.store.spending import OTHER_ID, furnish
from tests.store.test_schema import ROWS, upgrade_to


def test_a_beat_writes_the_time_into_the_one_row(database: Database) -> None:
    for now in (NOW, NOW + 1):
        with database.writing() as connection:
            health.beat(connection, now)
    with database.reading() as connection:
        assert connection.execute(select(schema.heartbeat.c.at)).scalars().all() == [NOW + 1]


def test_a_sound_database_has_no_problems(database: Database) -> None:
    assert health.integrity_problems(database, NOW) == []


def test_a_reference_to_nothing_is_found(sqlite_database: Database) -> None:
    database = sqlite_database
    with database.writing() as connection:
        issuer = authorities.add(connection, an_authority())
        sites.put(connection, name="west", issuer_id=issuer, wanted=(), now=NOW)
    with contextlib.closing(database.sqlite.take_connection()) as raw:
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute("DELETE FROM authorities")
    (problem,) = health.integrity_problems(database, NOW)
    assert problem == "a row of sites refers to a missing row of authorities"


def test_a_value_that_breaks_a_constraint_is_found(sqlite_database: Database) -> None:
    database = sqlite_database
    with contextlib.closing(database.sqlite.take_connection()) as raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        raw.execute("INSERT INTO heartbeat (id, at) VALUES (2, 0)")
    assert health.integrity_problems(database, NOW) == ["CHECK constraint failed in heartbeat"]


def test_an_index_or_constraint_that_means_nothing_is_found(cluster: Cluster) -> None:
    url = cluster.create()
    database = Database(url)
    with database.writing() as connection:
        connection.execute(text("ALTER TABLE audit ADD CONSTRAINT late CHECK (at > 0) NOT VALID"))
        connection.execute(
            text(
                "UPDATE pg_index SET indisvalid = false"
                " WHERE indexrelid = 'ix_grants_expires_at'::regclass"
            )
        )
    assert health.integrity_problems(database, NOW) == [
        "the index ix_grants_expires_at is not valid",
        "the constraint late was never checked",
    ]
    database.close()
    cluster.drop(url)


@pytest.mark.parametrize(
    ("spent", "ordinals", "now", "found"),
    [
        (2, (1, 2), NOW, None),
        (2, (1,), NOW, "has 2 redemptions spent, and 1 written down"),
        (1, (1, 2), NOW, "has 1 redemptions spent, and 2 written down"),
        (1, (2,), NOW, "has 1 redemptions spent, and 1 written down"),
        (2, (), NOW, "has 2 redemptions spent, and 0 written down"),
        (0, (1,), NOW + WINDOW, "has 0 redemptions spent, and 1 written down"),
        (2, (2,), NOW + WINDOW, None),  # old ones are forgotten some at a time
        (2, (), NOW + WINDOW, None),
    ],
)
def test_books_that_do_not_agree_are_found(
    database: Database, spent: int, ordinals: tuple[int, ...], now: int, found: str | None
) -> None:
    furnish(database, a_grant(spent=spent))
    with database.writing() as connection:
        for ordinal in ordinals:
            row = dataclasses.asdict(a_redemption(ordinal=ordinal))
            connection.execute(insert(schema.redemptions).values(row))
    expected = [] if found is None else [f"grant {GRANT_ID} {found}"]
    assert health.integrity_problems(database, now) == expected


def test_the_books_of_a_database_that_waits_for_its_upgrade_are_looked_at(empty_url: str) -> None:
    upgrade_to(empty_url, "0002")
    database, old = Database(empty_url), MetaData()
    with database.writing() as connection:
        old.reflect(connection)
        for table in ("authorities", "sites", "grants"):
            known = old.tables[table].columns.keys()
            row = {name: value for name, value in ROWS[table].items() if name in known}
            connection.execute(insert(old.tables[table]).values(row))
        assert health.integrity_problems(database, NOW) == []
        connection.execute(old.tables["grants"].update().values(spent=1))
    (problem,) = health.integrity_problems(database, NOW)
    assert problem == f"grant {GRANT_ID} has 1 redemptions spent, and 0 written down"
    database.close()


@pytest.mark.parametrize(
    ("spent", "ordinals", "found"),
    [
        (3, (), None),
        (5, (4, 5), None),
        (5, (4,), "has 2 redemptions spent, and 1 written down"),
        (5, (3, 4, 5), "has 2 redemptions spent, and 3 written down"),
        (4, (5,), "has 1 redemptions spent, and 1 written down"),
    ],
)
def test_what_was_spent_before_a_grant_came_to_us_is_not_looked_for(
    database: Database, spent: int, ordinals: tuple[int, ...], found: str | None
) -> None:
    furnish(database, a_grant(id=OTHER_ID, name="other"))
    row = AccessGrantRow(
        grant_id=GRANT_ID,
        namespace="west",
        name="to-west",
        sealed_code=b"c",
        window_seconds=WINDOW,
        spent_before=3,
    )
    with database.writing() as connection:
        access_grants.add(connection, a_grant(spent=spent, allowed=9), row)
        for ordinal in ordinals:
            written = dataclasses.asdict(a_redemption(ordinal=ordinal))
            connection.execute(insert(schema.redemptions).values(written))
    expected = [] if found is None else [f"grant {GRANT_ID} {found}"]
    assert health.integrity_problems(database, NOW) == expected
