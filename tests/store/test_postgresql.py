import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import Connection, select, text

from app.errors import Broken, Conflict, Invalid, Misconfigured, Unavailable
from app.store import engine, postgresql, schema
from app.store import sites as site_rows
from app.store.engine import Database, open_database
from app.store.postgresql import Postgresql
from tests.postgresql import PASSWORD, USER, Cluster

SECRET = "Hunter2"
assert SECRET in PASSWORD


@pytest.fixture
def database(postgres_database: Database) -> Database:
    return postgres_database


def show(connection: Connection, name: str) -> str:
    return str(connection.exec_driver_sql(f"SHOW {name}").scalar_one())


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


# Connections.


def test_every_connection_has_its_limits(database: Database) -> None:
    with database.reading() as one, database.writing() as other:
        for connection in (one, other):
            for name, value in (
                ("statement_timeout", "15s"),
                ("lock_timeout", "5s"),
                ("idle_in_transaction_session_timeout", "20s"),
                ("application_name", "grantserver"),
                ("client_encoding", "UTF8"),
            ):
                assert show(connection, name) == value
        assert show(one, "transaction_isolation") == "repeatable read"
        assert show(other, "transaction_isolation") == "read committed"


def test_a_connection_that_could_not_be_had_was_never_in_use(
    database: Database, cluster: Cluster
) -> None:
    used: list[int] = []
    database.observe(on_error=lambda: None, on_use=used.append)
    with database.reading() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
    cluster.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    cluster.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    for _ in range(3):
        with pytest.raises(Unavailable), database.reading() as connection:
            connection.exec_driver_sql("SELECT 1")
    cluster.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert sum(used) == 0
    with database.reading():
        assert sum(used) == 1


def test_what_the_url_says_comes_before_what_we_would_choose(cluster: Cluster) -> None:
    url = cluster.url("migrated")
    database = Database(f"{url}?application_name=mine&options=-cstatement_timeout%3D3s")
    with database.reading() as connection:
        assert show(connection, "application_name") == "mine"
        assert show(connection, "statement_timeout") == "3s"
        assert show(connection, "lock_timeout") == "5s"
    database.close()


def test_a_commit_is_durable_whatever_the_server_was_told(cluster: Cluster) -> None:
    database = Database(f"{cluster.url('migrated')}?options=-csynchronous_commit%3Doff")
    with database.writing() as connection:
        assert show(connection, "synchronous_commit") == "on"
    database.close()


def test_the_pool_is_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "_POOL_SECONDS", 0.05)
    database = Database(cluster.url("migrated"), connections=2)
    with (
        database.reading(),
        database.reading(),
        pytest.raises(Unavailable),
        database.reading(),
    ):
        pytest.fail("a third connection of two")
    with database.reading():
        pass
    database.close()


def test_both_ways_to_write_the_scheme_are_taken(cluster: Cluster) -> None:
    database = open_database(cluster.url("migrated").replace("postgresql://", "postgres://"))
    assert database.revision() == schema.REVISION
    database.close()


def test_a_connection_that_was_lost_is_replaced(database: Database, cluster: Cluster) -> None:
    with database.reading() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    cluster.execute(f"SELECT pg_terminate_backend({pid}, 10000)")
    with database.writing() as connection:
        connection.execute(text("UPDATE heartbeat SET at = 3"))


def test_a_server_that_was_stopped_is_unavailable_and_found_again(
    database: Database, cluster: Cluster
) -> None:
    assert database.revision() == schema.REVISION
    cluster.stop()
    try:
        with pytest.raises(Unavailable):
            database.revision()
        with pytest.raises(Unavailable):
            database.check_in_place()
    finally:
        cluster.start()
    assert database.revision() == schema.REVISION
    database.check_in_place()


def test_a_connection_that_breaks_in_a_transaction_is_unavailable(
    database: Database, cluster: Cluster
) -> None:
    def write() -> None:
        with database.writing() as connection:
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            cluster.execute(f"SELECT pg_terminate_backend({pid}, 10000)")
            connection.execute(text("UPDATE heartbeat SET at = 3"))

    with pytest.raises(Unavailable):
        write()
    with database.reading() as connection:
        assert connection.execute(select(schema.heartbeat.c.at)).scalar() == 0


# Transactions.


def test_writers_come_one_after_the_other_so_what_was_read_stays_true(database: Database) -> None:
    together = threading.Barrier(4)

    def count_up(_: int) -> None:
        together.wait()
        for _turn in range(10):
            with database.writing() as connection:
                now = connection.execute(select(schema.heartbeat.c.at)).scalar_one()
                connection.execute(text("UPDATE heartbeat SET at = :at"), {"at": now + 1})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count_up, range(4)))
    with database.reading() as connection:
        assert connection.execute(select(schema.heartbeat.c.at)).scalar_one() == 40


def test_a_writer_who_waits_too_long_is_sent_away(
    database: Database, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_SESSION", {"lock_timeout": "50ms"})
    other = Database(postgres_url)
    with database.writing():
        with pytest.raises(Unavailable, match="lock timeout"), other.writing():
            pytest.fail("two writers at once")
        with other.reading() as connection:
            connection.execute(select(schema.heartbeat.c.at)).one()
    other.close()


def test_a_statement_that_takes_too_long_is_unavailable(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_SESSION", {"statement_timeout": "50ms"})
    database = Database(postgres_url)
    with pytest.raises(Unavailable, match="statement timeout"), database.reading() as connection:
        connection.execute(text("SELECT pg_sleep(60)"))
    with database.reading("examining") as connection:
        assert show(connection, "statement_timeout") == "0"
    with database.reading() as connection:
        assert show(connection, "statement_timeout") == "50ms"
    database.close()


def test_an_upgrade_waits_for_that_of_another_process_and_finds_it_done(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes, and without keeping others from writing meanwhile."""
    monkeypatch.setattr(postgresql, "_SESSION", {"lock_timeout": "50ms"})
    url = cluster.create()
    database, other = Database(url), Database(url)
    with database._changing("upgrading") as connection:
        assert show(connection, "statement_timeout") == "0"
        assert show(connection, "lock_timeout") == "5s"
        with ThreadPoolExecutor(1) as pool:
            upgrade = pool.submit(other.upgrade)
            query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"
            while cluster.execute(query) == [(0,)]:
                assert not upgrade.done()
            with database.writing() as writing:
                writing.execute(text("UPDATE heartbeat SET at = 1"))
            assert not upgrade.done()
            connection.rollback()
            upgrade.result(30)
    assert other.revision() == schema.REVISION
    database.close()
    other.close()
    cluster.drop(url)


def test_a_read_only_server_is_unavailable(cluster: Cluster) -> None:
    database = Database(f"{cluster.url('migrated')}?options=-cdefault_transaction_read_only%3Don")
    with pytest.raises(Unavailable, match="read-only"), database.writing() as connection:
        connection.execute(text("UPDATE heartbeat SET at = 1"))
    database.close()


# Mistakes of whoever wrote the URL.


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (PASSWORD, f"{SECRET}x", "password authentication failed"),
        (f":{PASSWORD}@", "@", "no password supplied"),
        (f"{USER}:", "nobody:", "authentication failed"),
        ("/migrated", "/nowhere", 'database "nowhere" does not exist'),
        ("/migrated", "/migrated?sslmode=require", "SSL"),
        ("/migrated", "/migrated?sslmode=maybe", "sslmode"),
        (f":{PASSWORD}@", f":{PASSWORD}@[", "libpq cannot read it"),
        ("/migrated", "/migrated?pasword=Hunter2", "libpq cannot read it"),
        ("/migrated", "/migrated?options=-cno_such%3D1", "no_such"),
    ],
)
def test_a_url_that_cannot_be_right_is_told_without_its_password(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, old: str, new: str, told: str
) -> None:
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    url = cluster.url("migrated").replace(old, new)
    assert url != cluster.url("migrated")
    with pytest.raises((Misconfigured, Unavailable), match=told) as caught:
        open_database(url)
    if "no_such" not in told:
        assert isinstance(caught.value, Misconfigured)
    assert SECRET not in shown(caught.value)


def test_a_server_that_is_not_there_is_unavailable_without_the_password() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1") as caught:
        open_database(f"postgresql://{USER}:{PASSWORD}@127.0.0.1:1/nothing")
    assert SECRET not in shown(caught.value)


def test_a_user_who_may_not_make_tables_is_told_what_mends_it(cluster: Cluster) -> None:
    url = cluster.create(template="template0")
    name = url.rpartition("/")[2]
    cluster.execute(f"CREATE USER {name} PASSWORD '{PASSWORD}'")
    with pytest.raises(Misconfigured, match="make its user the owner of the database"):
        open_database(url.replace(f"//{USER}:", f"//{name}:"))
    cluster.drop(url)
    cluster.execute(f"DROP USER {name}")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://u:Hunter2@db.example:5433/gs", "postgresql://db.example:5433/gs"),
        ("postgresql://u:Hunter2@db.example/gs?sslmode=require", "postgresql://db.example/gs"),
        ("postgres://u:Hunter2@a:1,b:2/gs", "postgresql://a:1,b:2/gs"),
        ("postgresql://u:Hunter2@a,b/gs", "postgresql://a,b/gs"),
        ("postgresql://u:Hunter2@[::1]:5/gs", "postgresql://[::1]:5/gs"),
        ("postgresql:///gs?host=/run/pg&port=7&password=Hunter2", "postgresql:///run/pg:7/gs"),
        ("postgresql:///gs", "postgresql:///gs"),
    ],
)
def test_a_database_is_named_without_user_and_password(url: str, name: str) -> None:
    database = Database(url)
    assert database.name == name
    assert database.private_paths() == ()
    database.close()


# Mistakes of ours.


def test_of_a_row_that_is_refused_nothing_is_shown(database: Database) -> None:
    statement = text("INSERT INTO heartbeat (id, at) VALUES (1, 7771777)")
    with pytest.raises(Conflict, match="pk_heartbeat") as caught, database.writing() as connection:
        connection.execute(statement)
    assert "DETAIL" not in shown(caught.value)
    with pytest.raises(Conflict, match="one_row") as caught, database.writing() as connection:
        connection.execute(text("INSERT INTO heartbeat (id, at) VALUES (2, 7771777)"))
    assert "Failing row" not in shown(caught.value)


def test_a_value_that_does_not_fit_is_a_fault_of_ours(database: Database) -> None:
    with pytest.raises(Broken) as caught, database.writing() as connection:
        connection.execute(text("UPDATE heartbeat SET at = :at"), {"at": 2**70})
    assert str(2**70) not in shown(caught.value)


def test_a_text_with_a_nul_is_invalid(database: Database) -> None:
    with pytest.raises(Invalid), database.reading() as connection:
        site_rows.by_name(connection, "west\x00")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (psycopg.errors.DiskFull("x"), Unavailable),
        (psycopg.errors.TooManyConnections("x"), Unavailable),
        (psycopg.errors.AdminShutdown("x"), Unavailable),
        (psycopg.errors.CannotConnectNow("x"), Unavailable),
        (psycopg.errors.DeadlockDetected("x"), Unavailable),
        (psycopg.errors.InvalidPassword("x"), Misconfigured),
        (psycopg.errors.InvalidCatalogName("x"), Misconfigured),
        (psycopg.OperationalError("connection refused"), Unavailable),
        (psycopg.OperationalError(""), Unavailable),
    ],
)
def test_what_an_error_of_the_server_means(error: psycopg.Error, told: type[Exception]) -> None:
    backend = Postgresql("postgresql:///gs", engine.CONNECTIONS)
    assert isinstance(backend.explained(error), told)
    assert backend.explained(KeyError("x")) is None


def test_what_hangs_on_the_server_fails_when_the_database_is_abandoned(cluster: Cluster) -> None:
    database = Database(cluster.url("migrated"))

    def hang() -> None:
        with database.reading() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(14)")

    asleep = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(14)'"
    with ThreadPoolExecutor() as threads:
        hanging = threads.submit(hang)
        while not cluster.execute(asleep):
            assert not hanging.done()
        database.abandon()
        with pytest.raises(Unavailable):
            hanging.result(timeout=10)
    with pytest.raises(Unavailable, match="the server is stopping"), database.reading():
        pass
    database.close()
