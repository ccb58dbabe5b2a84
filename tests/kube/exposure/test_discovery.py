from pathlib import Path

import pytest

from app.errors import Unavailable
from app.kube.exposure.discovery import discover
from app.kube.exposure.plan import Served
from tests.kube.api_server import FakeKube, Kube
from tests.kube.clients import connected, run


def served(kube: Kube, directory: Path) -> Served:
    async def main() -> Served:
        # Whoever is known may ask, whatever else he may.
        async with connected(kube, directory, token=kube.token("asks", [])) as client:
            return await discover(client)

    return run(main())


def test_a_cluster_without_any_of_it(fake_kube: FakeKube, tmp_path: Path) -> None:
    assert served(fake_kube, tmp_path) == Served()


def test_what_is_served_is_found(kube: Kube, tmp_path: Path) -> None:
    kube.install_routes()
    kube.install_gateways()
    assert served(kube, tmp_path) == Served(routes=True, gateways="v1", tls_routes="v1alpha3")


@pytest.mark.parametrize("version", ["v1", "v1alpha3", "v1alpha2"])
def test_tls_routes_are_found_in_any_of_their_versions(
    fake_kube: FakeKube, tmp_path: Path, version: str
) -> None:
    fake_kube.install_gateways(version)
    assert served(fake_kube, tmp_path) == Served(gateways="v1", tls_routes=version)


def test_a_version_that_we_do_not_know_is_none(fake_kube: FakeKube, tmp_path: Path) -> None:
    fake_kube.install_gateways("v9")
    assert served(fake_kube, tmp_path) == Served(gateways="v1")


def test_a_server_that_is_away_is_not_taken_for_a_no(fake_kube: FakeKube, tmp_path: Path) -> None:
    fake_kube.install_routes()
    fake_kube.faults.fail(503, times=1)
    with pytest.raises(Unavailable):
        served(fake_kube, tmp_path)
    assert served(fake_kube, tmp_path).routes
