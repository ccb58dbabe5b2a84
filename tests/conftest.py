import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.store.engine import Database
from tests.builders import Stand, a_database, a_stand


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty, migrated database once; copying it is faster than migrating."""
    directory = tmp_path_factory.mktemp("migrated")
    database = a_database(directory)
    database.close()
    return database.path


@pytest.fixture
def database(migrated_file: Path, tmp_path: Path) -> Iterator[Database]:
    """Open a migrated database without rows."""
    path = tmp_path / "grantserver.db"
    shutil.copy(migrated_file, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


@pytest.fixture
def stand(database: Database, tmp_path: Path) -> Stand:
    """Open a database with the default authorities and what redeems from it."""
    return a_stand(database, tmp_path)
