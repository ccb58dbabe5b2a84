"""The fixtures that give an API server, for every test.

`kube` is ours, or a real one where KUBEBUILDER_ASSETS names a folder with kube-apiserver and
etcd. `fake_kube` is always ours: for tests that make it fail.
"""

from collections.abc import Iterator

import pytest

from tests.kube.api_server import FakeKube, Kube
from tests.kube.real import ABSENT, RealKube, assets


@pytest.fixture
def fake_kube() -> Iterator[FakeKube]:
    """An API server of ours, which can be made to fail."""
    made = FakeKube()
    yield made
    made.faults.clear()
    made.stop()


@pytest.fixture(scope="session")
def real_pair() -> Iterator[RealKube]:
    """A real one and its etcd, as long as there are tests."""
    folder = assets()
    if folder is None:
        pytest.skip(ABSENT)
    made = RealKube(folder)
    yield made
    made.stop()


@pytest.fixture
def real_kube(real_pair: RealKube) -> RealKube:
    """A real one without what other tests left in it, except definitions and namespaces."""
    real_pair.clean()
    return real_pair


@pytest.fixture
def kube(request: pytest.FixtureRequest) -> Kube:
    """An API server: a real one if there is one, else ours."""
    made = request.getfixturevalue("fake_kube" if assets() is None else "real_kube")
    assert isinstance(made, Kube)
    return made
