import asyncio
import os
from pathlib import Path

import pytest

from app.errors import Misconfigured
from app.kube.connection import service_account
from app.kube.opening import identity, object_key, open_kube
from app.kube.resources import Key
from tests.kube.api_server import Kube
from tests.kube.clients import CONFIG_MAPS, config_map


def test_a_kubeconfig_says_how_to_reach_the_api_server(kube: Kube, tmp_path: Path) -> None:
    kube.create(config_map("one", a="1"))
    config = kube.kubeconfig(tmp_path / "config")

    async def main() -> None:
        opened = await open_kube(config, host="nowhere.example", port=1)
        found = await opened.get(CONFIG_MAPS, "one", "default")
        await opened.close()
        assert found["data"] == {"a": "1"}

    asyncio.run(main())


def test_without_one_it_is_where_a_pod_finds_it(
    kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.create(config_map("one", a="1"))
    account = kube.service_account(tmp_path / "account", kube.token("pod"))
    port = int(kube.url.rpartition(":")[2])
    monkeypatch.setattr(
        "app.kube.opening.service_account",
        lambda *, host, port: service_account(host=host, port=port, directory=account),
    )

    async def main() -> None:
        opened = await open_kube(None, host="127.0.0.1", port=port)
        found = await opened.get(CONFIG_MAPS, "one", "default")
        await opened.close()
        assert found["data"] == {"a": "1"}

    asyncio.run(main())


def test_a_kubeconfig_that_is_none_stops_the_start(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("clusters: nothing")

    async def main() -> None:
        with pytest.raises(Misconfigured, match="Kubernetes"):
            await open_kube(config, host="127.0.0.1", port=1)

    asyncio.run(main())


def test_nothing_is_asked_before_it_is_needed(tmp_path: Path, kube: Kube) -> None:
    config = kube.kubeconfig(tmp_path / "config")
    kube.requests.clear()

    async def main() -> None:
        await (await open_kube(config, host="", port=1)).close()

    asyncio.run(main())
    assert len(kube.requests) == 0


@pytest.mark.parametrize(
    ("text", "inside", "key"),
    [
        ("grantserver", "skupper\n", Key("skupper", "grantserver")),
        ("grantserver", "", Key("default", "grantserver")),
        ("grantserver", None, Key("default", "grantserver")),
        ("north/leader", "skupper", Key("north", "leader")),
    ],
)
def test_a_lease_without_a_namespace_is_in_that_of_the_pod(
    text: str, inside: str | None, key: Key, tmp_path: Path
) -> None:
    if inside is not None:
        (tmp_path / "namespace").write_text(inside)
    assert object_key(text, tmp_path) == key


def test_a_namespace_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_bytes(b"\xff\xfe")
    assert object_key("grantserver", tmp_path) == Key("default", "grantserver")


def test_every_process_has_a_name_of_its_own() -> None:
    def random_bytes(count: int) -> bytes:
        return os.urandom(count)  # noqa: TID251 - what a program is given

    first, second = (identity("pod-0", random_bytes) for _ in range(2))
    assert first != second
    for one in (first, second):
        host, _, drawn = one.partition("_")
        assert host == "pod-0"
        assert len(drawn) == 8
