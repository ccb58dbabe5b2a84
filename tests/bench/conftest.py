from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """Name an installation that there is not yet, by its settings."""
    settings = {"GRANTSERVER_DATA_DIR": str(tmp_path / "data")}
    if request.param == "sqlite":
        yield settings
        return
    cluster = request.getfixturevalue("cluster")
    url: str = cluster.create(template="template0")
    yield settings | {"GRANTSERVER_DATABASE_URL": url}
    cluster.drop(url)
