from pathlib import Path

import pytest

from app.cli.clusters import _usual, opened_cluster
from app.errors import Invalid
from app.kube import opening
from app.settings import Settings, load
from tests.kube.api_server import FakeKube
from tests.kube.clients import CONFIG_MAPS, config_map, run


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody at home, and no settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("app.cli.clusters.settings", lambda: load({}))


async def namespace_of(kubeconfig: Path | None, namespace: str | None) -> str:
    """Open a cluster and make sure that it is the one of the test."""
    async with opened_cluster(kubeconfig, namespace) as (kube, found):
        await kube.get(CONFIG_MAPS, "one", "default")
        return found


def test_a_cluster_is_found_by_the_file_then_the_settings_then_the_user(
    fake_kube: FakeKube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_kube.create(config_map("one"))
    config = fake_kube.kubeconfig(tmp_path / "config")
    assert run(namespace_of(config, "shop")) == "shop"
    assert run(namespace_of(config, None)) == "default"
    named = fake_kube.kubeconfig(tmp_path / "named", namespace="lab")
    assert run(namespace_of(named, None)) == "lab"
    assert run(namespace_of(named, "shop")) == "shop"

    def with_setting() -> Settings:
        return load({"GRANTSERVER_KUBERNETES_KUBECONFIG": str(config)})

    monkeypatch.setattr("app.cli.clusters.settings", with_setting)
    assert run(namespace_of(None, "shop")) == "shop"
    monkeypatch.setattr("app.cli.clusters.settings", lambda: load({}))
    (tmp_path / ".kube").mkdir()
    config.rename(tmp_path / ".kube" / "config")
    assert run(namespace_of(None, "shop")) == "shop"


def test_without_any_it_is_the_cluster_that_we_are_a_pod_in(
    fake_kube: FakeKube, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_kube.create(config_map("one"))
    found: list[Path | None] = []

    async def open_it(config: Path | None, *, host: str, port: int) -> object:
        found.append(config)
        assert (host, port) == ("kubernetes.default.svc", 443)
        made = fake_kube.kubeconfig(tmp_path / "config")
        return await opening.open_kube(made, host=host, port=port)

    monkeypatch.setattr("app.cli.clusters.open_kube", open_it)
    run(namespace_of(None, "shop"))
    assert found == [None]


def test_a_user_without_a_home_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "expanduser", refuse)
    assert _usual() is None


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A"])
def test_a_namespace_has_the_name_of_one(name: str) -> None:
    with pytest.raises(Invalid):
        run(namespace_of(None, name))
