import asyncio
from typing import Any

import psycopg
import pytest

from app.errors import Unavailable
from app.store.engine import Database
from app.store.postgres_line import Line
from app.store.postgresql import Postgresql
from tests.postgresql import Cluster
from tests.store.wire import Fault, Wire

COUNT = "SELECT count(*) FROM audit"
ADD = "INSERT INTO audit (at, act, actor, target, details) VALUES (1, 'a', 'a', 't', '{}')"
OWN = "SELECT pg_backend_pid()"


@pytest.fixture
def database(postgres_database: Database) -> Database:
    return postgres_database


def line_to(database: Database, **session: str) -> Line:
    assert isinstance(database.backend, Postgresql)
    return Line(database.backend.parameters(session))


async def own(line: Line) -> int:
    ((pid,),) = await line.ask(OWN, {})
    return int(pid)


def terminate(cluster: Cluster, pid: int) -> None:
    # It has ended when nobody of this number is left.
    cluster.execute(f"SELECT pg_terminate_backend({pid}, 10000)")


def test_a_connection_is_kept_and_set_up_as_told(database: Database) -> None:
    async def main() -> None:
        line = line_to(
            database, statement_timeout="7s", default_transaction_isolation="serializable"
        )
        assert await own(line) == await own(line)
        for name, value in (
            ("statement_timeout", "7s"),
            ("transaction_isolation", "serializable"),
            ("application_name", "grantserver"),
        ):
            assert await line.ask(f"SHOW {name}", {}) == [(value,)]
        await line.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("before", "after"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")]
)
def test_a_commit_is_durable_whatever_the_server_was_told(
    database: Database, before: str, after: str
) -> None:
    async def main() -> None:
        line = line_to(database, synchronous_commit=before)
        assert await line.ask("SHOW synchronous_commit", {}) == [(after,)]
        await line.close()

    asyncio.run(main())


def test_what_is_told_is_committed(database: Database) -> None:
    async def main() -> None:
        one, other = line_to(database), line_to(database)
        assert await one.tell(ADD, {}) == ()
        assert await other.ask(COUNT, {}) == [(1,)]
        await one.close()
        await other.close()

    asyncio.run(main())


def test_one_statement_runs_at_a_time(database: Database) -> None:
    async def main() -> None:
        line = line_to(database)
        found = await asyncio.gather(*(line.ask("SELECT %(n)s::int", {"n": n}) for n in range(20)))
        assert found == [[(n,)] for n in range(20)]
        await line.close()

    asyncio.run(main())


def test_a_connection_that_was_ended_while_nobody_used_it_is_replaced(
    database: Database, cluster: Cluster
) -> None:
    async def main() -> None:
        line = line_to(database)
        for use in (line.tell, line.ask):
            pid = await own(line)
            terminate(cluster, pid)
            await use(ADD, {})
            assert await own(line) != pid
        await line.close()

    asyncio.run(main())


def test_a_question_is_asked_again_when_its_connection_breaks_and_a_change_is_not(
    database: Database, cluster: Cluster
) -> None:
    async def main() -> None:
        async with Wire(cluster).opened() as wire:
            behind = Database(wire.url(database.name.rpartition("/")[2]))
            line = line_to(behind)
            pid = await own(line)

            await line.tell(ADD, {})  # it is prepared now
            wire.fault = Fault.LOST_ONCE
            assert await own(line) != pid
            await line.tell(ADD, {})
            wire.fault = Fault.LOST_ONCE
            with pytest.raises(psycopg.OperationalError):
                await line.tell(ADD, {})
            assert await line.ask(COUNT, {}) == [(3,)]  # it was done all the same
            await line.close()
            behind.close()

    asyncio.run(main())


def test_an_error_of_the_statement_costs_no_connection(database: Database) -> None:
    async def main() -> None:
        line = line_to(database)
        pid = await own(line)
        for use in (line.ask, line.tell):
            with pytest.raises(psycopg.errors.UndefinedTable):
                await use("SELECT * FROM nowhere", {})
        assert await own(line) == pid
        await line.close()

    asyncio.run(main())


def test_a_statement_that_takes_too_long_is_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.postgres_line._SECONDS", 0.1)

    async def main() -> None:
        line = line_to(database)
        with pytest.raises(psycopg.OperationalError):
            await line.tell("SELECT pg_sleep(60)", {})
        assert await line.ask(COUNT, {}) == [(0,)]
        await line.close()

    asyncio.run(main())


def test_a_server_that_says_nothing_is_unavailable(
    database: Database, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.postgres_line.CONNECT_SECONDS", 0.1)

    async def main() -> None:
        async with Wire(cluster).opened() as wire:
            wire.fault = Fault.SILENCE
            behind = Database(wire.url(database.name.rpartition("/")[2]))
            line = line_to(behind)
            with pytest.raises(Unavailable):
                await line.ask(COUNT, {})
            wire.fault = Fault.NONE
            assert await line.ask(COUNT, {}) == [(0,)]
            await line.close()
            behind.close()

    asyncio.run(main())


def test_a_line_that_was_closed_stays_closed(database: Database) -> None:
    async def main(*_: Any) -> None:
        line = line_to(database)
        await line.close()
        with pytest.raises(Unavailable):
            await line.ask(COUNT, {})
        await line.close()

    asyncio.run(main())
