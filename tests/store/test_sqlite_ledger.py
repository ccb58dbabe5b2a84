import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from app.domain.grants import Redemption
from app.errors import Broken, Unavailable
from app.store import group_commit, sqlite_ledger
from app.store.engine import Database
from app.store.sqlite_ledger import SqliteLedger
from tests.builders import GRANT_ID, a_redemption
from tests.store import spending
from tests.store.spending import (
    OTHER_ID,
    Outcome,
    all_of,
    assert_exactly_seven,
    assert_untouched,
    entries,
    rows,
    sixty_spends,
    spend,
    spent,
    turns,
)


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    return sqlite_database


UNGUARDED = "UPDATE grants SET spent = spent + 1 WHERE id = :grant_id RETURNING spent"


@contextlib.asynccontextmanager
async def opened(database: Database, **changes: Any) -> AsyncIterator[SqliteLedger]:
    async with spending.opened(database, **changes) as made:
        assert isinstance(made, SqliteLedger)
        yield made


@contextlib.contextmanager
def locked(database: Database) -> Iterator[sqlite3.Connection]:
    """Hold the write lock, as another process would."""
    with contextlib.closing(sqlite3.connect(database.sqlite.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other
        if other.in_transaction:
            other.execute("ROLLBACK")


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
            away = base.sqlite.path.with_suffix(".away")
            base.sqlite.path.rename(away)
            (outcome,) = await all_of([spend(made, a_redemption())])
            assert isinstance(outcome, Unavailable)
            assert "removed or replaced" in str(outcome)
            away.rename(base.sqlite.path)
            assert (await spend(made, a_redemption())).ordinal == 1

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
