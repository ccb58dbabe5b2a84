from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import Stand
from tests.kube.api_server import FakeKube, Kube
from tests.kube.exposure.scene import Scene, set_up


@pytest.fixture
def scene(kube: Kube, stand: Stand, tmp_path: Path) -> Iterator[Scene]:
    """A cluster in which nothing is exposed yet, on a real API server if there is one."""
    with set_up(kube, stand, tmp_path) as made:
        yield made


@pytest.fixture
def fake_scene(fake_kube: FakeKube, stand: Stand, tmp_path: Path) -> Iterator[Scene]:
    """The same on the API server of ours, for tests that make it fail or count its requests."""
    with set_up(fake_kube, stand, tmp_path) as made:
        yield made
