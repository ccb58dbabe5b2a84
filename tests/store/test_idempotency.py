import pytest

from app.errors import Conflict
from app.store import idempotency as rows
from app.store.engine import Database
from app.store.idempotency import Row
from tests.builders import NOW


def a_row(expires_at: int = NOW + 1, body: bytes = b"b" * 32) -> Row:
    return Row(asked=b"a" * 32, body=body, sealed=b"sealed", expires_at=expires_at)


def test_what_is_kept_is_found(database: Database) -> None:
    with database.writing() as connection:
        assert rows.find(connection, b"a" * 32) is None
        rows.keep(connection, a_row(), now=NOW)
        assert rows.find(connection, b"a" * 32) == a_row()
        assert rows.find(connection, b"c" * 32) is None


def test_a_row_makes_way_when_it_is_over_and_not_before(database: Database) -> None:
    with database.writing() as connection:
        rows.keep(connection, a_row(NOW), now=NOW - 1)
    with pytest.raises(Conflict), database.writing() as connection:
        rows.keep(connection, a_row(NOW + 9), now=NOW - 1)
    with database.writing() as connection:
        rows.keep(connection, a_row(NOW + 9), now=NOW)
        assert rows.find(connection, b"a" * 32) == a_row(NOW + 9)
