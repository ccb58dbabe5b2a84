import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
import uvloop
from psycopg.conninfo import make_conninfo
from sqlalchemy import text

from app import ambient
from app.domain.grants import Redemption
from app.errors import Broken, Reason, Refused, Unavailable
from app.store import group_commit, postgres_ledger
from app.store.engine import Database
from app.store.ledger import Kept, Ledger, Spending
from app.store.postgres_ledger import PostgresLedger
from app.store.postgres_line import Line
from app.store.postgresql import Postgresql
from tests.builders import GRANT_ID, NOW, WINDOW, a_grant, a_redemption
from tests.postgresql import Cluster
from tests.store.spending import (
    CLAIM_KEY,
    OTHER_ID,
    Outcome,
    all_of,
    assert_exactly_seven,
    assert_untouched,
    entries,
    furnish,
    open_ledger,
    opened,
    outcomes,
    rows,
    sixty_spends,
    spend,
    spent,
    wish,
)
from tests.store.wire import Fault, Wire

QUICKLY = 0.9  # seconds


@pytest.fixture
def database(postgres_database: Database) -> Database:
    return postgres_database


@contextlib.contextmanager
def locked(database: Database, grant_id: str = GRANT_ID) -> Iterator[Any]:
    """Hold the row of a grant, as somebody's forgotten session would."""
    with database._engine.connect() as connection, connection.begin() as transaction:
        query = text("SELECT 1 FROM grants WHERE id = :id FOR UPDATE")
        connection.execute(query, {"id": grant_id})
        yield connection
        transaction.rollback()


@contextlib.asynccontextmanager
async def quickly() -> AsyncIterator[None]:
    async with asyncio.timeout(QUICKLY):
        yield


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks are waited for half as long as the claim's patience lasts, which is short."""
    monkeypatch.setattr(group_commit, "_PATIENCE", 0.4)
    session = {**postgres_ledger._SESSION, "lock_timeout": "100ms"}
    monkeypatch.setattr(postgres_ledger, "_SESSION", session)


async def waiters(database: Database, count: int) -> list[int]:
    """The backends that wait for a lock, once they are so many."""
    query = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
    name = database.name.rpartition("/")[2]
    assert isinstance(database.backend, Postgresql)
    connection = await psycopg.AsyncConnection.connect(
        make_conninfo(**database.backend.parameters({})), autocommit=True
    )
    async with connection:
        async with asyncio.timeout(30):
            while True:
                found = await (await connection.execute(query, (name,))).fetchall()
                if len(found) >= count:
                    return [pid for (pid,) in found]


# The decision.


def test_without_the_guard_in_the_statement_sixty_for_seven_fails(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    furnish(database, a_grant(allowed=7))
    unguarded = postgres_ledger.spending(guard="true", claims="count(*)")
    monkeypatch.setattr(postgres_ledger, "SPEND", unguarded)
    found = sixty_spends(database)
    with pytest.raises(AssertionError):
        assert_exactly_seven(database, found)
    # The constraint of the table still stops it, as a fault of ours.
    assert spent(database) == 7
    assert sum(isinstance(outcome, Broken) for outcome in found) == 53


def test_without_guard_and_constraint_sixty_would_be_given(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = cluster.create()
    database = Database(url)
    furnish(database, a_grant(allowed=7))
    with database.writing() as connection:
        connection.execute(
            text("ALTER TABLE grants DROP CONSTRAINT ck_grants_spent_within_allowed")
        )
    unguarded = postgres_ledger.spending(guard="true", claims="count(*)")
    monkeypatch.setattr(postgres_ledger, "SPEND", unguarded)
    found = sixty_spends(database)
    assert sum(isinstance(outcome, Redemption) for outcome in found) == 60
    with pytest.raises(AssertionError):
        assert_exactly_seven(database, found)
    database.close()
    cluster.drop(url)


@pytest.mark.parametrize("part", ["guard", "claims", "lock"])
def test_two_ledgers_give_exactly_seven_with_each_half_of_the_decision_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """The guard decides; the count of what is left only saves asking in vain, and so do locks."""
    furnish(database, a_grant(allowed=7))
    statement = {
        "guard": postgres_ledger.SPEND,
        "claims": postgres_ledger.spending(claims="count(*)"),
        "lock": postgres_ledger.SPEND.replace("FOR NO KEY UPDATE", ""),
    }[part]
    monkeypatch.setattr(postgres_ledger, "SPEND", statement)
    found = sixty_spends(database, 2)
    assert spent(database) == len(rows(database)) == 7
    assert sum(isinstance(outcome, Redemption) for outcome in found) == 7


def test_the_last_places_of_a_grant_are_given_to_those_who_came_first(database: Database) -> None:
    furnish(database, a_grant(allowed=5))

    async def main() -> tuple[list[Outcome], list[Outcome]]:
        async with opened(database) as made:
            first = await all_of([spend(made, a_redemption()) for _ in range(3)])
            return first, await all_of([spend(made, a_redemption()) for _ in range(4)])

    first, second = asyncio.run(main())
    given = [getattr(one, "ordinal", None) for one in (*first, *second)]
    assert given == [1, 2, 3, 4, 5, None, None]


def test_claims_on_both_sides_of_the_end_of_a_window_may_share_a_batch(database: Database) -> None:
    furnish(database)
    ends = NOW + WINDOW

    async def main() -> list[Outcome]:
        async with opened(database) as made:
            times = (ends - 1, ends, ends - 1)
            return await all_of([spend(made, a_redemption(redeemed_at=at)) for at in times])

    early, late, early_too = asyncio.run(main())
    assert [getattr(one, "ordinal", None) for one in (early, early_too)] == [1, 2]
    assert isinstance(late, Refused)
    assert late.reason is Reason.EXPIRED


def test_a_claim_that_cannot_even_be_written_down_does_not_hurt_the_others(
    database: Database,
) -> None:
    furnish(database)

    async def main() -> list[Outcome]:
        async with opened(database) as made:
            subjects = ("a", "b\x00", "c", "d" * 254, "e")
            wanted = [a_redemption(grant_id=OTHER_ID, subject=one) for one in subjects]
            return await all_of([spend(made, one) for one in wanted])

    a, b, c, d, e = asyncio.run(main())
    assert [getattr(one, "ordinal", None) for one in (a, c, e)] == [1, 2, 3]
    assert isinstance(b, Broken)
    assert isinstance(d, Broken)
    assert "d" * 254 not in str(d)


def test_the_audit_row_is_written_as_everywhere_else(
    database: Database, sqlite_database: Database
) -> None:
    wanted = a_redemption(subject='quote " and \\ and \u00e9')
    found = []
    for one in (database, sqlite_database):
        furnish(one)

        async def main(which: Database = one) -> None:
            async with opened(which) as made:
                await spend(made, wanted)

        asyncio.run(main())
        with one.reading() as connection:
            query = text("SELECT at, act, actor, target, details FROM audit")
            found.append(connection.execute(query).all())
    assert found[0] == found[1]


def test_it_runs_on_the_loop_of_the_server(database: Database) -> None:
    furnish(database)

    async def main() -> list[Outcome]:
        async with opened(database) as made:
            assert await made.find(GRANT_ID) is not None
            return await all_of([spend(made, a_redemption()) for _ in range(3)])

    assert [getattr(one, "ordinal", None) for one in uvloop.run(main())] == [1, 2, None]


# How it asks.


def test_claims_that_look_at_the_same_moment_share_a_query(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_ids = [f"{number:036}" for number in range(50)]
    furnish(database, *(a_grant(id=one, name=f"g{one}") for one in made_ids))
    asked: list[str] = []
    ask = Line.ask

    async def counted(self: Line, statement: str, parameters: Any) -> Any:
        asked.append(statement)
        return await ask(self, statement, parameters)

    monkeypatch.setattr(Line, "ask", counted)

    async def main() -> None:
        async with opened(database) as made:
            found = await asyncio.gather(*(made.find(one) for one in (*made_ids, "x", *made_ids)))
            assert [one and one.grant.id for one in found] == [*made_ids, None, *made_ids]
            assert len(asked) == 1
            names = [("west", f"g{one}") for one in made_ids]
            named = await asyncio.gather(*(made.find_by_name(*one) for one in names))
            assert [one and one.grant.id for one in named] == made_ids
            assert len(asked) == 2

    asyncio.run(main())


def test_no_statement_reads_a_whole_table_whatever_the_statistics_say(database: Database) -> None:
    furnish(database)
    assert isinstance(database.backend, Postgresql)
    parameters = database.backend.parameters(postgres_ledger._SESSION)
    spending = postgres_ledger._parameters([wish()])
    keys: dict[str, Any] = {"keys": [GRANT_ID], "sites": ["west"], "names": ["to-west"]}
    claims: dict[str, Any] = {"keys": [CLAIM_KEY], "nows": [NOW]}
    with psycopg.connect(make_conninfo(**parameters)) as connection:
        connection.execute("ANALYZE grants, sites, authorities, answers")  # which are tiny
        for statement, values in (
            (postgres_ledger.SPEND, spending),
            (postgres_ledger.SPEND_UNLOCKED, spending),
            (postgres_ledger.FIND_BY_ID, keys),
            (postgres_ledger.FIND_BY_NAME, keys),
            (postgres_ledger.WHY_NOT, keys),
            (postgres_ledger.FIND_KEPT, claims),
            (postgres_ledger.FORGET_STALE, claims),
        ):
            plan = connection.execute(f"EXPLAIN {statement}", values).fetchall()
            text_ = "\n".join(line for (line,) in plan)
            assert "Seq Scan" not in text_, text_
            assert "pk_grants" in text_ or "uq_" in text_


# Several replicas.


def test_crossing_batches_of_two_ledgers_never_deadlock(
    database: Database, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both wait in the midst of their batches: each could hold what the other wants next."""
    ids = first, middle, last = [f"{number:036}" for number in range(3)]
    furnish(database, *(a_grant(id=one, name=f"g{one}") for one in ids))
    session = {**postgres_ledger._SESSION, "lock_timeout": "30s", "statement_timeout": "30s"}
    monkeypatch.setattr(postgres_ledger, "_SESSION", session)
    monkeypatch.setattr("app.store.postgres_line._SECONDS", 30)

    async def main() -> None:
        async with opened(database) as one, opened(database) as two:
            with locked(database, middle):
                claims = asyncio.gather(
                    *(spend(one, a_redemption(grant_id=each)) for each in (first, middle, last)),
                    *(spend(two, a_redemption(grant_id=each)) for each in (last, middle, first)),
                )
                await waiters(database, 2)
            await claims

    asyncio.run(main())
    assert [spent(database, one) for one in ids] == [2, 2, 2]
    name = database.name.rpartition("/")[2]
    query = f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{name}'"
    assert cluster.execute(query) == [(0,)]


def test_many_batches_of_two_ledgers_get_on_with_each_other(database: Database) -> None:
    ids = [f"{number:036}" for number in range(40)]
    furnish(database, *(a_grant(id=one, name=f"g{one}", allowed=1000) for one in ids))

    async def main() -> None:
        async with opened(database) as one, opened(database) as two:
            for _ in range(10):
                batches = (ids, ids[::-1])
                await asyncio.gather(
                    *(
                        spend(ledger, a_redemption(grant_id=grant_id))
                        for ledger, batch in zip((one, two), batches, strict=True)
                        for grant_id in batch
                    )
                )

    asyncio.run(main())
    assert [spent(database, one) for one in ids] == [20] * 40


def test_a_claim_that_lost_a_deadlock_is_tried_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    furnish(database)
    tell = Line.tell
    fails: Iterator[Exception] = iter(
        [psycopg.errors.DeadlockDetected("x"), psycopg.errors.SerializationFailure("x")]
    )

    async def losing(self: Line, statement: str, parameters: Any) -> Any:
        for error in itertools.islice(fails, 1):
            raise error
        return await tell(self, statement, parameters)

    monkeypatch.setattr(Line, "tell", losing)

    async def main() -> Redemption:
        async with opened(database) as made:
            return await spend(made, a_redemption())

    assert asyncio.run(main()).ordinal == 1
    assert spent(database) == 1


# Locks.


@pytest.mark.usefixtures("impatient")
def test_a_lock_that_is_held_too_long_makes_it_unavailable(database: Database) -> None:
    furnish(database)

    async def main() -> None:
        async with opened(database) as made:
            with locked(database):
                found = await all_of([spend(made, a_redemption()) for _ in range(3)])
                assert all(isinstance(outcome, Unavailable) for outcome in found)
            assert_untouched(database)
            assert (await spend(made, a_redemption())).ordinal == 1

    asyncio.run(main())


def test_a_lock_is_waited_for(database: Database) -> None:
    furnish(database)

    async def main() -> None:
        async with opened(database) as made:
            with locked(database):
                spending = asyncio.ensure_future(spend(made, a_redemption()))
                await waiters(database, 1)
                assert not spending.done()
                assert await made.find(GRANT_ID) is not None
            assert (await spending).ordinal == 1

    asyncio.run(main())


def test_a_grant_that_somebody_holds_does_not_hold_up_the_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    furnish(database)
    session = {**postgres_ledger._SESSION, "lock_timeout": "100ms"}
    monkeypatch.setattr(postgres_ledger, "_SESSION", session)

    async def main() -> None:
        async with opened(database) as made:
            with locked(database):
                held = [asyncio.ensure_future(spend(made, a_redemption())) for _ in range(2)]
                other = [spend(made, a_redemption(grant_id=OTHER_ID)) for _ in range(3)]
                await asyncio.gather(*other)
                async with asyncio.timeout(1):
                    for _ in range(5):  # known to be held by now, it is not waited for again
                        await spend(made, a_redemption(grant_id=OTHER_ID))
                assert not any(one.done() for one in held)
            assert [(await one).ordinal for one in held] == [1, 2]

    asyncio.run(main())
    assert (spent(database), spent(database, OTHER_ID)) == (2, 8)


def test_patience_lasts_no_longer_behind_a_statement_that_hangs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    furnish(database)
    monkeypatch.setattr(group_commit, "_PATIENCE", 0.1)
    monkeypatch.setattr(postgres_ledger, "_WATCH_SECONDS", 0.02)

    async def main() -> None:
        async with opened(database) as made:
            with locked(database):
                first = asyncio.ensure_future(spend(made, a_redemption()))
                await waiters(database, 1)
                (second,) = await all_of([spend(made, a_redemption(grant_id=OTHER_ID))])
                assert isinstance(second, Unavailable)
                assert not first.done()
            assert (await first).ordinal == 1

    asyncio.run(main())
    assert_untouched(database, OTHER_ID)


# The database goes away.


def test_a_database_that_stopped_is_told_quickly_and_found_again(
    database: Database, cluster: Cluster
) -> None:
    furnish(database)

    async def main() -> None:
        async with opened(database) as made:
            await spend(made, a_redemption())
            cluster.stop()
            try:
                for _ in range(3):
                    async with quickly():
                        (found,) = await all_of([spend(made, a_redemption())])
                        assert isinstance(found, Unavailable)
                        with pytest.raises(Unavailable):
                            await made.find(GRANT_ID)
                        with pytest.raises(Unavailable):
                            await made.find_kept(CLAIM_KEY, NOW)
            finally:
                cluster.start()
            assert await made.find(GRANT_ID) is not None
            assert (await spend(made, a_redemption())).ordinal == 2

    asyncio.run(main())
    assert spent(database) == len(rows(database)) == len(entries(database)) == 2


def test_a_restart_that_nobody_saw_costs_no_claim_anything(
    database: Database, cluster: Cluster
) -> None:
    furnish(database)

    async def main() -> None:
        async with opened(database) as made:
            assert await made.find(GRANT_ID) is not None
            await spend(made, a_redemption())
            cluster.stop("fast")
            cluster.start()
            assert await made.find(GRANT_ID) is not None
            assert (await spend(made, a_redemption())).ordinal == 2

    asyncio.run(main())


def test_a_backend_that_is_killed_at_work_spends_nothing(
    database: Database, cluster: Cluster
) -> None:
    furnish(database)

    async def main() -> None:
        async with opened(database) as made:
            with locked(database):
                spending = asyncio.ensure_future(all_of([spend(made, a_redemption())]))
                for pid in await waiters(database, 1):
                    cluster.execute(f"SELECT pg_terminate_backend({pid})")
                async with quickly():
                    (found,) = await spending
                assert isinstance(found, Unavailable)
            assert_untouched(database)
            assert (await spend(made, a_redemption())).ordinal == 1

    asyncio.run(main())


def test_a_database_that_was_never_there_is_unavailable_quickly() -> None:
    database = Database("postgresql://nobody:Hunter2Hunter2@127.0.0.1:1/nothing")

    async def main() -> None:
        made = open_ledger(database)
        async with quickly():
            with pytest.raises(Unavailable) as caught:
                await made.find(GRANT_ID)
            assert "Hunter2" not in str(caught.value)
            with pytest.raises(Unavailable):
                await spend(made, a_redemption())
        await made.close()

    asyncio.run(main())
    database.close()


async def through(wire: Wire, database: Database) -> tuple[Database, Ledger]:
    """A ledger whose connections pass over the wire, opened by use."""
    behind = Database(wire.url(database.name.rpartition("/")[2]))
    made = open_ledger(behind)
    assert isinstance(made, PostgresLedger)
    for number in range(7):  # prepared statements by now
        await spend(made, a_redemption(grant_id=OTHER_ID))
        assert await made.find_kept(b"%016d" % number, NOW) is None
    return behind, made


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.CUT_BEFORE_READY])
def test_a_commit_of_which_nobody_knows_is_unavailable_and_found_by_the_retry(
    database: Database, cluster: Cluster, fault: Fault
) -> None:
    furnish(database)

    async def main() -> None:
        async with Wire(cluster).opened() as wire:
            behind, made = await through(wire, database)
            wire.fault = fault
            (first,) = await outcomes(made, wish(sealed=b"first"))
            wire.fault = Fault.NONE
            assert isinstance(first, Unavailable)
            assert spent(database) == 1  # it was committed, and whoever asked was not told
            (second,) = await outcomes(made, wish(sealed=b"second"))
            assert second == Kept(sealed=b"first", ordinal=1)
            await made.close()
            behind.close()

    asyncio.run(main())
    assert spent(database) == len(rows(database)) == len(entries(database)) == 1


def test_a_database_that_does_not_answer_is_unavailable_before_the_client_gives_up(
    database: Database, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    furnish(database)
    monkeypatch.setattr("app.store.postgres_line._SECONDS", 0.2)
    monkeypatch.setattr("app.store.postgres_line.CONNECT_SECONDS", 0.2)

    async def main() -> None:
        async with Wire(cluster).opened() as wire:
            behind, made = await through(wire, database)
            wire.fault = Fault.SILENCE
            async with asyncio.timeout(5):
                (found,) = await outcomes(made, Spending(redemption=a_redemption(grant_id="x")))
                assert isinstance(found, Unavailable)
                with pytest.raises(Unavailable):
                    await made.find(GRANT_ID)
                with pytest.raises(Unavailable):
                    await made.find(GRANT_ID)
            wire.fault = Fault.NONE
            monkeypatch.undo()  # a machine that is busy may take its time now
            assert await made.find(GRANT_ID) is not None
            assert (await spend(made, a_redemption())).ordinal == 1
            await made.close()
            behind.close()

    asyncio.run(main())


def test_many_claims_while_it_comes_and_goes_never_get_more_than_there_is(
    database: Database, cluster: Cluster
) -> None:
    furnish(database, a_grant(allowed=400), a_grant(id=OTHER_ID, name="other", allowed=1000))
    given: dict[bytes, set[bytes]] = {}

    async def claim(ledgers: list[Ledger], number: int) -> None:
        """Retry like a client whose answer was lost, at whatever replica comes next."""
        key = b"%016d" % number
        for turn in itertools.count(number):
            wanted = wish(key=key, sealed=ambient.random_bytes(8))
            try:
                kept = await ledgers[turn % 2].spend(wanted)
            except Unavailable:
                await asyncio.sleep(0.02)
                continue
            except Refused:
                return
            assert wanted.keeping is not None
            sealed = kept.sealed if isinstance(kept, Kept) else wanted.keeping.sealed
            given.setdefault(key, set()).add(sealed)
            return

    async def main() -> None:
        async with opened(database) as one, opened(database) as two:
            claims = [asyncio.ensure_future(claim([one, two], number)) for number in range(500)]
            for _ in range(2):
                await asyncio.sleep(0)
                await asyncio.to_thread(cluster.stop)
                await asyncio.to_thread(cluster.start)
            await asyncio.gather(*claims)

    asyncio.run(main())
    assert spent(database) == len(rows(database)) == len(entries(database)) == 400
    assert len(given) == 400
    assert all(len(answers) == 1 for answers in given.values())
