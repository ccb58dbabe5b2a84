import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app import ambient
from app.domain.limits import Allowance
from app.kube import recorder as app_recorder
from app.kube.backoff import Backoff
from app.kube.recorder import Importance, Recorder
from app.kube.resources import ACCESS_GRANTS, Object
from tests.kube import api_server
from tests.kube.api_server import FakeKube
from tests.kube.clients import LOG, QUICK, connected, run, running, until

MUCH = Allowance(burst=1_000_000, interval=1)
GRANT: Object = {"metadata": {"name": "grant", "namespace": "default", "uid": "1-2-3"}}


@pytest.fixture
def server(kube: api_server.Kube) -> api_server.Kube:
    """A real API server if there is one, else ours."""
    return kube


@asynccontextmanager
async def recording(
    server: api_server.Kube, directory: Path, *, seconds: float = 10.0, **more: Any
) -> AsyncIterator[Recorder]:
    """A recorder that is running."""
    given: dict[str, Any] = {
        "allowance": MUCH,
        "backoff": QUICK,
        "clock": lambda: 1_795_000_000.5,
        "random_bytes": ambient.random_bytes,
    } | more
    async with connected(server, directory, seconds=seconds) as kube:
        recorder = Recorder(kube, component="grantserver", instance="pod-1", log=LOG, **given)
        async with running(recorder.run()) as task:
            yield recorder
            assert not task.done()


def tried(recorder: Recorder) -> bool:
    """Whether something waits that was tried already."""
    return any(times.tries for line in recorder._waiting.values() for times in line.values())


def events(server: api_server.Kube) -> dict[str, Object]:
    return {one["message"]: one for one in server.find("Event")}


def test_an_event_says_what_happened_to_what(server: api_server.Kube, tmp_path: Path) -> None:
    async def main() -> None:
        async with recording(server, tmp_path) as recorder:
            recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "by east")
            await until(lambda: events(server))

    run(main())
    event = events(server)["by east"]
    assert event["metadata"]["name"].startswith("grant.")
    del event["metadata"]
    assert event.pop("eventTime", None) is None
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": {
            "apiVersion": "skupper.io/v2alpha1",
            "kind": "AccessGrant",
            "name": "grant",
            "namespace": "default",
            "uid": "1-2-3",
        },
        "type": "Normal",
        "reason": "Redeemed",
        "message": "by east",
        "count": 1,
        "firstTimestamp": "2026-11-18T11:06:40Z",
        "lastTimestamp": "2026-11-18T11:06:40Z",
        "source": {"component": "grantserver"},
        "reportingComponent": "grantserver",
        "reportingInstance": "pod-1",
    }


def test_what_is_told_again_is_counted(server: api_server.Kube, tmp_path: Path) -> None:
    now = [1_795_000_000.0]

    async def main() -> None:
        async with recording(server, tmp_path, clock=lambda: now[0]) as recorder:
            recorder.tell(ACCESS_GRANTS, GRANT, "Refused", "x", importance=Importance.WARNING)
            await until(lambda: events(server))
            now[0] += 60
            recorder.tell(ACCESS_GRANTS, GRANT, "Refused", "x", importance=Importance.WARNING)
            recorder.tell(ACCESS_GRANTS, GRANT, "Refused", "x", importance=Importance.WARNING)
            await until(lambda: events(server)["x"]["count"] == 3)
            recorder.tell(ACCESS_GRANTS, GRANT, "Refused", "x", importance=Importance.WARNING)
            await until(lambda: events(server)["x"]["count"] == 4)
            recorder.tell(ACCESS_GRANTS, GRANT, "Refused", "x")
            recorder.tell(ACCESS_GRANTS, GRANT, "Refused", "y")
            await until(lambda: len(server.find("Event")) == 3)

    run(main())
    event = next(one for one in server.find("Event") if one["count"] == 4)
    assert event["type"] == "Warning"
    assert event["firstTimestamp"] == "2026-11-18T11:06:40Z"
    assert event["lastTimestamp"] == "2026-11-18T11:07:40Z"


def test_an_event_that_the_api_server_has_forgotten_is_made_anew(
    server: api_server.Kube, tmp_path: Path
) -> None:
    async def main() -> None:
        async with recording(server, tmp_path) as recorder:
            recorder.tell(ACCESS_GRANTS, GRANT, "Expired", "x")
            await until(lambda: events(server))
            server.delete("Event", events(server)["x"]["metadata"]["name"])
            recorder.tell(ACCESS_GRANTS, GRANT, "Expired", "x")
            await until(lambda: events(server))
            assert events(server)["x"]["count"] == 1

    run(main())


def test_an_object_that_is_told_about_without_end_falls_silent(
    server: api_server.Kube, tmp_path: Path
) -> None:
    now = [1_795_000_000.0]
    other = {"metadata": GRANT["metadata"] | {"uid": "4-5-6"}}

    async def main() -> None:
        async with recording(
            server,
            tmp_path,
            clock=lambda: now[0],
            allowance=Allowance(burst=3, interval=60_000),
        ) as recorder:
            for number in range(10):
                recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", f"by {number}")
            recorder.tell(ACCESS_GRANTS, other, "Redeemed", "by other")
            await until(lambda: "by other" in events(server))
            now[0] += 60
            for number in range(10, 20):
                recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", f"by {number}")
            recorder.tell(ACCESS_GRANTS, other, "Redeemed", "by another")
            await until(lambda: "by another" in events(server))

    run(main())
    said = {"by 0", "by 1", "by 2", "by 10", "by other", "by another"}
    assert set(events(server)) == said


@pytest.mark.parametrize(
    "name",
    ["a" * 253, "a" * 235 + "-b." + "c" * 15, "west"],
    ids=["long", "cut at a dash", "short"],
)
def test_names_and_messages_are_of_a_length_that_is_allowed(
    fake_kube: FakeKube, tmp_path: Path, name: str
) -> None:
    about = {"metadata": GRANT["metadata"] | {"name": name}}

    async def main() -> None:
        async with recording(fake_kube, tmp_path) as recorder:
            recorder.tell(ACCESS_GRANTS, about, "Redeemed", "ä" * 5000)
            await until(lambda: events(fake_kube))

    run(main())
    (event,) = fake_kube.find("Event")
    assert event["message"] == "ä" * 512
    assert len(event["metadata"]["name"]) <= 253
    assert event["involvedObject"]["name"] == name


FAULTS = ["reset", "lost", "500", "429", "frozen", "away", "401"]


@pytest.mark.parametrize("fault", FAULTS)
def test_telling_never_waits_and_events_arrive_later(
    fake_kube: FakeKube, tmp_path: Path, fault: str
) -> None:
    match fault:
        case "reset":
            fake_kube.faults.reset(times=2)
        case "lost":
            fake_kube.faults.reset(times=1, after=True)
        case "500":
            fake_kube.faults.fail(500, times=2)
        case "429":
            fake_kube.faults.throttle(retry_after=0, times=7)
        case "frozen":
            fake_kube.faults.freeze(times=1)
        case "401":
            fake_kube.faults.fail(401, times=3)
        case "away":
            fake_kube.stop()

    async def main() -> None:
        async with recording(fake_kube, tmp_path, seconds=0.3) as recorder:
            recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "by east")
            if fault == "away":
                await until(lambda: tried(recorder))
                fake_kube.start()
            await until(lambda: events(fake_kube))
            recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "by north")
            await until(lambda: "by north" in events(fake_kube))

    run(main())
    assert len(fake_kube.find("Event")) == 2


def test_an_event_whose_answer_was_lost_is_not_made_twice(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    fake_kube.faults.reset(times=1, after=True)

    async def main() -> None:
        async with recording(fake_kube, tmp_path) as recorder:
            recorder.tell(ACCESS_GRANTS, GRANT, "Expired", "x")
            await until(lambda: recorder._remembered)
            recorder.tell(ACCESS_GRANTS, GRANT, "Expired", "x")
            await until(lambda: events(fake_kube)["x"]["count"] == 2)

    run(main())
    assert len(fake_kube.find("Event")) == 1


def test_what_is_not_allowed_is_dropped_and_said_once(
    fake_kube: FakeKube, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = {"metadata": GRANT["metadata"] | {"namespace": "gone"}}

    async def main() -> None:
        async with recording(fake_kube, tmp_path) as recorder:
            for number in range(3):
                recorder.tell(ACCESS_GRANTS, gone, "Redeemed", f"by {number}")
            fake_kube.faults.fail(422, verb="create", namespace="default", reason="Invalid")
            recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "by east")
            recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "by west")
            await until(lambda: events(fake_kube))

    run(main())
    assert set(events(fake_kube)) == {"by west"}
    # Once for each namespace.
    assert caplog.text.count("events are dropped") == 2


def test_events_that_are_refused_in_one_namespace_hold_up_no_other(
    fake_kube: FakeKube, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake_kube.namespace("broken")
    fake_kube.faults.fail(403, times=None, namespace="broken", reason="Forbidden")
    about = {"metadata": GRANT["metadata"] | {"namespace": "broken"}}
    never = Backoff(base_seconds=1e6, most_seconds=1e6)

    async def main() -> None:
        async with recording(fake_kube, tmp_path, backoff=never) as recorder:
            for number in range(5):
                recorder.tell(ACCESS_GRANTS, about, "Redeemed", f"by {number}")
            recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "by east")
            await until(lambda: events(fake_kube) and not recorder._waiting)

    run(main())
    assert set(events(fake_kube)) == {"by east"}
    assert len(fake_kube.requests.of(namespace="broken", resource="events")) == 5
    assert caplog.text.count("events are dropped") == 1


@pytest.mark.parametrize("fault", ["503", "hangs"])
def test_events_that_wait_in_one_namespace_hold_up_no_other(
    fake_kube: FakeKube, tmp_path: Path, fault: str
) -> None:
    fake_kube.namespace("broken")
    if fault == "503":
        fake_kube.faults.fail(503, times=None, namespace="broken")
    else:
        fake_kube.faults.freeze(namespace="broken")
    about = {"metadata": GRANT["metadata"] | {"namespace": "broken"}}
    never = Backoff(base_seconds=1e6, most_seconds=1e6)

    async def main() -> None:
        async with recording(fake_kube, tmp_path, backoff=never, seconds=1e6) as recorder:
            for number in range(5):
                recorder.tell(ACCESS_GRANTS, about, "Redeemed", f"by {number}")
            await until(lambda: fake_kube.requests.of(namespace="broken", resource="events"))
            for number in range(3):
                recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", f"by {number}")
                recorder.tell(ACCESS_GRANTS, about, "Redeemed", "by 0")
            await until(lambda: len(events(fake_kube)) == 3)
            # Telling more does not hasten it.
            assert len(fake_kube.requests.of(namespace="broken", resource="events")) == 1
            fake_kube.faults.clear()

    run(main())


def test_what_is_told_again_while_it_waits_is_counted_once_each(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    frozen = fake_kube.faults.fail(503, times=None)

    async def main() -> None:
        async with recording(fake_kube, tmp_path) as recorder:
            recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "by east")
            await until(lambda: tried(recorder))
            recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "by east")
            frozen.release()
            await until(lambda: events(fake_kube))

    run(main())
    assert events(fake_kube)["by east"]["count"] == 2


def test_wrong_codes_do_not_use_up_the_room_of_what_matters(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    once = Allowance(burst=2, interval=60_000)

    async def main() -> None:
        async with recording(fake_kube, tmp_path, allowance=once) as recorder:
            for number in range(30):
                recorder.tell(ACCESS_GRANTS, GRANT, "Refused", f"{number} times")
            recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "by east")
            recorder.tell(ACCESS_GRANTS, GRANT, "SuspectedTokenTheft", "by thief")
            await until(lambda: not recorder._waiting)

    run(main())
    assert set(events(fake_kube)) == {"0 times", "1 times", "by east", "by thief"}


def test_an_api_server_that_stays_away_is_given_up(
    fake_kube: FakeKube, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake_kube.stop()

    async def main() -> None:
        async with recording(fake_kube, tmp_path) as recorder:
            for number in range(3):
                recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", f"by {number}")
            await until(lambda: recorder._dropped.get("default") == 3)
            fake_kube.start()
            recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "by east")
            await until(lambda: events(fake_kube))

    run(main())
    assert set(events(fake_kube)) == {"by east"}
    assert caplog.text.count("events are dropped") == 1


def test_what_cannot_be_sent_soon_is_not_piled_up(
    fake_kube: FakeKube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_recorder, "_MOST_WAITING", 5)
    monkeypatch.setattr(app_recorder, "_MOST_REMEMBERED", 5)
    frozen = fake_kube.faults.freeze()

    async def main() -> None:
        async with recording(fake_kube, tmp_path) as recorder:
            recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "first")
            await asyncio.to_thread(frozen.wait)
            for number in range(20):
                about = {"metadata": GRANT["metadata"] | {"uid": f"{number}"}}
                recorder.tell(ACCESS_GRANTS, about, "Redeemed", f"by {number}")
            assert (recorder.waiting, len(recorder._buckets)) == (5, 5)
            frozen.release()
            await until(lambda: len(events(fake_kube)) == 6)
            assert len(recorder._remembered) == 5

    run(main())


def test_a_fault_of_ours_does_not_end_the_telling(
    server: api_server.Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with recording(server, tmp_path) as recorder:
            with monkeypatch.context() as patched:
                patched.setattr(recorder, "_body", lambda *_: 1 / 0)
                recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "by east")
                await until(lambda: not recorder._waiting)
            recorder.tell(ACCESS_GRANTS, GRANT, "Redeemed", "by west")
            await until(lambda: events(server))

    run(main())
    assert set(events(server)) == {"by west"}
