import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app import ambient
from app.errors import Conflict
from app.kube.client import Kube as Client
from app.kube.exposure.keeping import AGAIN_SECONDS, Keeping, Outcome
from app.kube.exposure.loadbalancer import wanted
from app.kube.exposure.objects import MANAGER, kept
from app.kube.exposure.plan import MARK, Served
from app.kube.recorder import Recorder
from app.kube.resources import SERVICES, Object
from tests.kube.api_server import FakeKube, Kube
from tests.kube.clients import LOG, connected, run
from tests.kube.exposure.scene import INSTALLATION, NAME, OBJECTS, PLACE, a_plan

Play = Callable[[Keeping, Client], Awaitable[Any]]


@pytest.fixture
def place(kube: Kube) -> Kube:
    kube.namespace(PLACE)
    return kube


@pytest.fixture
def fake_place(fake_kube: FakeKube) -> FakeKube:
    fake_kube.namespace(PLACE)
    return fake_kube


def body(**plan: Any) -> Object:
    (one,) = wanted(a_plan(**plan), Served())
    return one.body


class Still:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def playing(
    kube: Kube, directory: Path, play: Play, *, monotonic: Callable[[], float] = ambient.monotonic
) -> Any:
    async def main() -> Any:
        async with connected(kube, directory) as client:
            recorder = Recorder(
                client,
                component="test",
                instance="test",
                clock=ambient.utc_instant,
                random_bytes=ambient.random_bytes,
                log=LOG,
            )
            keeping = Keeping(client, INSTALLATION, recorder, monotonic=monotonic, log=LOG)
            return await play(keeping, client)

    return run(main())


def test_what_is_not_there_is_made_and_then_as_wanted(place: Kube, tmp_path: Path) -> None:
    async def play(keeping: Keeping, client: Client) -> None:
        made = await keeping.keep(SERVICES, None, body())
        assert made.found is not None
        assert made.problem == ""
        again = await keeping.keep(SERVICES, made.found, body())
        assert again.found == made.found
        # Nor is it written by one who has not seen it yet.
        version = (await client.get(SERVICES, NAME, PLACE))["metadata"]["resourceVersion"]
        blind = await keeping.keep(SERVICES, None, body())
        assert blind.found is not None
        assert blind.found["metadata"]["resourceVersion"] == version

    playing(place, tmp_path, play)


def test_what_is_made_meanwhile_by_somebody_else_is_a_conflict(
    fake_place: FakeKube, tmp_path: Path
) -> None:
    """Somebody was faster than between our look and our write."""

    async def play(keeping: Keeping, _: Client) -> None:
        frozen = fake_place.faults.freeze(verb="patch", resource="services")
        task = asyncio.create_task(keeping.keep(SERVICES, None, body()))
        await asyncio.to_thread(frozen.wait, hits=1)
        fake_place.create(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": NAME, "namespace": PLACE},
                "spec": {"selector": {"a": "b"}, "ports": [{"port": 9090, "name": "theirs"}]},
            }
        )
        frozen.release()
        with pytest.raises(Conflict):
            await task
        outcome = await keeping.keep(SERVICES, None, body())
        assert outcome.found is None
        assert outcome.again == AGAIN_SECONDS

    playing(fake_place, tmp_path, play)
    spec = fake_place.get("Service", NAME, PLACE)["spec"]
    assert (spec["type"], spec["selector"]) == ("ClusterIP", {"a": "b"})


def test_what_took_the_place_of_ours_is_not_written(place: Kube, tmp_path: Path) -> None:
    async def play(keeping: Keeping, _: Client) -> None:
        ours = await keeping.keep(SERVICES, None, body())
        place.delete("Service", NAME, PLACE)
        theirs = place.create(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": NAME, "namespace": PLACE},
                "spec": {"ports": [{"port": 80}]},
            }
        )
        with pytest.raises(Conflict):  # what we have seen is not what is there
            await keeping.keep(SERVICES, ours.found, body(port=443))
        assert ours.found is not None
        with pytest.raises(Conflict):
            await keeping.remove(SERVICES, ours.found)
        assert place.get("Service", NAME, PLACE) == theirs

    playing(place, tmp_path, play)


def test_only_what_is_ours_is_cleaned_away(place: Kube, tmp_path: Path) -> None:
    def a_service(name: str, installation: str = INSTALLATION) -> Object:
        metadata = {"name": name, "namespace": PLACE, "labels": {MARK: installation}}
        about = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
        return {**about, "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}}

    for name in ("one", "two", "stays"):
        place.apply(a_service(name), manager=MANAGER)
    place.apply(a_service("of-another-installation", "another"), manager=MANAGER)
    place.apply(a_service("of-another-manager"), manager="kubectl")
    place.create(a_service("copied"))

    async def play(keeping: Keeping, _: Client) -> None:
        await keeping.clean(SERVICES, PLACE, frozenset({"stays"}))
        await keeping.clean(SERVICES, PLACE, frozenset({"stays"}))

    playing(place, tmp_path, play)
    assert {one["metadata"]["name"] for one in place.find("Service", PLACE)} == {
        "stays",
        "of-another-installation",
        "of-another-manager",
        "copied",
    }


def test_an_object_that_is_fought_about_is_written_ever_more_slowly(
    fake_place: FakeKube, tmp_path: Path
) -> None:
    clock = Still()

    async def play(keeping: Keeping, client: Client) -> None:
        outcome = Outcome()
        for times in range(100):
            change = {"spec": {"externalTrafficPolicy": "Cluster"}}
            if times:
                fake_place.patch("Service", NAME, change, PLACE)
            seen = kept(await client.get(SERVICES, NAME, PLACE)) if times else None
            outcome = await keeping.keep(SERVICES, seen, body())
            if outcome.again is not None:
                break
        assert outcome.again is not None
        assert times == 20
        assert outcome.found is not None  # it leads to us as it is
        assert 0 < outcome.again <= 5
        clock.now += outcome.again
        assert (await keeping.keep(SERVICES, outcome.found, body())).again is None

    playing(fake_place, tmp_path, play, monotonic=clock)


def test_what_is_refused_is_not_sent_again_until_something_else_is_wanted(
    fake_place: FakeKube, tmp_path: Path
) -> None:
    async def play(keeping: Keeping, _: Client) -> None:
        good = await keeping.keep(SERVICES, None, body())
        fake_place.requests.clear()
        bad = body(annotations={"a": "b"}, load_balancer_ip="192.0.2.1")
        bad["spec"]["externalTrafficPolicy"] = "Sideways"
        refused = await keeping.keep(SERVICES, good.found, bad)
        assert refused.found == good.found
        assert refused.problem.startswith(f"Service {OBJECTS} was not accepted: ")
        assert (await keeping.keep(SERVICES, good.found, bad)).problem == ""
        assert len(fake_place.requests.writes()) == 1
        better = await keeping.keep(SERVICES, good.found, body(annotations={"a": "b"}))
        assert better.found is not None
        assert better.found["metadata"]["annotations"] == {"a": "b"}

    playing(fake_place, tmp_path, play)


def test_what_is_refused_is_tried_again_when_the_object_changes_or_after_a_while(
    fake_place: FakeKube, tmp_path: Path
) -> None:
    clock = Still()

    async def play(keeping: Keeping, _: Client) -> None:
        good = await keeping.keep(SERVICES, None, body())
        assert good.found is not None
        fake_place.requests.clear()
        bad = body()
        bad["spec"]["externalTrafficPolicy"] = "Sideways"

        async def tried(found: Object | None) -> bool:
            before = len(fake_place.requests.writes())
            again = (await keeping.keep(SERVICES, found, bad)).again
            assert again is not None
            assert again > 0
            return len(fake_place.requests.writes()) > before

        assert await tried(good.found)
        assert not await tried(good.found)
        # By its status alone it is the same object still; by its spec it is not.
        assert not await tried({**good.found, "status": {"loadBalancer": {}}})
        assert await tried({**good.found, "spec": {**good.found["spec"], "selector": {"a": "b"}}})
        assert await tried(good.found)
        clock.now += 10 * AGAIN_SECONDS
        assert await tried(good.found)
        assert not await tried(good.found)

    playing(fake_place, tmp_path, play, monotonic=clock)
