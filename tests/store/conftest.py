from collections.abc import Iterator
from pathlib import Path

import pytest

from app.store.engine import Database
from tests.builders import a_grant
from tests.postgresql import Cluster
from tests.store.spending import furnish


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    """Run the test on each of the databases."""
    return str(request.param)


@pytest.fixture
def url(request: pytest.FixtureRequest, kind: str) -> str:
    """Where the database of the test is."""
    return str(request.getfixturevalue(f"{kind}_url"))


@pytest.fixture
def database(request: pytest.FixtureRequest, kind: str) -> Database:
    """Open a migrated database without rows."""
    made = request.getfixturevalue(f"{kind}_database")
    assert isinstance(made, Database)
    return made


@pytest.fixture
def sqlite_empty_url(tmp_path: Path) -> str:
    """Name a file that is not there yet."""
    return f"sqlite:///{tmp_path / 'empty.db'}"


@pytest.fixture
def postgres_empty_url(cluster: Cluster) -> Iterator[str]:
    """Make a database without tables."""
    url = cluster.create(template="template0")
    yield url
    cluster.drop(url)


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, kind: str) -> str:
    """Where a database without tables is."""
    return str(request.getfixturevalue(f"{kind}_empty_url"))


@pytest.fixture
def base(database: Database) -> Database:
    furnish(database)
    return database


@pytest.fixture
def seven(database: Database) -> Database:
    furnish(database, a_grant(allowed=7))
    return database
