from typing import Any

import pytest
from sqlalchemy import delete, insert

from app.domain.grants import Redemption
from app.domain.theft import Suspicion
from app.store import authorities, grants, schema, sites, suspicions
from app.store.engine import Connection, Database
from tests.builders import (
    GRANT_ID,
    NOW,
    a_grant,
    a_redemption,
    a_suspicion,
    an_authority,
)

OTHER_ID = GRANT_ID.replace("2", "3")


def redeem(connection: Connection, *redemptions: Redemption) -> None:
    names = [
        column.name for column in schema.redemptions.c if column.name not in {"id", "superseded_at"}
    ]
    values = [{name: getattr(one, name) for name in names} for one in redemptions]
    connection.execute(insert(schema.redemptions), values)


FIRST = a_redemption(ordinal=1, subject="a", redeemed_at=NOW)
LAST = a_redemption(ordinal=2, subject="b", redeemed_at=NOW + 1)


@pytest.fixture
def base(database: Database) -> Database:
    with database.writing() as connection:
        issuer = authorities.add(connection, an_authority())
        sites.put(connection, name="west", issuer_id=issuer, wanted=(), now=NOW)
        grants.add(connection, a_grant())
        grants.add(connection, a_grant(id=OTHER_ID, name="other"))
        redeem(connection, FIRST, LAST)
    return database


def add(database: Database, **changes: Any) -> Redemption | None:
    with database.writing() as connection:
        return suspicions.add(connection, a_suspicion(**changes))


def kept(database: Database) -> list[Suspicion]:
    with database.reading() as connection:
        return list(suspicions.of_grant(connection, GRANT_ID))


def test_a_stranger_with_the_code_is_written_down_once_and_who_came_last_is_given(
    base: Database,
) -> None:
    assert kept(base) == []
    assert add(base) == LAST
    assert add(base, at=NOW + 60, name="another") is None
    assert kept(base) == [a_suspicion()]


def test_another_subject_or_another_peer_is_another_suspicion(base: Database) -> None:
    made = [{}, {"peer": "::1"}, {"subject": "eve"}, {"subject": "eve", "peer": "::1"}]
    for changes in made * 2:
        add(base, **changes)
    assert kept(base) == [a_suspicion(**changes) for changes in made]


@pytest.mark.parametrize("subject", ["a", "b"])
def test_a_subject_that_has_redeemed_the_grant_is_none(base: Database, subject: str) -> None:
    assert add(base, subject=subject, name="new", peer="203.0.113.1") is None
    assert kept(base) == []


def test_of_each_grant_there_are_twenty_at_most(base: Database) -> None:
    with base.writing() as connection:
        redeem(connection, a_redemption(grant_id=OTHER_ID))
    for number in range(25):
        add(base, subject=f"eve-{number}")
    assert len(kept(base)) == suspicions.MOST == 20
    assert add(base, grant_id=OTHER_ID) is not None


def test_a_grant_that_is_gone_or_of_which_history_is_missing_gives_none(base: Database) -> None:
    assert add(base, grant_id="4" * 36) is None
    assert add(base, grant_id=OTHER_ID) is None  # nobody has redeemed it
    with base.writing() as connection:
        connection.execute(delete(schema.redemptions).where(schema.redemptions.c.ordinal == 1))
    assert add(base) is None


def test_the_grants_of_which_there_is_one_are_found(base: Database) -> None:
    with base.reading() as connection:
        assert suspicions.suspected_grants(connection) == frozenset()
    add(base)
    add(base, subject="eve")
    with base.reading() as connection:
        assert suspicions.suspected_grants(connection) == {GRANT_ID}
    with base.writing() as connection:
        grants.remove(connection, GRANT_ID)
    with base.reading() as connection:
        assert suspicions.suspected_grants(connection) == frozenset()
