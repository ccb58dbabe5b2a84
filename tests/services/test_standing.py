import contextlib
import sqlite3

import pytest
from sqlalchemy import select

from app.domain.grants import State
from app.errors import Unavailable
from app.metrics import Certificate
from app.services import grants, standing
from app.services.authorities import DEFAULT_LIFETIME_SECONDS
from app.store import schema, sqlite
from app.store.engine import Database
from tests.builders import NOW, WINDOW, Stand


def test_a_writable_database_is_written(stand: Stand) -> None:
    standing.check_writable(stand.database, NOW)
    with stand.database.reading() as connection:
        assert connection.execute(select(schema.heartbeat.c.at)).scalar() == NOW


def test_a_database_that_takes_no_writes_is_unavailable(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_MILLISECONDS", 10)
    with contextlib.closing(sqlite3.connect(database.sqlite.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            standing.check_writable(database, NOW)


def test_grants_are_counted_in_every_state(stand: Stand) -> None:
    stand.set_site()
    for name in ("a", "b", "c"):
        stand.make_grant(name=name)
    grants.revoke(stand.database, "c", actor="cli:test", now=NOW)
    counted = standing.count_grants(stand.database, NOW)
    assert counted == {State.ACTIVE: 2, State.EXPIRED: 0, State.USED_UP: 0, State.REVOKED: 1}
    later = standing.count_grants(stand.database, NOW + WINDOW)
    assert later == {State.ACTIVE: 0, State.EXPIRED: 2, State.USED_UP: 0, State.REVOKED: 1}


def test_the_ends_of_the_authorities_are_told(stand: Stand) -> None:
    end = NOW + DEFAULT_LIFETIME_SECONDS
    assert standing.authorities_end(stand.database) == {
        Certificate.SERVER_CA: end,
        Certificate.SITE_AUTHORITIES_SOONEST: end,
    }
    with stand.database.writing() as connection:
        connection.execute(schema.authorities.delete())
    assert standing.authorities_end(stand.database) == {
        Certificate.SERVER_CA: None,
        Certificate.SITE_AUTHORITIES_SOONEST: None,
    }
