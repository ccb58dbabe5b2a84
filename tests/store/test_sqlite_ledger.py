import asyncio
import atexit
import contextlib
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from app.domain.audit import Act, Entry
from app.domain.grants import Grant, Redemption
from app.errors import Broken, GrantServerError, Reason, Refused, Unavailable
from app.store import audit, authorities, grants, group_commit, sites, sqlite_ledger
from app.store.engine import Database
from app.store.ledger import Found, Keeping, Kept, Spending
from app.store.sqlite_ledger import SqliteLedger
from tests.builders import (
    GRANT_ID,
    NOW,
    WINDOW,
    a_database,
    a_grant,
    a_redemption,
    an_authority,
    an_endpoint,
)

OTHER_ID = GRANT_ID.replace("2", "3")
UNGUARDED = "UPDATE grants SET spent = spent + 1 WHERE id = :grant_id RETURNING spent"
Outcome = Redemption | BaseException


@pytest.fixture
def base(database: Database) -> Database:
    furnish(database)
    return database


def furnish(database: Database, *made: Grant) -> None:
    """Put in one authority, one site and grants; without any, the builder's two."""
    with database.writing() as connection:
        issuer = authorities.add(connection, an_authority())
        sites.put(connection, name="west", issuer_id=issuer, wanted=[an_endpoint()], now=NOW)
        for grant in made or (a_grant(), a_grant(id=OTHER_ID, name="other", allowed=1000)):
            grants.add(connection, grant)


def open_ledger(database: Database, **changes: Any) -> SqliteLedger:
    options: dict[str, Any] = {"spacing_seconds": 0.0, "on_batch": lambda _: None}
    return SqliteLedger(database, **(options | changes))


@contextlib.asynccontextmanager
async def opened(database: Database, **changes: Any) -> AsyncIterator[SqliteLedger]:
    made = open_ledger(database, **changes)
    try:
        yield made
    finally:
        await made.close()


async def spend(made: SqliteLedger, wanted: Redemption) -> Redemption:
    outcome = await made.spend(Spending(redemption=wanted))
    assert isinstance(outcome, Redemption)
    return outcome


async def all_of(awaitables: Sequence[Awaitable[Redemption]]) -> list[Outcome]:
    return list(await asyncio.gather(*awaitables, return_exceptions=True))


def grant_of(database: Database, grant_id: str = GRANT_ID) -> Grant | None:
    with database.reading() as connection:
        return grants.by_id(connection, grant_id)


def spent(database: Database, grant_id: str = GRANT_ID) -> int:
    grant = grant_of(database, grant_id)
    assert grant is not None
    return grant.spent


def rows(database: Database, grant_id: str = GRANT_ID) -> list[Redemption]:
    with database.reading() as connection:
        return list(grants.redemptions_of(connection, grant_id))


def entries(database: Database, grant_id: str = GRANT_ID) -> list[Entry]:
    with database.reading() as connection:
        found = audit.latest(connection, 10_000, f"grant/{grant_id}")
    return [entry for entry in found if entry.act is Act.GRANT_REDEEMED]


def assert_untouched(database: Database, grant_id: str = GRANT_ID) -> None:
    assert spent(database, grant_id) == 0
    assert rows(database, grant_id) == []
    assert entries(database, grant_id) == []


@contextlib.contextmanager
def locked(database: Database) -> Iterator[sqlite3.Connection]:
    """Hold the write lock, as another process would."""
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other
        if other.in_transaction:
            other.execute("ROLLBACK")


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Finding.


def test_a_grant_is_found_by_its_id_and_by_its_site_and_name(base: Database) -> None:
    made = open_ledger(base)
    found = asyncio.run(made.find(GRANT_ID))
    with base.reading() as connection:
        site = sites.by_name(connection, "west")
        assert site is not None
        issuer = authorities.by_name(connection, site.issuer)
        assert issuer is not None
    expected = Found(
        grant=a_grant(), site_id=site.id, site_revision=site.revision, issuer_id=issuer.id
    )
    assert found == expected
    assert asyncio.run(made.find_by_name("west", "to-west")) == expected
    asyncio.run(made.close())


def test_every_field_of_a_grant_is_read(database: Database) -> None:
    grant = a_grant(allowed=9, spent=3, cost=7, revoked_at=NOW + 5, issuer="site-ca")
    furnish(database, grant)
    made = open_ledger(database)
    found = asyncio.run(made.find(GRANT_ID))
    assert found is not None
    assert found.grant == grant == grant_of(database)
    asyncio.run(made.close())


def test_the_grants_own_issuer_comes_before_the_sites(base: Database) -> None:
    with base.writing() as connection:
        other = authorities.add(connection, an_authority(name="other-ca"))
        grants.add(connection, a_grant(id="4" * 36, name="own", issuer="other-ca"))
    made = open_ledger(base)
    found = asyncio.run(made.find("4" * 36))
    assert found is not None
    assert (found.issuer_id, found.grant.issuer) == (other, "other-ca")
    asyncio.run(made.close())


def test_a_change_of_the_site_shows_at_the_next_look(base: Database) -> None:
    made = open_ledger(base)
    before = asyncio.run(made.find(GRANT_ID))
    with base.writing() as connection:
        issuer = authorities.add(connection, an_authority(name="new-ca"))
        sites.put(connection, name="west", issuer_id=issuer, wanted=(), now=NOW)
    after = asyncio.run(made.find(GRANT_ID))
    assert before is not None
    assert after is not None
    assert (before.site_revision, after.site_revision) == (1, 2)
    assert after.issuer_id == issuer
    asyncio.run(made.close())


@pytest.mark.parametrize(
    "key", ["", "x", GRANT_ID.upper(), f"{GRANT_ID} ", "' OR 1=1 --", "\x00", "\u00e9", "x" * 10**5]
)
def test_a_key_of_nobody_finds_nothing(base: Database, key: str) -> None:
    made = open_ledger(base)
    assert asyncio.run(made.find(key)) is None
    assert asyncio.run(made.find_by_name("west", key)) is None
    assert asyncio.run(made.find_by_name(key, "to-west")) is None
    asyncio.run(made.close())


def test_a_database_that_does_not_answer_is_unavailable(base: Database) -> None:
    made = open_ledger(base)
    asyncio.run(made.close())
    with pytest.raises(Unavailable):
        asyncio.run(made.find(GRANT_ID))


# Spending.


def test_one_spend_is_counted_and_written_down_twice(base: Database) -> None:
    wanted = a_redemption(ordinal=0)

    async def main() -> Redemption:
        async with opened(base) as made:
            return await spend(made, wanted)

    assert asyncio.run(main()) == replace(wanted, ordinal=1)
    assert spent(base) == 1
    assert rows(base) == [replace(wanted, ordinal=1)]
    (entry,) = entries(base)
    assert entry == Entry(
        at=NOW,
        act=Act.GRANT_REDEEMED,
        actor=f"site:{wanted.subject}",
        target=f"grant/{GRANT_ID}",
        details={
            "ordinal": 1,
            "name": "east",
            "peer": "192.0.2.7",
            "serial": wanted.serial,
            "fingerprint": wanted.fingerprint,
        },
    )
    assert_untouched(base, OTHER_ID)


def test_the_ordinal_counts_for_each_grant_by_itself(base: Database) -> None:
    async def main() -> list[int]:
        async with opened(base) as made:
            ids = (GRANT_ID, OTHER_ID, GRANT_ID, OTHER_ID, OTHER_ID)
            return [(await spend(made, a_redemption(grant_id=one))).ordinal for one in ids]

    assert asyncio.run(main()) == [1, 1, 2, 2, 3]


def test_claims_that_wait_together_share_a_commit(base: Database) -> None:
    batches: list[int] = []

    async def main() -> list[Outcome]:
        async with opened(base, on_batch=batches.append) as made:
            return await all_of([spend(made, a_redemption(grant_id=OTHER_ID)) for _ in range(300)])

    outcomes = asyncio.run(main())
    ordinals = [outcome.ordinal for outcome in outcomes if isinstance(outcome, Redemption)]
    assert ordinals == list(range(1, 301))
    assert batches == [256, 44]
    assert [row.ordinal for row in rows(base, OTHER_ID)] == ordinals


def test_claims_that_come_within_the_spacing_share_the_next_commit(base: Database) -> None:
    batches: list[int] = []

    async def main() -> None:
        async with opened(base, on_batch=batches.append, spacing_seconds=0.4) as made:
            await spend(made, a_redemption(grant_id=OTHER_ID))
            tasks = []
            for _ in range(5):
                task = asyncio.ensure_future(spend(made, a_redemption(grant_id=OTHER_ID)))
                tasks.append(task)
                await turns(3)
            await asyncio.gather(*tasks)

    asyncio.run(main())
    assert batches == [1, 5]


def test_a_batch_of_refusals_alone_commits_nothing(base: Database) -> None:
    batches: list[int] = []

    async def main() -> list[Outcome]:
        async with opened(base, on_batch=batches.append) as made:
            return await all_of([spend(made, a_redemption(grant_id="x")) for _ in range(3)])

    assert all(isinstance(outcome, Refused) for outcome in asyncio.run(main()))
    assert batches == []


def sixty_spends(database: Database, how_many_ledgers: int = 1) -> list[Outcome]:
    async def main() -> list[Outcome]:
        async with contextlib.AsyncExitStack() as stack:
            made = [
                await stack.enter_async_context(
                    opened(Database(f"sqlite:///{database.path}"), spacing_seconds=0.001)
                )
                for _ in range(how_many_ledgers)
            ]
            return await all_of(
                [spend(made[number % how_many_ledgers], a_redemption()) for number in range(60)]
            )

    return asyncio.run(main())


def assert_exactly_seven(database: Database, outcomes: Sequence[Outcome]) -> None:
    won = [outcome for outcome in outcomes if isinstance(outcome, Redemption)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert sorted(one.ordinal for one in won) == [1, 2, 3, 4, 5, 6, 7]
    assert Counter(one.reason for one in lost) == {Reason.USED_UP: 53}
    assert spent(database) == 7
    assert {row.serial for row in rows(database)} == {one.serial for one in won}
    assert len(rows(database)) == 7
    assert sorted(entry.details["ordinal"] or 0 for entry in entries(database)) == [
        1, 2, 3, 4, 5, 6, 7,
    ]  # fmt: skip


@pytest.fixture
def seven(database: Database) -> Database:
    furnish(database, a_grant(allowed=7))
    return database


@pytest.mark.parametrize("how_many_ledgers", [1, 2, 4])
def test_a_grant_of_seven_under_sixty_claims_gives_exactly_seven(
    seven: Database, how_many_ledgers: int
) -> None:
    assert_exactly_seven(seven, sixty_spends(seven, how_many_ledgers))


def test_without_the_guard_in_the_statement_the_test_above_fails(
    seven: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "spent < grants.allowed" in sqlite_ledger.SPEND
    monkeypatch.setattr(sqlite_ledger, "SPEND", UNGUARDED)
    outcomes = sixty_spends(seven)
    with pytest.raises(AssertionError):
        assert_exactly_seven(seven, outcomes)
    # The constraint of the table still stops it, as a fault of ours.
    assert spent(seven) == 7
    assert sum(isinstance(outcome, Broken) for outcome in outcomes) == 53


def test_without_guard_and_constraint_sixty_would_be_given(
    seven: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_ledger, "SPEND", UNGUARDED)
    connect = SqliteLedger._connect

    def unchecked(self: SqliteLedger, busy_milliseconds: int) -> sqlite3.Connection:
        connection = connect(self, busy_milliseconds)
        connection.execute("PRAGMA ignore_check_constraints = ON")
        return connection

    monkeypatch.setattr(SqliteLedger, "_connect", unchecked)
    outcomes = sixty_spends(seven)
    assert sum(isinstance(outcome, Redemption) for outcome in outcomes) == 60
    with pytest.raises(AssertionError):
        assert_exactly_seven(seven, outcomes)


def revoke(database: Database) -> None:
    with database.writing() as connection:
        grants.revoke(connection, GRANT_ID, NOW)


def remove(database: Database) -> None:
    with database.writing() as connection:
        grants.remove(connection, GRANT_ID)


def use_up(database: Database) -> None:
    async def main() -> None:
        async with opened(database) as made:
            await all_of([spend(made, a_redemption()) for _ in range(2)])

    asyncio.run(main())


def revoke_and_use_up(database: Database) -> None:
    use_up(database)
    revoke(database)


@pytest.mark.parametrize(
    ("meanwhile", "now", "reason"),
    [
        (revoke, NOW, Reason.REVOKED),
        (revoke_and_use_up, NOW + WINDOW, Reason.REVOKED),
        (remove, NOW, Reason.UNKNOWN_GRANT),
        (lambda _: None, NOW + WINDOW, Reason.EXPIRED),
        (use_up, NOW + WINDOW, Reason.EXPIRED),
        (use_up, NOW + WINDOW - 1, Reason.USED_UP),
    ],
)
def test_what_happened_between_judgement_and_spend_is_told_precisely(
    base: Database, meanwhile: Callable[[Database], None], now: int, reason: Reason
) -> None:
    made = open_ledger(base)
    assert asyncio.run(made.find(GRANT_ID)) is not None
    meanwhile(base)
    before = rows(base)

    async def main() -> None:
        with pytest.raises(Refused) as refused:
            await spend(made, a_redemption(redeemed_at=now))
        assert refused.value.reason is reason
        await made.close()

    asyncio.run(main())
    assert rows(base) == before
    assert len(entries(base)) == (0 if meanwhile in {revoke, remove} else len(before))


def test_the_last_second_of_the_window_can_be_spent(base: Database) -> None:
    async def main() -> Redemption:
        async with opened(base) as made:
            return await spend(made, a_redemption(redeemed_at=NOW + WINDOW - 1))

    assert asyncio.run(main()).ordinal == 1


def test_winners_and_losers_of_one_batch_each_get_their_own_answer(base: Database) -> None:
    async def main() -> list[Outcome]:
        async with opened(base) as made:
            ids = (GRANT_ID, "x", OTHER_ID, GRANT_ID, GRANT_ID, OTHER_ID)
            return await all_of([spend(made, a_redemption(grant_id=one)) for one in ids])

    one, unknown, two, three, used_up, four = asyncio.run(main())
    assert [getattr(one_of, "ordinal", None) for one_of in (one, two, three, four)] == [1, 1, 2, 2]
    assert getattr(unknown, "reason", None) is Reason.UNKNOWN_GRANT
    assert getattr(used_up, "reason", None) is Reason.USED_UP


# What goes wrong.


def test_a_claim_that_breaks_a_constraint_does_not_hurt_the_others(base: Database) -> None:
    twin = a_redemption(grant_id=OTHER_ID)

    async def main() -> list[Outcome]:
        async with opened(base) as made:
            await spend(made, twin)
            poison = replace(twin, fingerprint="f" * 64)
            good = [a_redemption(grant_id=OTHER_ID) for _ in range(4)]
            return await all_of([spend(made, one) for one in (*good[:2], poison, *good[2:])])

    outcomes = asyncio.run(main())
    assert isinstance(outcomes[2], Broken)
    assert twin.serial not in str(outcomes[2])
    ordinals = [outcome.ordinal for outcome in outcomes if isinstance(outcome, Redemption)]
    assert ordinals == [2, 3, 4, 5]
    assert spent(base, OTHER_ID) == len(rows(base, OTHER_ID)) == len(entries(base, OTHER_ID)) == 5


def test_a_full_disk_spends_nothing_and_passes(base: Database) -> None:
    async def spend_until_full(made: SqliteLedger) -> tuple[int, Outcome]:
        for given in range(1000):
            (outcome,) = await all_of([spend(made, a_redemption(grant_id=OTHER_ID))])
            if not isinstance(outcome, Redemption):
                return given, outcome
        pytest.fail("the disk is never full")

    async def main() -> None:
        async with opened(base) as made:
            assert made._writer is not None
            (pages,) = made._writer.execute("PRAGMA page_count").fetchone()
            made._writer.execute(f"PRAGMA max_page_count = {pages}")
            given, outcome = await spend_until_full(made)
            assert isinstance(outcome, Unavailable)
            assert "full" in str(outcome)
            assert spent(base, OTHER_ID) == len(rows(base, OTHER_ID)) == given
            assert len(entries(base, OTHER_ID)) == given
            together = [spend(made, a_redemption(grant_id=OTHER_ID)) for _ in range(3)]
            assert all(isinstance(one, Unavailable) for one in await all_of(together))
            made._writer.execute("PRAGMA max_page_count = 1000000")
            again = await spend(made, a_redemption(grant_id=OTHER_ID))
            assert again.ordinal == given + 1

    asyncio.run(main())


def test_another_process_that_holds_the_lock_is_waited_for_while_the_loop_turns(
    base: Database,
) -> None:
    async def main() -> None:
        async with opened(base) as made:
            with locked(base) as other:
                spending = asyncio.ensure_future(spend(made, a_redemption()))
                # The lock is let go on this very loop: if waiting stopped it, this would hang.
                await turns(200)
                await asyncio.sleep(0.05)
                assert not spending.done()
                assert await made.find(GRANT_ID) is not None
                other.execute("UPDATE heartbeat SET at = 9")
                other.execute("COMMIT")
            assert (await spending).ordinal == 1

    asyncio.run(main())
    assert spent(base) == 1


def test_a_lock_that_is_held_too_long_makes_it_unavailable(
    base: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "_PATIENCE", 0.02)

    async def main() -> None:
        async with opened(base) as made:
            with locked(base):
                outcomes = await all_of([spend(made, a_redemption()) for _ in range(3)])
            assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
            assert_untouched(base)
            assert (await spend(made, a_redemption())).ordinal == 1

    asyncio.run(main())


def test_patience_is_each_claims_own_and_nobody_who_left_is_spent(
    base: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim that comes while others wait in vain is refused no later than they were."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def timed() -> float:
            begin = loop.time()
            with pytest.raises(Unavailable, match="locked by others"):
                await spend(made, a_redemption())
            return loop.time() - begin

        async with opened(base) as made:
            with locked(base):
                monkeypatch.setattr(group_commit, "_PATIENCE", 0.3)
                first = asyncio.ensure_future(timed())
                await asyncio.sleep(0.15)
                second = asyncio.ensure_future(timed())
                await asyncio.sleep(0)
                monkeypatch.setattr(group_commit, "_PATIENCE", 60.0)
                leaving = asyncio.ensure_future(spend(made, a_redemption()))
                staying = asyncio.ensure_future(spend(made, a_redemption()))
                await asyncio.sleep(0)
                waited = [await first, await second]
                leaving.cancel()
            assert (await staying).ordinal == 1
            assert max(waited) < 2 * min(waited)

    asyncio.run(main())
    assert spent(base) == 1


def test_nothing_is_spent_in_a_file_that_was_removed(base: Database) -> None:
    async def main() -> None:
        async with opened(base) as made:
            away = base.path.with_suffix(".away")
            base.path.rename(away)
            (outcome,) = await all_of([spend(made, a_redemption())])
            assert isinstance(outcome, Unavailable)
            assert "removed or replaced" in str(outcome)
            away.rename(base.path)
            assert (await spend(made, a_redemption())).ordinal == 1

    asyncio.run(main())


def test_a_ledger_that_breaks_leaves_nobody_waiting(base: Database) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("a bug")

    async def main() -> None:
        made = open_ledger(base, on_batch=fail)
        spending = [asyncio.ensure_future(spend(made, a_redemption()))]
        await asyncio.sleep(0)
        flusher = made._queue._flusher
        assert flusher is not None
        with pytest.raises(RuntimeError, match="a bug"):
            await flusher
        assert (await spending[0]).ordinal == 1  # it was committed, and told so
        assert made._queue._flusher is None
        await made.close()

    asyncio.run(main())


class Faulty:
    """A connection that fails when told to, and is SQLite's own otherwise."""

    def __init__(self, connection: sqlite3.Connection, **faults: list[BaseException]) -> None:
        self._connection = connection
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        if self._faults.get(name):
            error = self._faults[name].pop(0)

            def fail(*_: object) -> None:
                raise error

            return fail
        return getattr(self._connection, name)


def sqlite_error(code: int, text: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


def spend_with(database: Database, **faults: list[BaseException]) -> tuple[Outcome, Redemption]:
    """Spend once with a writer that has these faults, and once more when they are over."""

    async def main() -> tuple[Outcome, Redemption]:
        async with opened(database) as made:
            assert made._writer is not None
            made._writer = Faulty(made._writer, **faults)  # type: ignore[assignment]
            (first,) = await all_of([spend(made, a_redemption())])
            if not isinstance(first, Redemption):
                assert_untouched(database)
            return first, await spend(made, a_redemption())

    return asyncio.run(main())


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY, sqlite3.SQLITE_BUSY_TIMEOUT]
)
def test_every_kind_of_busy_is_waited_for(base: Database, code: int) -> None:
    first, second = spend_with(base, execute=[sqlite_error(code, "locked") for _ in range(9)])
    assert isinstance(first, Redemption)
    assert second.ordinal == 2


def test_a_fault_at_the_beginning_that_is_not_busy_is_told_at_once(base: Database) -> None:
    first, second = spend_with(base, execute=[sqlite_error(sqlite3.SQLITE_IOERR, "disk I/O error")])
    assert isinstance(first, Unavailable)
    assert second.ordinal == 1


def test_a_commit_that_fails_spends_nothing(base: Database) -> None:
    first, second = spend_with(base, commit=[sqlite_error(sqlite3.SQLITE_IOERR, "disk I/O error")])
    assert isinstance(first, Unavailable)
    assert second.ordinal == 1


def test_a_connection_that_cannot_even_roll_back_is_replaced(base: Database) -> None:
    first, second = spend_with(
        base,
        commit=[sqlite_error(sqlite3.SQLITE_IOERR, "disk I/O error")],
        rollback=[sqlite_error(sqlite3.SQLITE_IOERR, "disk I/O error")],
    )
    assert isinstance(first, Unavailable)
    assert second.ordinal == 1


def test_a_bug_in_a_commit_answers_everybody_and_spends_nothing(base: Database) -> None:
    first, second = spend_with(base, executemany=[RuntimeError("a bug with a s3cret")])
    assert isinstance(first, Broken)
    assert "s3cret" not in str(first)
    assert second.ordinal == 1


# Waiting, giving up, ending.


def test_a_claim_that_gave_up_while_it_waited_is_not_spent_and_hurts_nobody(
    base: Database,
) -> None:
    async def main() -> list[Outcome]:
        async with opened(base) as made:
            tasks = [asyncio.ensure_future(spend(made, a_redemption())) for _ in range(3)]
            await asyncio.sleep(0)
            tasks[1].cancel()
            return await all_of(tasks)

    one, cancelled, two = asyncio.run(main())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert [getattr(one, "ordinal", None), getattr(two, "ordinal", None)] == [1, 2]
    assert spent(base) == len(rows(base)) == 2


def test_a_batch_of_which_everybody_gave_up_begins_no_transaction(base: Database) -> None:
    batches: list[int] = []

    async def main() -> None:
        async with opened(base, on_batch=batches.append) as made:
            task = asyncio.ensure_future(spend(made, a_redemption()))
            await asyncio.sleep(0)
            task.cancel()
            await all_of([task])

    asyncio.run(main())
    assert_untouched(base)
    assert batches == []


def test_a_claim_that_gives_up_during_the_commit_hurts_nobody(base: Database) -> None:
    async def main() -> list[Outcome]:
        async with opened(base) as made:
            with locked(base):
                tasks = [asyncio.ensure_future(spend(made, a_redemption())) for _ in range(2)]
                await turns(5)  # the batch is made, and waits for the lock
                tasks[0].cancel()
                await turns(5)
            return await all_of(tasks)

    cancelled, other = asyncio.run(main())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert isinstance(other, Redemption)
    assert spent(base) == len(rows(base)) == len(entries(base))


# Claims that come again.

CLAIM_KEY = b"k" * 16


def wish(key: bytes = CLAIM_KEY, sealed: bytes = b"sealed", **changes: Any) -> Spending:
    made = a_redemption(**changes)
    keeping = Keeping(claim_key=key, sealed=sealed, until=made.redeemed_at + 600)
    return Spending(redemption=made, keeping=keeping)


async def outcomes(made: SqliteLedger, *wishes: Spending) -> list[Redemption | Kept | Any]:
    return list(await asyncio.gather(*map(made.spend, wishes), return_exceptions=True))


def ordinals(found: Sequence[Redemption | Kept | Any]) -> list[int]:
    return [one.ordinal for one in found]


def test_an_answer_is_found_until_its_window_ends(base: Database) -> None:
    async def main() -> list[Kept | None]:
        async with opened(base) as made:
            before = await made.find_kept(CLAIM_KEY, NOW)
            await made.spend(wish())
            return [before, *[await made.find_kept(CLAIM_KEY, NOW + at) for at in (0, 599, 600)]]

    kept = Kept(sealed=b"sealed", ordinal=1)
    assert asyncio.run(main()) == [None, kept, kept, None]


@pytest.mark.parametrize("grant_id", [GRANT_ID, OTHER_ID])
def test_copies_of_one_claim_in_one_batch_are_one_redemption(base: Database, grant_id: str) -> None:
    async def main() -> list[Redemption | Kept]:
        async with opened(base) as made:
            copies = [wish(sealed=b"%d" % number, grant_id=grant_id) for number in range(5)]
            return await outcomes(made, *copies)

    first, *others = asyncio.run(main())
    assert isinstance(first, Redemption)
    assert others == [Kept(sealed=b"0", ordinal=1)] * 4
    assert spent(base, grant_id) == 1
    assert len(rows(base, grant_id)) == len(entries(base, grant_id)) == 1


@pytest.mark.parametrize("allowed", [1, 5])
def test_copies_of_one_claim_in_two_processes_are_one_redemption(
    database: Database, allowed: int
) -> None:
    furnish(database, a_grant(allowed=allowed))

    async def main() -> list[Redemption | Kept]:
        async with opened(database) as one, opened(database) as two:
            found = await asyncio.gather(
                outcomes(one, wish(sealed=b"one")), outcomes(two, wish(sealed=b"two"))
            )
            return [outcome for outcomes_ in found for outcome in outcomes_]

    found = asyncio.run(main())
    (won,) = [one for one in found if isinstance(one, Redemption)]
    (kept,) = [one for one in found if isinstance(one, Kept)]
    assert won.ordinal == kept.ordinal == 1
    assert spent(database) == 1
    assert len(rows(database)) == len(entries(database)) == 1


def test_a_repeated_claim_does_not_hurt_the_others_of_its_batch(base: Database) -> None:
    async def main() -> list[Redemption | Kept]:
        async with opened(base) as one, opened(base) as two:
            await one.spend(wish(grant_id=OTHER_ID))
            others = [wish(key=b"%016d" % number, grant_id=OTHER_ID) for number in range(3)]
            return await outcomes(two, *others, wish(grant_id=OTHER_ID, sealed=b"late"))

    *good, again = asyncio.run(main())
    assert ordinals(good) == [2, 3, 4]
    assert again == Kept(sealed=b"sealed", ordinal=1)
    assert spent(base, OTHER_ID) == 4


def test_the_same_claim_after_its_window_is_a_new_redemption(base: Database) -> None:
    async def main() -> list[Redemption | Kept]:
        async with opened(base) as made:
            first = await outcomes(made, wish(grant_id=OTHER_ID))
            later = wish(grant_id=OTHER_ID, sealed=b"new", redeemed_at=NOW + 600)
            second = await outcomes(made, later)
            kept = await made.find_kept(CLAIM_KEY, NOW + 600)
            assert kept is not None
            return [*first, *second, kept]

    assert ordinals(asyncio.run(main())) == [1, 2, 2]
    assert spent(base, OTHER_ID) == 2


def test_an_answer_is_kept_exactly_when_its_redemption_is(base: Database) -> None:
    async def main() -> None:
        async with opened(base) as made:
            wishes = [wish(key=b"%016d" % number) for number in range(5)]
            found = await outcomes(made, *wishes)
            for number, outcome in enumerate(found):
                kept = await made.find_kept(b"%016d" % number, NOW)
                assert (kept is not None) == isinstance(outcome, Redemption)

    asyncio.run(main())
    assert spent(base) == 2


# The end.


def test_closing_commits_what_waits(base: Database) -> None:
    async def main() -> list[Outcome]:
        made = open_ledger(base, spacing_seconds=0.05)
        await spend(made, a_redemption(grant_id=OTHER_ID))
        tasks = [
            asyncio.ensure_future(spend(made, a_redemption(grant_id=OTHER_ID))) for _ in range(5)
        ]
        await asyncio.sleep(0)
        await made.close()
        return await all_of(tasks)

    assert all(isinstance(outcome, Redemption) for outcome in asyncio.run(main()))
    assert spent(base, OTHER_ID) == 6


def test_a_closed_ledger_is_unavailable(base: Database) -> None:
    async def main() -> None:
        made = open_ledger(base)
        await made.close()
        with pytest.raises(Unavailable):
            await spend(made, a_redemption())

    asyncio.run(main())


# The ledger against a counter with a limit.


@cache
def furnished_file() -> Path:
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory)
    database = a_database(directory)
    with database.writing() as connection:
        issuer = authorities.add(connection, an_authority())
        sites.put(connection, name="west", issuer_id=issuer, wanted=(), now=NOW)
    database.close()
    return database.path


class Counter7:
    """What a grant is, with everything else taken away."""

    def __init__(self, allowed: int, expires_at: int) -> None:
        self.allowed, self.expires_at = allowed, expires_at
        self.spent, self.revoked, self.removed = 0, False, False

    def spend(self, now: int) -> int | Reason:
        if self.removed:
            return Reason.UNKNOWN_GRANT
        if self.revoked:
            return Reason.REVOKED
        if now >= self.expires_at:
            return Reason.EXPIRED
        if self.spent == self.allowed:
            return Reason.USED_UP
        self.spent += 1
        return self.spent


class LedgerAgainstCounters(RuleBasedStateMachine):
    made = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        path = Path(self.directory.name) / "grantserver.db"
        shutil.copy(furnished_file(), path)
        self.database = Database(f"sqlite:///{path}")
        self.runner = asyncio.Runner()
        self.ledgers = [open_ledger(self.database), open_ledger(self.database)]
        self.counters: dict[str, Counter7] = {}
        self.now = NOW

    def teardown(self) -> None:
        for one in self.ledgers:
            self.runner.run(one.close())
        self.runner.close()
        self.database.close()
        self.directory.cleanup()

    @initialize(target=made, allowed=st.integers(1, 4))
    def begin_with_one(self, allowed: int) -> Any:
        return multiple(self._make(allowed, 20))

    @rule(target=made, allowed=st.integers(1, 4), window=st.integers(1, 20))
    def make(self, allowed: int, window: int) -> str:
        return self._make(allowed, window)

    def _make(self, allowed: int, window: int) -> str:
        grant_id = f"{len(self.counters):036}"
        grant = a_grant(
            id=grant_id,
            name=f"g{len(self.counters)}",
            allowed=allowed,
            created_at=self.now,
            expires_at=self.now + window,
        )
        with self.database.writing() as connection:
            grants.add(connection, grant)
        self.counters[grant_id] = Counter7(allowed, self.now + window)
        return grant_id

    @rule(ids=st.lists(made, min_size=1, max_size=6))
    def spend(self, ids: list[str]) -> None:
        expected = [self.counters[one].spend(self.now) for one in ids]
        wanted = [a_redemption(grant_id=one, redeemed_at=self.now) for one in ids]

        async def together() -> list[Outcome]:
            return await all_of([spend(self.ledgers[0], one) for one in wanted])

        assert [self._plain(outcome) for outcome in self.runner.run(together())] == expected

    @rule(grant_id=made, count=st.integers(1, 3))
    def spend_through_two_ledgers(self, grant_id: str, count: int) -> None:
        expected = [self.counters[grant_id].spend(self.now) for _ in range(2 * count)]
        wanted = [a_redemption(grant_id=grant_id, redeemed_at=self.now) for _ in expected]

        async def together() -> list[Outcome]:
            return await all_of(
                [spend(self.ledgers[number % 2], one) for number, one in enumerate(wanted)]
            )

        outcomes = [self._plain(outcome) for outcome in self.runner.run(together())]
        assert sorted(map(str, outcomes)) == sorted(map(str, expected))

    @rule(grant_id=made)
    def revoke(self, grant_id: str) -> None:
        with self.database.writing() as connection:
            grants.revoke(connection, grant_id, self.now)
        self.counters[grant_id].revoked = True

    @rule(grant_id=made)
    def remove(self, grant_id: str) -> None:
        with self.database.writing() as connection:
            grants.remove(connection, grant_id)
        self.counters[grant_id].removed = True

    @rule(seconds=st.integers(1, 15))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def the_books_agree(self) -> None:
        for grant_id, counter in self.counters.items():
            grant = grant_of(self.database, grant_id)
            assert (grant is None) == counter.removed
            if grant is not None:
                assert grant.spent == counter.spent
                ordinals = [row.ordinal for row in rows(self.database, grant_id)]
                assert ordinals == list(range(1, counter.spent + 1))
            assert len(entries(self.database, grant_id)) == counter.spent

    @staticmethod
    def _plain(outcome: Outcome) -> int | Reason:
        if isinstance(outcome, Redemption):
            return outcome.ordinal
        assert isinstance(outcome, GrantServerError)
        assert isinstance(outcome, Refused)
        return outcome.reason


TestLedgerAgainstCounters = LedgerAgainstCounters.TestCase
TestLedgerAgainstCounters.settings = settings(
    max_examples=30,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
