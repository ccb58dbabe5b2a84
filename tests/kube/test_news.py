from app.kube.news import News
from app.kube.resources import Key
from app.services import grants
from app.services.cluster import Cluster
from app.store import schema
from tests.builders import GRANT_ID, NOW, Stand
from tests.services.clusters import a_cluster, a_secret, admit, another, put, redeem, sign

OTHER_ID = "00000000-0000-4000-8000-000000000002"
OURS, OTHER = Key("west", "to-west"), Key("west", "other")


def furnished(stand: Stand) -> Cluster:
    """Two AccessGrants, and a grant that was made here."""
    west = a_cluster(stand)
    put(west, "west", sign(west, "west", a_secret()))
    admit(west)
    admit(west, uid=OTHER_ID, name="other")
    return west


def test_what_was_there_before_is_no_news(stand: Stand) -> None:
    news = News(furnished(stand))
    redeem(stand)
    assert news.read() == set()
    news.begin()
    assert news.read() == set()


def test_each_redemption_and_revocation_is_told_once(stand: Stand) -> None:
    news = News(furnished(stand))
    news.begin()
    redeem(stand)
    assert news.read() == {OURS}
    assert news.read() == set()
    redeem(stand, subject=another(1))
    grants.revoke(stand.database, "other", actor="cli:test", now=NOW)
    assert news.read() == {OURS, OTHER}
    for _ in range(3):
        news.begin()
        assert news.read() == set()


def test_what_comes_to_light_behind_later_entries_is_told_too(stand: Stand) -> None:
    """On PostgreSQL a transaction that takes longer may have the lower number."""
    west = furnished(stand)
    news = News(west)
    news.begin()
    first = west.newest_entry()
    entry = {"at": NOW, "act": "grant.redeemed", "actor": "site:east", "details": "{}"}
    with stand.database.writing() as connection:
        later = {"id": first + 2, "target": f"grant/{OTHER_ID}"}
        connection.execute(schema.audit.insert().values(**entry, **later))
    news.begin()
    assert news.read() == {OTHER}
    with stand.database.writing() as connection:
        earlier = {"id": first + 1, "target": f"grant/{GRANT_ID}"}
        connection.execute(schema.audit.insert().values(**entry, **earlier))
    assert news.read() == {OURS}


def test_an_older_state_of_the_database_is_read_from_its_own_end(stand: Stand) -> None:
    news = News(furnished(stand))
    redeem(stand)
    news.begin()
    news.begin()
    with stand.database.writing() as connection:
        connection.execute(schema.audit.delete().where(schema.audit.c.id > 2))
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("UPDATE sqlite_sequence SET seq = 2 WHERE name = 'audit'")
    news.begin()
    redeem(stand, subject=another(1))
    assert news.read() == {OURS}


def test_what_is_no_access_grants_is_passed_over(stand: Stand) -> None:
    west = furnished(stand)
    news = News(west)
    news.begin()
    put(west, "elsewhere", None)
    west.revoke("west", "to-west")
    assert news.read() == set()
