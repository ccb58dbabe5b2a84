"""How a server is to be reached in its cluster is read from the settings; the rest is played in
`tests/e2e` and `tests/deploy`, by whole servers."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from app import in_cluster, settings
from app.domain.exposure import Way
from app.errors import Misconfigured
from app.home import open_home
from app.in_cluster import InCluster, connecting, exposing
from app.kube.controller import Controller
from app.kube.resources import Key
from app.metrics import Metrics
from app.services.serving import Keeper
from tests.kube.api_server import FakeKube

IN_CLUSTER = {
    "GRANTSERVER_KUBERNETES_NAMESPACES": "west",
    "GRANTSERVER_KUBERNETES_LEASE": "grants/grantserver",
    "GRANTSERVER_EXPOSURE_NAME": "grants/way-in",
}
URL = {"GRANTSERVER_REACH_URL": "https://grants.example"}


def some_metrics() -> Metrics:
    return Metrics(CollectorRegistry(), version="1", count_grants=dict)


def test_without_a_url_the_cluster_says_which_way_in_there_is() -> None:
    found = exposing(settings.load(IN_CLUSTER))
    assert (found.plan.way, found.url) == (Way.AUTO, "")
    assert found.plan.objects == Key("grants", "way-in")


def test_a_url_wins_and_makes_nothing_unless_a_way_in_is_asked_for() -> None:
    found = exposing(settings.load(IN_CLUSTER | URL))
    assert (found.plan.way, found.url) == (Way.URL, "https://grants.example")
    both = exposing(settings.load(IN_CLUSTER | URL | {"GRANTSERVER_EXPOSURE_TYPE": "loadbalancer"}))
    assert (both.plan.way, both.url) == (Way.LOAD_BALANCER, "https://grants.example")


def test_a_gateway_without_a_namespace_is_where_the_objects_are() -> None:
    told = {"GRANTSERVER_EXPOSURE_TYPE": "gateway", "GRANTSERVER_EXPOSURE_HOST": "a.example"}
    found = exposing(settings.load(IN_CLUSTER | told | {"GRANTSERVER_EXPOSURE_GATEWAY": "edge"}))
    assert found.plan.gateway == Key("grants", "edge")
    found = exposing(settings.load(IN_CLUSTER | told | {"GRANTSERVER_EXPOSURE_GATEWAY": "in/edge"}))
    assert found.plan.gateway == Key("in", "edge")


def test_a_certificate_from_files_is_not_written_to_the_cluster() -> None:
    assert exposing(settings.load(IN_CLUSTER)).issued == Key("default", "grantserver-tls")
    files = {
        "GRANTSERVER_TLS_CERTIFICATE_FILE": "/etc/tls/tls.crt",
        "GRANTSERVER_TLS_KEY_FILE": "/etc/tls/tls.key",
    }
    assert exposing(settings.load(IN_CLUSTER | files)).issued is None


def test_a_url_that_was_set_is_set_also_where_it_is_the_one_for_trying_out() -> None:
    told = {"GRANTSERVER_REACH_URL": "https://localhost:9090"}
    found = exposing(settings.load(IN_CLUSTER | told))
    assert (found.url, found.plan.way) == ("https://localhost:9090", Way.URL)


def test_tokens_are_redeemed_where_it_is_asked_for() -> None:
    assert connecting(settings.load(IN_CLUSTER), some_metrics()) is None
    for told, expected in (("east,north", ("east", "north")), ("*", None)):
        environment = {"GRANTSERVER_KUBERNETES_TOKEN_NAMESPACES": told}
        found = connecting(settings.load(environment), metrics := some_metrics())
        assert found is not None
        assert found.namespaces == expected
        assert found.metrics is metrics


@pytest.mark.parametrize(("served", "redeemed"), [("west", ""), ("", "east"), ("west", "east")])
def test_a_way_in_is_made_for_those_who_are_listened_to_only(
    tmp_path: Path, fake_kube: FakeKube, served: str, redeemed: str
) -> None:
    told = {
        "GRANTSERVER_DATA_DIR": str(tmp_path / "data"),
        "GRANTSERVER_KUBERNETES_KUBECONFIG": str(fake_kube.kubeconfig(tmp_path / "config")),
        "GRANTSERVER_KUBERNETES_NAMESPACES": served,
        "GRANTSERVER_KUBERNETES_TOKEN_NAMESPACES": redeemed,
    }
    home = open_home(settings.load(told))

    async def controller() -> Controller:
        cluster = await InCluster.open(home, _no_keeper(), some_metrics())
        try:
            return cluster._controller()
        finally:
            await cluster._kube.close()

    try:
        made = asyncio.run(controller())
    finally:
        home.database.close()
    assert made.namespaces == ((served,) if served else ())
    assert (made.exposing is not None) == bool(served)
    assert (made.connecting is not None) == bool(redeemed)


def test_a_kubeconfig_that_is_none_is_said_before_the_server_starts(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("nothing: here")
    told = {
        "GRANTSERVER_DATA_DIR": str(tmp_path / "data"),
        "GRANTSERVER_KUBERNETES_KUBECONFIG": str(config),
    }
    home = open_home(settings.load(IN_CLUSTER | told))
    try:
        with pytest.raises(Misconfigured, match="Kubernetes: the credentials cannot be used"):
            asyncio.run(InCluster.open(home, _no_keeper(), some_metrics()))
    finally:
        home.database.close()


@pytest.mark.parametrize("error", [None, KeyError("spec")])
def test_a_controller_that_ends_is_begun_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fake_kube: FakeKube,
    error: Exception | None,
) -> None:
    begun: list[None] = []
    again = asyncio.Event()

    async def run(_: Controller) -> None:
        begun.append(None)
        if len(begun) > 1:
            again.set()
            await asyncio.Event().wait()
        if error is not None:
            raise error

    monkeypatch.setattr(Controller, "run", run)
    monkeypatch.setattr(in_cluster, "_PAUSE_SECONDS", 0.01)
    told = {
        "GRANTSERVER_DATA_DIR": str(tmp_path / "data"),
        "GRANTSERVER_KUBERNETES_KUBECONFIG": str(fake_kube.kubeconfig(tmp_path / "config")),
    }
    home = open_home(settings.load(IN_CLUSTER | told))

    async def main() -> None:
        task = asyncio.create_task((await InCluster.open(home, _no_keeper(), some_metrics())).run())
        async with asyncio.timeout(20):
            await again.wait()
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        asyncio.run(main())
    finally:
        home.database.close()
    assert len(begun) == 2
    assert "the controller has" in caplog.text


def _no_keeper() -> Keeper:
    return object.__new__(Keeper)
