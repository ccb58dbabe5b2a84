import pytest
from sqlalchemy import event, select

from app import ambient
from app.domain.audit import Act
from app.domain.authorities import Purpose
from app.domain.sites import Role
from app.errors import Conflict, GrantServerError, Invalid, Missing
from app.services import audit, authorities, sites
from app.store import audit as audit_rows
from app.store import schema
from app.store import sites as site_rows
from tests.builders import NOW, Stand, an_endpoint
from tests.services.clusters import a_cluster, a_secret, put, sign


def make_authority(stand: Stand, name: str, purpose: Purpose = Purpose.SITE) -> None:
    authorities.create(
        stand.database,
        stand.keyring,
        name=name,
        purpose=purpose,
        actor="cli:test",
        now=NOW,
        random_bytes=ambient.random_bytes,
    )


def test_a_site_is_made_with_the_only_authority_and_its_endpoints_in_stable_order(
    stand: Stand,
) -> None:
    given = [
        an_endpoint(group="b"),
        an_endpoint(group="a", host="one"),
        an_endpoint(group="b"),
        an_endpoint(group="a", host="another", role=Role.EDGE),
    ]
    site = sites.put(
        stand.database, name="west", endpoints=given, issuer=None, actor="cli:test", now=NOW
    )
    assert site.endpoints == (given[1], given[3], given[0])
    assert (site.issuer, site.revision, site.created_at) == ("site-ca", 1, NOW)
    assert sites.show(stand.database, "west") == site
    assert sites.every(stand.database) == [site]
    (entry,) = audit.latest(stand.database, limit=9, target="site/west")
    assert (entry.act, entry.actor, entry.at) == (Act.SITE_SET, "cli:test", NOW)
    assert entry.details == {
        "issuer": "site-ca",
        "endpoints": "a inter-router=one:55671, a edge=another:55671, "
        "b inter-router=west.example:55671",
    }


def test_setting_a_site_again_keeps_its_issuer_unless_another_is_named(stand: Stand) -> None:
    make_authority(stand, "other-ca")
    assert stand.set_site(issuer="other-ca").issuer == "other-ca"
    again = stand.set_site("west", "edge=new.example:1")
    assert (again.issuer, again.revision) == ("other-ca", 2)
    assert [one.host for one in again.endpoints] == ["new.example"]
    assert stand.set_site(issuer="site-ca").issuer == "site-ca"


def test_with_several_authorities_a_new_site_gets_the_default_one(stand: Stand) -> None:
    make_authority(stand, "a-ca")
    assert stand.set_site().issuer == authorities.DEFAULT_SITE_AUTHORITY


def test_the_only_authority_is_taken_whatever_its_name(stand: Stand) -> None:
    with stand.database.writing() as connection:
        connection.execute(schema.authorities.delete().where(schema.authorities.c.name != "x"))
    make_authority(stand, "renamed-ca")
    assert stand.set_site().issuer == "renamed-ca"


def test_without_the_default_one_of_several_must_be_named(stand: Stand) -> None:
    with stand.database.writing() as connection:
        connection.execute(schema.authorities.delete())
    with pytest.raises(Invalid, match="none") as refused:
        stand.set_site()
    assert refused.value.field == "issuer"
    make_authority(stand, "a-ca")
    make_authority(stand, "b-ca")
    with pytest.raises(Invalid, match="a-ca, b-ca"):
        stand.set_site()


@pytest.mark.parametrize("issuer", ["server-ca", "nobody", "SITE-CA"])
def test_an_issuer_that_is_no_site_authority_is_invalid(stand: Stand, issuer: str) -> None:
    with pytest.raises(Invalid) as refused:
        stand.set_site(issuer=issuer)
    assert refused.value.field == "issuer"
    assert sites.every(stand.database) == []
    assert audit.latest(stand.database, limit=9, target="site/west") == []


@pytest.mark.parametrize("name", ["", "West", "a.b", "../x", "a" * 64])
def test_a_site_is_named_by_a_label(stand: Stand, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        stand.set_site(name)
    assert refused.value.field == "site"


def test_a_site_that_does_not_exist_is_missing(stand: Stand) -> None:
    with pytest.raises(Missing, match='no site "west"'):
        sites.show(stand.database, "west")
    with pytest.raises(Missing):
        sites.remove(stand.database, name="west", actor="cli:test", now=NOW)


def test_a_site_is_removed_unless_grants_lead_to_it(stand: Stand) -> None:
    stand.set_site()
    stand.set_site("south")
    stand.make_grant()
    with pytest.raises(Conflict, match='1 grant leads to site "west": remove it'):
        sites.remove(stand.database, name="west", actor="cli:test", now=NOW)
    stand.make_grant(name="another")
    with pytest.raises(Conflict, match='2 grants lead to site "west": remove them'):
        sites.remove(stand.database, name="west", actor="cli:test", now=NOW)
    sites.remove(stand.database, name="south", actor="cli:test", now=NOW + 1)
    assert [site.name for site in sites.every(stand.database)] == ["west"]
    last = audit.latest(stand.database, limit=1)[0]
    assert (last.act, last.target, last.at) == (Act.SITE_REMOVED, "site/south", NOW + 1)


def test_a_site_that_stands_for_a_namespace_is_the_clusters_to_change(stand: Stand) -> None:
    cluster = a_cluster(stand)
    put(cluster, "west", None, ())
    for act in (
        lambda: stand.set_site("west"),
        lambda: sites.remove(stand.database, name="west", actor="cli:test", now=NOW),
    ):
        with pytest.raises(Conflict, match="stands for the namespace"):
            act()
    (site,) = sites.every(stand.database)
    assert (site.origin, site.revision, site.endpoints) == ("kubernetes", 1, ())


def test_the_ca_of_a_secret_signs_for_a_site_of_ours_only_when_it_is_named(stand: Stand) -> None:
    """Another namespace must not change what `site set` does."""
    with stand.database.writing() as connection:
        connection.execute(schema.authorities.delete())
    make_authority(stand, "own-ca")
    cluster = a_cluster(stand)
    signing, gone = (sign(cluster, "west", a_secret()) for _ in range(2))
    put(cluster, "west", signing)
    cluster.forget_unused_keys()
    names = {one.id: one.name for one in authorities.every(stand.database)}
    assert stand.set_site("here").issuer == "own-ca"
    assert stand.set_site("here", issuer=names[signing]).issuer == names[signing]
    with pytest.raises(Invalid, match=names[signing]) as refused:
        stand.set_site("here", issuer=names[gone])
    assert names[gone] not in refused.value.why.partition(":")[2]
    for nobody in ("(none)", "no-issuer"):
        with pytest.raises(Invalid):
            stand.set_site("here", issuer=nobody)


def test_site_and_audit_row_are_one_transaction(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise GrantServerError

    monkeypatch.setattr(audit_rows, "add", fail)
    with pytest.raises(GrantServerError):
        stand.set_site()
    assert sites.every(stand.database) == []


def test_an_act_opens_one_write_transaction(stand: Stand) -> None:
    begun: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("BEGIN IMMEDIATE"):
            begun.append(statement)

    event.listen(stand.database._engine, "before_cursor_execute", note)
    stand.set_site()
    stand.make_grant()
    sites.show(stand.database, "west")
    assert len(begun) == 2


def test_a_site_that_vanishes_while_it_is_set_is_missing(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_rows, "by_name", lambda *_: None)
    with pytest.raises(Missing):
        stand.set_site()
    with stand.database.reading() as connection:
        assert connection.execute(select(schema.sites.c.name)).all()
