import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from app.store.engine import Database
from tests import postgresql
from tests.builders import Stand, a_database, a_stand
from tests.postgresql import Cluster

pytest_plugins = ["tests.kube.fixtures"]

# How fast an example runs says more of the machine than of what is tested.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty, migrated database once; copying it is faster than migrating."""
    directory = tmp_path_factory.mktemp("migrated")
    database = a_database(directory)
    database.close()
    return database.sqlite.path


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Run a PostgreSQL server of our own."""
    with postgresql.running() as made:
        if made is None:
            pytest.skip(postgresql.ABSENT)
        yield made


@pytest.fixture
def postgres_url(cluster: Cluster) -> str:
    """Make a migrated database without rows on PostgreSQL; its tables stay as they are."""
    return cluster.clean()


@pytest.fixture
def sqlite_url(migrated_file: Path, tmp_path: Path) -> str:
    """Make a migrated database without rows on SQLite."""
    path = tmp_path / "grantserver.db"
    shutil.copy(migrated_file, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[Database]:
    """Open that of PostgreSQL."""
    database = Database(postgres_url)
    yield database
    database.close()


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    """Open that of SQLite."""
    database = Database(sqlite_url)
    yield database
    database.close()


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    """Open a migrated database without rows: on SQLite, unless a folder of tests wants both."""
    return sqlite_database


@pytest.fixture
def stand(database: Database, tmp_path: Path) -> Stand:
    """Open a database with the default authorities and what redeems from it."""
    return a_stand(database, tmp_path)
