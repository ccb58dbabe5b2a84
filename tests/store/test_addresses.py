import pytest
from sqlalchemy import delete, select

from app.errors import Broken
from app.store import addresses, schema
from app.store.addresses import AddressRow
from app.store.engine import Database
from tests.builders import NOW

WEST = AddressRow(url="https://west.example:9090", hosts=("west.example", "2001:db8::1"))


def changed_at(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.execute(select(schema.addresses.c.changed_at)).scalar_one())


def test_at_first_there_is_no_address_and_no_problem(database: Database) -> None:
    with database.reading() as connection:
        assert addresses.read(connection) == AddressRow(url="", hosts=(), problem="")


@pytest.mark.parametrize(
    "row",
    [
        WEST,
        AddressRow(url="", problem="waiting for an address of Service a/b, c"),
        AddressRow(url="u"),
    ],
)
def test_what_is_written_is_read_again(database: Database, row: AddressRow) -> None:
    with database.writing() as connection:
        assert addresses.write(connection, row, NOW)
    with database.reading() as connection:
        assert addresses.read(connection) == row
    assert changed_at(database) == NOW


def test_what_is_there_already_is_not_written_again(database: Database) -> None:
    with database.writing() as connection:
        assert addresses.write(connection, WEST, NOW)
        assert not addresses.write(connection, WEST, NOW + 1)
    assert changed_at(database) == NOW
    with database.writing() as connection:
        assert addresses.write(connection, AddressRow(url=WEST.url), NOW + 2)
    assert changed_at(database) == NOW + 2


@pytest.mark.parametrize("host", ["", "a,b"])
def test_a_host_that_could_not_be_read_again_is_not_written(database: Database, host: str) -> None:
    with pytest.raises(Broken, match="host"), database.writing() as connection:
        addresses.write(connection, AddressRow(url="u", hosts=(host,)), NOW)


def test_a_row_that_somebody_took_away_is_told(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(delete(schema.addresses))
    with pytest.raises(Broken, match="not there"), database.reading() as connection:
        addresses.read(connection)
