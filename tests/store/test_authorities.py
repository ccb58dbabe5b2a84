from dataclasses import replace

import pytest

from app.domain.authorities import Authority, Purpose
from app.errors import Conflict
from app.store import authorities
from app.store.engine import Database
from tests.builders import NOW, a_server_certificate, an_authority


def add(database: Database, authority: Authority) -> Authority:
    with database.writing() as connection:
        return replace(authority, id=authorities.add(connection, authority))


def test_an_authority_comes_back_as_it_was_by_name_and_by_id(database: Database) -> None:
    added = add(database, an_authority(id=77, imported=True, sealed_key=b"\x00\xff"))
    assert added.id != 77
    with database.reading() as connection:
        assert authorities.by_name(connection, "site-ca") == added
        assert authorities.by_id(connection, added.id) == added
        assert authorities.every(connection) == [added]


def test_what_is_not_there_is_none(database: Database) -> None:
    with database.reading() as connection:
        assert authorities.by_name(connection, "site-ca") is None
        assert authorities.by_id(connection, 1) is None
        assert authorities.of_server(connection) is None
        assert authorities.every(connection) == []
        assert authorities.soonest_expiry(connection) is None
        assert authorities.current_server_certificate(connection) is None


def test_all_of_them_come_in_the_order_of_their_names(database: Database) -> None:
    for name in ("b", "c", "a"):
        add(database, an_authority(name=name))
    with database.reading() as connection:
        assert [one.name for one in authorities.every(connection)] == ["a", "b", "c"]


def test_a_name_or_certificate_that_is_kept_already_conflicts(database: Database) -> None:
    kept = add(database, an_authority())
    for twin in (an_authority(), an_authority(name="b", fingerprint=kept.fingerprint)):
        with pytest.raises(Conflict):
            add(database, twin)


def test_the_servers_authority_is_the_only_one_of_its_purpose(database: Database) -> None:
    add(database, an_authority())
    server = add(database, an_authority(name="server-ca", purpose=Purpose.SERVER))
    with database.reading() as connection:
        assert authorities.of_server(connection) == server
    with pytest.raises(Conflict):
        add(database, an_authority(name="server-ca-2", purpose=Purpose.SERVER))


def test_the_soonest_expiry_is_that_of_a_site_authority(database: Database) -> None:
    add(database, an_authority(name="server-ca", purpose=Purpose.SERVER, not_after=NOW + 1))
    add(database, an_authority(name="a", not_after=NOW + 30))
    add(database, an_authority(name="b", not_after=NOW + 20))
    with database.reading() as connection:
        assert authorities.soonest_expiry(connection) == NOW + 20


def test_one_that_cannot_sign_any_more_ends_without_anybodys_notice(database: Database) -> None:
    add(database, an_authority(name="a", not_after=NOW + 30))
    add(database, an_authority(name="b", not_after=NOW + 20, sealed_key=b"", origin="west/ca"))
    with database.reading() as connection:
        assert authorities.soonest_expiry(connection) == NOW + 30


def test_where_an_authority_comes_from_is_kept(database: Database) -> None:
    added = add(database, an_authority(origin="west/skupper-site-ca"))
    with database.reading() as connection:
        assert authorities.by_name(connection, "site-ca") == added
        assert added.origin == "west/skupper-site-ca"


def test_the_one_without_a_certificate_is_found_by_its_id_alone(database: Database) -> None:
    added = add(database, an_authority(name="(none)", fingerprint="", certificate_pem=""))
    with database.reading() as connection:
        assert authorities.by_id(connection, added.id) == added
        assert authorities.by_name(connection, "(none)") is None
        assert authorities.every(connection) == []


def test_the_newest_server_certificate_is_the_current_one(database: Database) -> None:
    authority = add(database, an_authority(purpose=Purpose.SERVER))
    old, new = a_server_certificate(), a_server_certificate(created_at=NOW - 5)
    for certificate in (old, new):
        with database.writing() as connection:
            authorities.add_server_certificate(connection, certificate, authority.id)
    with database.reading() as connection:
        assert authorities.current_server_certificate(connection) == new
