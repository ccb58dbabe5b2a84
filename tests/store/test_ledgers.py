import asyncio

import pytest

from app.errors import Broken
from app.store import ledgers
from app.store.engine import Database
from app.store.postgres_ledger import PostgresLedger
from app.store.sqlite_ledger import SqliteLedger
from tests.store.spending import open_ledger


def test_each_database_has_the_ledger_that_speaks_to_it(database: Database, kind: str) -> None:
    made = open_ledger(database)
    assert isinstance(made, {"sqlite": SqliteLedger, "postgres": PostgresLedger}[kind])
    asyncio.run(made.close())


def test_a_database_that_nobody_knows_has_none(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "backend", object())
    with pytest.raises(Broken):
        ledgers.open_ledger(database, spacing_seconds=0, on_batch=lambda _: None)
