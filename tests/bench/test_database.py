import os

import psycopg
import pytest

from app.errors import Unavailable
from bench import database
from tests import postgresql
from tests.postgresql import PASSWORD, Cluster


def test_sqlite_is_what_the_server_takes_by_itself() -> None:
    with database.chosen("sqlite", {0}) as settings:
        assert settings == {}
        assert not database.is_postgresql(settings)
        assert database.describe(settings).startswith("SQLite 3.")


def test_a_database_that_is_given_is_taken_when_it_is_empty(cluster: Cluster) -> None:
    empty = cluster.create(template="template0")
    with database.chosen(empty, {0}) as settings:
        assert settings == {database.URL: empty}
        assert database.is_postgresql(settings)
    cluster.drop(empty)
    with (
        pytest.raises(database.NoDatabaseError, match="is in use already") as refused,
        database.chosen(cluster.url("migrated"), {0}),
    ):
        pass
    assert PASSWORD not in str(refused.value)


@pytest.mark.skipif(postgresql.programs() is None, reason=postgresql.ABSENT)
def test_a_postgresql_of_its_own_keeps_what_it_commits_where_it_may_run_and_goes() -> None:
    ours = os.sched_getaffinity(0)
    core = max(ours)
    with database.chosen("postgresql", {core}) as settings:
        assert os.sched_getaffinity(0) == ours
        assert database.is_postgresql(settings)
        assert database.describe(settings).startswith("PostgreSQL ")
        assert "fsync" not in database.describe(settings)
        with psycopg.connect(settings[database.URL]) as connection:
            assert os.sched_getaffinity(connection.info.backend_pid) == {core}
            tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname='public'")
            assert tables.fetchone() == (0,)
    with pytest.raises(Unavailable):
        database.describe(settings)


def test_a_postgresql_that_keeps_nothing_is_named_as_one(cluster: Cluster) -> None:
    described = database.describe({database.URL: cluster.url("postgres")})
    assert described.endswith(", fsync off: no commit is durable there")


def test_without_postgresql_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "programs", lambda: None)
    with (
        pytest.raises(database.NoDatabaseError, match="apt-get install postgresql"),
        database.chosen("postgresql", {0}),
    ):
        pass
