import threading
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql

from app.domain.limits import Allowance
from app.store import authorities, grants, schema, sites, wrong_codes
from app.store.engine import Database
from app.store.wrong_codes import Filled
from tests.builders import GRANT_ID, NOW, a_grant, an_authority

OTHER_ID = GRANT_ID.replace("2", "3")
GONE_ID = "4" * 36
ALLOWANCE = Allowance(burst=3, interval=1000)
START = NOW * 1000


@pytest.fixture
def base(database: Database) -> Database:
    with database.writing() as connection:
        issuer = authorities.add(connection, an_authority())
        sites.put(connection, name="west", issuer_id=issuer, wanted=(), now=NOW)
        grants.add(connection, a_grant())
        grants.add(connection, a_grant(id=OTHER_ID, name="other"))
    return database


def merge(
    database: Database,
    counts: Mapping[str, int],
    now: int = START,
    allowance: Allowance = ALLOWANCE,
) -> dict[str, Filled]:
    with database.writing() as connection:
        return {one.grant_id: one for one in wrong_codes.merge(connection, counts, allowance, now)}


def test_wrong_codes_add_up_and_leak_away(base: Database) -> None:
    first = merge(base, {GRANT_ID: 1, OTHER_ID: 2})
    assert first == {
        GRANT_ID: Filled(grant_id=GRANT_ID, count=1, before=START, empty_at=START + 1000),
        OTHER_ID: Filled(grant_id=OTHER_ID, count=2, before=START, empty_at=START + 2000),
    }
    second = merge(base, {GRANT_ID: 1}, START + 500)
    assert second == {
        GRANT_ID: Filled(grant_id=GRANT_ID, count=2, before=START + 1000, empty_at=START + 2000)
    }
    third = merge(base, {GRANT_ID: 1}, START + 60_000)
    assert (third[GRANT_ID].count, third[GRANT_ID].empty_at) == (3, START + 61_000)


def test_all_wrong_codes_of_a_grant_are_counted(base: Database) -> None:
    merge(base, {GRANT_ID: 2})
    merge(base, {GRANT_ID: 1}, START + 60_000)
    with base.reading() as connection:
        assert wrong_codes.count(connection, GRANT_ID) == 3
        assert wrong_codes.count(connection, OTHER_ID) == 0


def test_a_bucket_is_never_more_than_full_whichever_clock_filled_it(base: Database) -> None:
    assert merge(base, {GRANT_ID: 1000})[GRANT_ID].empty_at == START + 3000
    assert merge(base, {GRANT_ID: 1000}, START + 10)[GRANT_ID].empty_at == START + 3010
    assert merge(base, {GRANT_ID: 1}, START - 10**6)[GRANT_ID].empty_at == START - 10**6 + 3000


def test_a_grant_that_is_gone_does_not_spoil_the_rest(base: Database) -> None:
    assert set(merge(base, {GRANT_ID: 1, GONE_ID: 1})) == {GRANT_ID}
    assert merge(base, {GONE_ID: 1}) == {}
    with base.writing() as connection:
        grants.remove(connection, GRANT_ID)
    assert merge(base, {GRANT_ID: 1}) == {}


def test_nothing_is_nothing(base: Database) -> None:
    assert merge(base, {}) == {}


def test_very_many_grants_are_merged_at_once(base: Database) -> None:
    ids = [f"{number:036}" for number in range(1201)]
    with base.writing() as connection:
        for one in ids:
            grants.add(connection, a_grant(id=one, name=f"g{int(one)}"))
    for count in (1, 2):
        merged = merge(base, dict.fromkeys(ids, 1))
        assert {one.count for one in merged.values()} == {count}
        assert set(merged) == set(ids)


def test_nothing_is_lost_between_writers(base: Database) -> None:
    """Four replicas, each with a connection of its own."""
    ready = threading.Barrier(4)

    def replica() -> None:
        ready.wait(30)
        for _ in range(10):
            merge(base, {GRANT_ID: 2, OTHER_ID: 1})

    threads = [threading.Thread(target=replica) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with base.reading() as connection:
        rows = connection.execute(select(schema.wrong_codes)).all()
        assert {row.grant_id: row[1] for row in rows} == {GRANT_ID: 80, OTHER_ID: 40}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(Allowance, burst=st.integers(1, 9), interval=st.integers(1, 10**9)),
    st.lists(st.tuples(st.integers(1, 12), st.integers(-5, 10**9)), min_size=1, max_size=8),
)
def test_the_statement_fills_as_the_arithmetic_does(
    base: Database, allowance: Allowance, steps: list[tuple[int, int]]
) -> None:
    with base.writing() as connection:
        connection.execute(delete(schema.wrong_codes))
    now, empty_at = START, 0
    for count, pause in steps:
        now += pause
        merged = merge(base, {GRANT_ID: count}, now, allowance)[GRANT_ID]
        empty_at = allowance.fill(empty_at, now, count)
        assert merged.empty_at == empty_at
        assert allowance.wait(merged.before, now) in range(allowance.interval + 1)
    with base.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(schema.wrong_codes)) == 1


def test_the_statement_is_written_for_postgresql_too() -> None:
    class Elsewhere:
        """A connection that only knows its dialect, and what it was asked to do."""

        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]

        def __init__(self) -> None:
            self.asked: list[str] = []

        def execute(self, statement: object) -> list[object]:
            self.asked.append(str(statement.compile(dialect=self.dialect)))  # type: ignore[attr-defined]
            return []

    elsewhere = Elsewhere()
    wrong_codes.merge(elsewhere, {GRANT_ID: 1}, ALLOWANCE, START)  # type: ignore[arg-type]
    looked, merged = elsewhere.asked
    assert looked.endswith("FOR UPDATE")
    assert "ON CONFLICT (grant_id) DO UPDATE" in merged
