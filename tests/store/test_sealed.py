from typing import Any

from sqlalchemy import delete, insert

from app.store import schema, sealed
from app.store.engine import Database
from tests.builders import GRANT_ID
from tests.store.test_schema import ROWS, second


def test_every_sealed_value_is_given_with_what_it_belongs_to(database: Database) -> None:
    wanted: dict[str, list[Any]] = {
        "authorities": [
            ROWS["authorities"],
            second("authorities", {"sealed_key": b"", "state": "retired"}),
        ],
        "server_certificates": [{**ROWS["server_certificates"], "fingerprint": "f3"}],
        "sites": [ROWS["sites"]],
        "grants": [ROWS["grants"]],
        "access_grants": [ROWS["access_grants"]],
        "creations": [ROWS["creations"]],
    }
    with database.writing() as connection:
        for table, rows in wanted.items():
            for row in rows:
                connection.execute(insert(schema.metadata.tables[table]).values(row))
    with database.reading() as connection:
        assert sealed.authority_keys(connection) == [("f1", b"k")]
        assert sealed.server_keys(connection) == [("f3", b"k")]
        assert sealed.codes(connection) == [(GRANT_ID, b"c")]
        assert sealed.creations(connection) == [((b"a" * 32).hex(), b"s")]
    with database.writing() as connection:
        connection.execute(delete(schema.access_grants))
    with database.reading() as connection:
        assert sealed.codes(connection) == []


def test_every_column_of_the_schema_that_is_sealed_is_known_here() -> None:
    """One that is added is added there too; answers are opened by the code of their grant."""
    found = {
        (table.name, column.name)
        for table in schema.metadata.tables.values()
        for column in table.columns
        if column.name.startswith("sealed")
    }
    assert found == {
        ("authorities", "sealed_key"),
        ("server_certificates", "sealed_key"),
        ("access_grants", "sealed_code"),
        ("answers", "sealed"),
        ("creations", "sealed"),
        ("webhooks", "sealed_secret"),
    }
