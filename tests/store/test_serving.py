from collections.abc import Callable

import pytest
from sqlalchemy import Connection, insert, update

from app.domain.authorities import Purpose
from app.store import addresses, serving
from app.store import authorities as authority_rows
from app.store.addresses import AddressRow
from app.store.engine import Database
from app.store.schema import authorities, server_certificates
from tests.builders import NOW, PEM, an_authority


@pytest.fixture
def installed(database: Database) -> Database:
    """The CA of the server, its certificate, and a site authority beside it."""
    with database.writing() as connection:
        authority_rows.add(connection, an_authority(name="server-ca", purpose=Purpose.SERVER))
        authority_rows.add(connection, an_authority())
        a_certificate(connection)
    return database


def a_certificate(connection: Connection) -> None:
    row = {"certificate_pem": PEM, "sealed_key": b"", "not_after": NOW, "created_at": NOW}
    number = len(connection.execute(server_certificates.select()).all())
    connection.execute(insert(server_certificates).values(fingerprint=f"{number}", **row))


def mark_of(database: Database) -> object:
    with database.reading() as connection:
        return serving.mark(connection)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda it: addresses.write(it, AddressRow(url="https://a.example"), NOW), id="address"
        ),
        pytest.param(
            lambda it: addresses.write(it, AddressRow(url="", problem="waiting"), NOW), id="problem"
        ),
        pytest.param(
            lambda it: addresses.write(it, AddressRow(url="", hosts=("a.example",)), NOW),
            id="further hosts",
        ),
        pytest.param(a_certificate, id="certificate"),
        pytest.param(
            lambda it: it.execute(
                update(authorities).where(authorities.c.name == "server-ca").values(state="retired")
            ),
            id="state of the CA",
        ),
    ],
)
def test_whatever_is_served_otherwise_changes_the_mark(
    installed: Database, change: Callable[[Connection], object]
) -> None:
    before = mark_of(installed)
    assert mark_of(installed) == before
    with installed.writing() as connection:
        change(connection)
    assert mark_of(installed) != before


def test_another_generation_of_the_ca_changes_the_mark(installed: Database) -> None:
    before = mark_of(installed)
    with installed.writing() as connection:
        connection.execute(
            update(authorities)
            .where(authorities.c.name == "server-ca")
            .values(name="server-ca-1", state="retired")
        )
        authority_rows.add(connection, an_authority(name="server-ca", purpose=Purpose.SERVER))
    assert mark_of(installed) != before


def test_what_sites_have_does_not_change_the_mark(installed: Database) -> None:
    before = mark_of(installed)
    with installed.writing() as connection:
        authority_rows.add(connection, an_authority(name="another"))
    assert mark_of(installed) == before


def test_a_database_without_a_ca_has_a_mark_too(database: Database) -> None:
    before = mark_of(database)
    with database.writing() as connection:
        addresses.write(connection, AddressRow(url="https://a.example"), NOW)
    assert mark_of(database) != before
