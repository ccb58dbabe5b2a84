import pytest
from sqlalchemy import update

from app.domain.sites import Endpoint, Role
from app.errors import Conflict
from app.store import authorities, grants, schema, sites
from app.store.engine import Database
from tests.builders import NOW, a_grant, an_authority, an_endpoint

EDGE = an_endpoint(role=Role.EDGE, port=45671)


@pytest.fixture
def issuer(database: Database) -> int:
    with database.writing() as connection:
        return authorities.add(connection, an_authority())


def put(database: Database, issuer: int, *wanted: Endpoint, name: str = "west") -> None:
    with database.writing() as connection:
        sites.put(connection, name=name, issuer_id=issuer, wanted=wanted, now=NOW)


def test_a_site_comes_back_with_its_endpoints_in_their_order(
    database: Database, issuer: int
) -> None:
    wanted = (EDGE, an_endpoint(), an_endpoint(host="2001:db8::1", group="b"))
    put(database, issuer, *wanted)
    with database.reading() as connection:
        site = sites.by_name(connection, "west")
        assert site is not None
        assert site.endpoints == wanted
        assert (site.issuer, site.revision, site.created_at) == ("site-ca", 1, NOW)
        assert sites.endpoints_of(connection, site.id) == wanted


def test_setting_it_again_replaces_endpoints_and_issuer_and_raises_the_revision(
    database: Database, issuer: int
) -> None:
    put(database, issuer, an_endpoint(), EDGE)
    with database.writing() as connection:
        other = authorities.add(connection, an_authority(name="other-ca"))
    put(database, other, EDGE)
    with database.reading() as connection:
        (site,) = sites.every(connection)
    assert (site.endpoints, site.issuer, site.revision) == ((EDGE,), "other-ca", 2)


def test_a_site_may_be_without_endpoints(database: Database, issuer: int) -> None:
    put(database, issuer, EDGE)
    put(database, issuer)
    with database.reading() as connection:
        site = sites.by_name(connection, "west")
    assert site is not None
    assert site.endpoints == ()


def test_sites_that_stand_for_namespaces_are_told_from_those_made_here(
    database: Database, issuer: int
) -> None:
    for name in ("here", "there"):
        put(database, issuer, EDGE, name=name)
    with database.writing() as connection:
        connection.execute(
            update(schema.sites).where(schema.sites.c.name == "there").values(origin="kubernetes")
        )
        assert sites.of_namespaces(connection) == {"there"}


def test_sites_come_in_the_order_of_their_names_each_with_its_own(
    database: Database, issuer: int
) -> None:
    for name in ("b", "c", "a"):
        put(database, issuer, an_endpoint(host=f"{name}.example"), name=name)
    with database.reading() as connection:
        found = [(site.name, site.endpoints[0].host) for site in sites.every(connection)]
    assert found == [("a", "a.example"), ("b", "b.example"), ("c", "c.example")]


def test_what_is_not_there_is_none(database: Database) -> None:
    with database.reading() as connection:
        assert sites.by_name(connection, "west") is None
        assert sites.every(connection) == []
        assert sites.endpoints_of(connection, 1) == ()
        assert sites.grants_of(connection, "west") == 0
    with database.writing() as connection:
        assert not sites.remove(connection, "west")


def test_an_issuer_that_does_not_exist_conflicts_and_leaves_no_site(database: Database) -> None:
    with pytest.raises(Conflict):
        put(database, 99, EDGE)
    with database.reading() as connection:
        assert sites.every(connection) == []


def test_a_site_is_removed_with_its_endpoints_unless_grants_lead_to_it(
    database: Database, issuer: int
) -> None:
    put(database, issuer, EDGE)
    with database.writing() as connection:
        grants.add(connection, a_grant())
        assert sites.grants_of(connection, "west") == 1
    with pytest.raises(Conflict), database.writing() as connection:
        sites.remove(connection, "west")
    with database.writing() as connection:
        grants.remove(connection, a_grant().id)
        assert sites.remove(connection, "west")
    with database.reading() as connection:
        assert sites.every(connection) == []


def test_a_site_that_is_made_anew_is_not_taken_for_the_one_before(
    database: Database, issuer: int
) -> None:
    """What is kept in memory is kept under id and revision: the pair must never come again."""
    seen = set()
    for _ in range(3):
        put(database, issuer, EDGE)
        with database.writing() as connection:
            site = sites.by_name(connection, "west")
            assert site is not None
            seen.add((site.id, site.revision))
            sites.remove(connection, "west")
    assert len(seen) == 3
