import asyncio
import random  # noqa: TID251 - the same faults in every run
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app import ambient
from app.errors import Misconfigured
from app.kube.client import Kube
from app.kube.elector import JITTER, Elector, Terms
from app.kube.resources import Key, Object
from tests.kube import api_server
from tests.kube.api_server import FakeKube, Fault
from tests.kube.clients import LOG, config_file, connected, no_chance, run, running, until

LEASE = Key("default", "grantserver")
TERMS = Terms(lease_seconds=1, renew_seconds=0.6, retry_seconds=0.1, call_seconds=0.25)
LONG = Terms(lease_seconds=3600, renew_seconds=1800, retry_seconds=0.05, call_seconds=20)
MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class Office:
    """The work that only one may do: who does it, and who has."""

    def __init__(self) -> None:
        self.holders: list[str] = []
        self.history: list[str] = []
        self.crowded = False

    def work(self, name: str) -> Callable[[], Any]:
        async def work() -> None:
            self.holders.append(name)
            self.history.append(name)
            self.crowded = self.crowded or len(self.holders) > 1
            try:
                await asyncio.Event().wait()
            finally:
                # Not at once: work has its ends to tie up.
                await asyncio.sleep(0.05)
                self.holders.remove(name)

        return work

    def is_held_by(self, *names: str) -> Callable[[], bool]:
        return lambda: self.holders == list(names)


class Candidate:
    """One replica."""

    def __init__(self, name: str, elector: Elector, office: Office) -> None:
        self.name = name
        self.elector = elector
        self.task = asyncio.create_task(elector.run(office.work(name)))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
def server(kube: api_server.Kube) -> api_server.Kube:
    """A real API server if there is one, else ours."""
    return kube


@asynccontextmanager
async def candidates(
    server: api_server.Kube, directory: Path, office: Office, *names: str, **more: Any
) -> AsyncIterator[list[Candidate]]:
    """Replicas, each with a token of its own name; the first one leads."""
    given: dict[str, Any] = {
        "terms": TERMS,
        "clock": ambient.utc_instant,
        "monotonic": ambient.monotonic,
    } | more
    async with AsyncExitStack() as stack:
        made: list[Candidate] = []
        for name in names:
            kube = await stack.enter_async_context(
                connected(server, directory, token=server.token(name))
            )
            elector = Elector(kube, LEASE, name, random_bytes=no_chance, log=LOG, **given)
            candidate = Candidate(name, elector, office)
            stack.push_async_callback(candidate.stop)
            made.append(candidate)
            if len(made) == 1:
                await until(office.is_held_by(name))
        yield made


def lease(server: api_server.Kube) -> Object:
    spec: Object = server.get("Lease", LEASE.name)["spec"]
    return spec


def test_the_first_one_makes_the_lease_and_leads(server: api_server.Kube, tmp_path: Path) -> None:
    office = Office()

    async def main() -> None:
        async with candidates(server, tmp_path, office, "left") as (left,):
            assert left.elector.leading
            made = lease(server)
            assert made["holderIdentity"] == "left"
            assert (made["leaseDurationSeconds"], made["leaseTransitions"]) == (1, 0)
            assert MICRO_TIME.fullmatch(made["acquireTime"])
            assert made["renewTime"] >= made["acquireTime"]
            await until(lambda: lease(server)["renewTime"] > made["renewTime"])
            assert lease(server)["acquireTime"] == made["acquireTime"]
            assert left.elector.leading
        assert not left.elector.leading

    run(main())
    assert office.history == ["left"]


def test_the_times_of_a_lease_are_those_of_the_clock(
    server: api_server.Kube, tmp_path: Path
) -> None:
    async def main() -> None:
        async with candidates(server, tmp_path, Office(), "left", clock=lambda: 1_795_000_000.25):
            assert lease(server)["acquireTime"] == "2026-11-18T11:06:40.250000Z"

    run(main())


def test_on_a_clean_stop_the_lease_is_passed_on_at_once(
    server: api_server.Kube, tmp_path: Path
) -> None:
    office = Office()
    patient = Terms(lease_seconds=3600, renew_seconds=1800, retry_seconds=0.05, call_seconds=5)

    async def main() -> None:
        async with candidates(*(server, tmp_path, office, "left", "right"), terms=patient) as (
            left,
            _,
        ):
            await left.stop()
            assert "holderIdentity" not in lease(server) or lease(server)["leaseTransitions"]
            await until(office.is_held_by("right"))
            assert lease(server)["holderIdentity"] == "right"
            assert lease(server)["leaseTransitions"] == 1

    run(main())
    assert office.history == ["left", "right"]
    assert not office.crowded


def test_nobody_takes_the_lease_of_one_who_renews_it(
    server: api_server.Kube, tmp_path: Path
) -> None:
    office = Office()

    async def main() -> None:
        async with candidates(server, tmp_path, office, "left", "right", "third"):
            # For much longer than a lease.
            await until(lambda: len(server.requests.writes(user="left")) >= 20)

    run(main())
    assert office.history == ["left"]


def test_who_was_killed_is_followed_when_its_lease_has_ended(
    server: api_server.Kube, tmp_path: Path
) -> None:
    office = Office()
    dead = {"holderIdentity": "dead", "leaseDurationSeconds": 1, "leaseTransitions": 4}
    metadata = {"name": LEASE.name, "namespace": LEASE.namespace}

    async def main() -> None:
        server.create(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": metadata,
                # Whatever this time says, it is of somebody else's clock.
                "spec": dead | {"renewTime": "2001-01-01T00:00:00.000000Z"},
            }
        )
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with candidates(server, tmp_path, office, "left"):
            assert loop.time() - began >= 1.0
            assert lease(server)["leaseTransitions"] == 5

    run(main())


@pytest.mark.parametrize("longer", [{}, {"leaseDurationSeconds": 3600}])
def test_the_end_of_a_lease_is_judged_by_the_own_monotonic_clock(
    server: api_server.Kube, tmp_path: Path, longer: Object
) -> None:
    office = Office()
    now = [1000.0]
    seconds = longer.get("leaseDurationSeconds", 1)
    holder = {"holderIdentity": "dead", "leaseDurationSeconds": 1} | longer

    async def main() -> None:
        server.create(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": LEASE.name},
                "spec": holder,
            }
        )
        async with connected(server, tmp_path) as kube:
            elector = Elector(
                *(kube, LEASE, "left"),
                terms=TERMS,
                clock=lambda: 4e9,
                monotonic=lambda: now[0],
                random_bytes=no_chance,
                log=LOG,
            )
            async with running(elector.run(office.work("left"))):
                for later in (0.0, 0.5, 0.4):
                    now[0] += later * seconds
                    looks = len(server.requests)
                    await until(lambda looks=looks: len(server.requests) >= looks + 3)  # type: ignore[misc]
                    assert office.history == []
                now[0] += 0.2 * seconds
                await until(office.is_held_by("left"))

    run(main())


def test_a_leader_whose_path_freezes_stops_before_another_begins(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    office = Office()

    async def main() -> None:
        async with candidates(fake_kube, tmp_path, office, "left", "right") as (left, right):
            frozen = fake_kube.faults.freeze(user="left")
            await until(office.is_held_by())
            assert not left.elector.leading
            assert not right.elector.leading
            await until(office.is_held_by("right"))
            # What the first one had sent arrives now.
            frozen.release()
            looks = len(fake_kube.requests.of(user="left"))
            await until(lambda: len(fake_kube.requests.of(user="left")) >= looks + 5)
            assert office.holders == ["right"]
            await right.stop()
            await until(office.is_held_by("left"))

    run(main())
    assert office.history == ["left", "right", "left"]
    assert not office.crowded


def test_a_renewal_that_arrives_late_keeps_the_lease_from_others_and_makes_no_leader(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    """It arrives when its sender has given up, and before the lease has ended."""
    office = Office()

    async def main() -> None:
        async with candidates(fake_kube, tmp_path, office, "left", "right") as (left, _):
            frozen = fake_kube.faults.freeze(user="left", verb="update")
            away = fake_kube.faults.freeze(user="left", verb="get")
            await until(office.is_held_by())
            frozen.release()
            assert not left.elector.leading
            await until(office.is_held_by("right"))
            away.release()

    run(main())
    assert office.history == ["left", "right"]
    assert not office.crowded


def test_a_leader_that_gets_no_answers_stops_although_it_is_heard(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    office = Office()

    async def main() -> None:
        async with candidates(fake_kube, tmp_path, office, "left", "right") as (left, _):
            frozen = fake_kube.faults.freeze(user="left", after=True)
            await until(office.is_held_by())
            assert not left.elector.leading
            frozen.release()
            await until(lambda: len(office.holders) == 1)

    run(main())
    assert not office.crowded


def test_no_two_ever_lead_whatever_happens_to_their_paths(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    office = Office()
    chance = random.Random(7)
    faults: list[Callable[[str], Fault]] = [
        lambda user: fake_kube.faults.freeze(user=user),
        lambda user: fake_kube.faults.freeze(user=user, after=True),
        lambda user: fake_kube.faults.reset(times=None, user=user),
        lambda user: fake_kube.faults.reset(times=None, user=user, after=True),
        lambda user: fake_kube.faults.slow(0.2, user=user),
    ]

    async def main() -> None:
        names = ("left", "right", "third")
        async with candidates(fake_kube, tmp_path, office, *names):
            for _ in range(8):
                name = office.holders[0] if office.holders else chance.choice(names)
                fault = chance.choice(faults)(name)
                await asyncio.to_thread(fault.wait, chance.randint(1, 5))
                fault.release()
            await until(lambda: len(office.holders) == 1)

    run(main())
    assert not office.crowded
    assert len(office.history) > 1


def test_a_deleted_lease_is_not_taken_from_its_holder(
    server: api_server.Kube, tmp_path: Path
) -> None:
    office = Office()

    async def main() -> None:
        async with candidates(server, tmp_path, office, "left", "right"):
            await until(lambda: len(server.requests.of(user="right", verb="get")) > 1)
            for _ in range(3):
                server.delete("Lease", LEASE.name)
                await until(lambda: server.find("Lease"))
                assert lease(server)["holderIdentity"] == "left"

    run(main())
    assert office.history == ["left"]


@asynccontextmanager
async def newcomer(
    server: api_server.Kube, directory: Path, office: Office, **more: Any
) -> AsyncIterator[Candidate]:
    """One that has never seen the Lease, and knows that somebody has led before."""
    async with connected(server, directory, token=server.token("new")) as kube:
        given: dict[str, Any] = {"clock": ambient.utc_instant, "random_bytes": no_chance}
        given |= {"log": LOG, "begun": lambda: True, "terms": TERMS}
        given |= {"monotonic": ambient.monotonic}
        candidate = Candidate("new", Elector(kube, LEASE, "new", **(given | more)), office)
        try:
            yield candidate
        finally:
            await candidate.stop()


def test_who_comes_while_there_is_no_lease_lets_its_holder_make_it_again(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    office = Office()
    terms = Terms(lease_seconds=20, renew_seconds=15, retry_seconds=0.05, call_seconds=0.2)

    async def main() -> None:
        async with candidates(fake_kube, tmp_path, office, "left", terms=terms):
            away = fake_kube.faults.freeze(user="left")
            await asyncio.to_thread(away.wait, 1)
            fake_kube.delete("Lease", LEASE.name)
            async with newcomer(fake_kube, tmp_path, office, terms=terms):
                await until(lambda: len(fake_kube.requests.of(user="new", verb="get")) > 5)
                assert fake_kube.find("Lease") == []
                away.release()
                await until(lambda: fake_kube.find("Lease"))
                looks = len(fake_kube.requests.of(user="new", verb="get"))
                await until(lambda: len(fake_kube.requests.of(user="new")) > looks + 2)
                assert lease(fake_kube)["holderIdentity"] == "left"

    run(main())
    assert office.history == ["left"]


def test_a_lease_that_nobody_makes_again_is_made_when_its_time_is_over(
    server: api_server.Kube, tmp_path: Path
) -> None:
    office = Office()
    now = [1000.0]

    async def main() -> None:
        async with newcomer(server, tmp_path, office, monotonic=lambda: now[0]):
            for _ in range(2):
                looks = len(server.requests.of(user="new", verb="get"))
                await until(lambda: len(server.requests.of(user="new", verb="get")) > looks + 2)  # noqa: B023
                assert server.find("Lease") == []
                now[0] += 0.51 * TERMS.lease_seconds
            await until(office.is_held_by("new"))

    run(main())


def test_who_loses_the_lease_to_another_stops_at_once(
    server: api_server.Kube, tmp_path: Path
) -> None:
    office = Office()
    long = Terms(lease_seconds=3600, renew_seconds=1800, retry_seconds=0.05, call_seconds=5)

    async def main() -> None:
        async with candidates(server, tmp_path, office, "left", terms=long) as (left,):
            server.patch("Lease", LEASE.name, {"spec": {"holderIdentity": "usurper"}})
            await until(office.is_held_by())
            await until(lambda: not left.elector.leading)
            assert lease(server)["holderIdentity"] == "usurper"

    run(main())


def test_a_lease_that_somebody_writes_into_is_still_its_holders(
    server: api_server.Kube, tmp_path: Path
) -> None:
    office = Office()

    async def main() -> None:
        async with candidates(server, tmp_path, office, "left"):
            server.patch("Lease", LEASE.name, {"metadata": {"labels": {"a": "b"}}})
            before = lease(server)["renewTime"]
            await until(lambda: lease(server)["renewTime"] > before)
            server.patch("Lease", LEASE.name, {"spec": {"holderIdentity": None}})
            await until(lambda: lease(server).get("holderIdentity") == "left")
            assert server.get("Lease", LEASE.name)["metadata"]["labels"] == {"a": "b"}

    run(main())
    assert office.history == ["left"]


@pytest.mark.parametrize("spec", [None, {}, {"holderIdentity": "x", "leaseTransitions": None}])
def test_a_lease_that_says_little_is_taken(
    server: api_server.Kube, tmp_path: Path, spec: Object | None
) -> None:
    body: Object = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": LEASE.name},
    }
    server.create(body if spec is None else body | {"spec": spec})

    async def main() -> None:
        async with candidates(server, tmp_path, Office(), "left"):
            assert lease(server)["holderIdentity"] == "left"

    run(main())


def restart(kube: FakeKube) -> None:
    kube.stop()
    kube.start()


FAULTS: dict[str, Callable[[FakeKube], object]] = {
    "reset": lambda kube: kube.faults.reset(times=2),
    "lost answer": lambda kube: kube.faults.reset(times=1, after=True, verb="update"),
    "500": lambda kube: kube.faults.fail(500, times=2),
    "429": lambda kube: kube.faults.throttle(retry_after=0, times=7),
    "conflict": lambda kube: kube.faults.fail(409, times=1, verb="update", reason="Conflict"),
    "conflicts": lambda kube: kube.faults.fail(409, times=2, verb="update", reason="Conflict"),
    "odd": lambda kube: kube.faults.fail(200, times=3),
    "slow": lambda kube: kube.faults.slow(0.1, times=3),
    "frozen": lambda kube: kube.faults.freeze(times=1),
    "401": lambda kube: kube.faults.fail(401, times=1),
    "away": restart,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_leader_gets_over_short_faults(fake_kube: FakeKube, tmp_path: Path, fault: str) -> None:
    office = Office()

    async def main() -> None:
        # As short as they are, they are not to take as long as renewing may.
        terms = Terms(lease_seconds=20, renew_seconds=15, retry_seconds=0.05, call_seconds=2.0)
        async with candidates(fake_kube, tmp_path, office, "left", terms=terms) as (left,):
            FAULTS[fault](fake_kube)
            before = lease(fake_kube)["renewTime"]
            await until(lambda: lease(fake_kube)["renewTime"] > before)
            assert left.elector.leading

    run(main())
    assert office.history == ["left"]


@pytest.mark.parametrize("fault", [*FAULTS, "lost creation", "race"])
def test_a_candidate_gets_over_faults(fake_kube: FakeKube, tmp_path: Path, fault: str) -> None:
    if fault == "lost creation":
        fake_kube.faults.reset(times=1, after=True, verb="create")
    elif fault == "race":
        fake_kube.faults.fail(409, verb="create", reason="AlreadyExists")
    else:
        FAULTS[fault](fake_kube)

    async def main() -> None:
        async with candidates(fake_kube, tmp_path, Office(), "left"):
            assert lease(fake_kube)["holderIdentity"] == "left"

    run(main())


def test_an_api_server_that_is_away_at_the_start_is_waited_for(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    office = Office()
    fake_kube.stop()

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.3, fake_kube.start)
        async with candidates(fake_kube, tmp_path, office, "left"):
            pass

    run(main())


def test_a_leader_whose_token_expires_goes_on_with_the_next(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    office = Office()
    old = fake_kube.token("left")

    async def main() -> None:
        async with connected(fake_kube, tmp_path, token=old) as kube:
            elector = Elector(
                *(kube, LEASE, "left"),
                terms=TERMS,
                clock=ambient.utc_instant,
                monotonic=ambient.monotonic,
                random_bytes=no_chance,
                log=LOG,
            )
            async with running(elector.run(office.work("left"))):
                await until(office.is_held_by("left"))
                fake_kube.kubeconfig(config_file(tmp_path, old), fake_kube.token("left"))
                fake_kube.expire(old)
                before = lease(fake_kube)["renewTime"]
                await until(lambda: lease(fake_kube)["renewTime"] > before)

    run(main())
    assert office.history == ["left"]


@pytest.mark.parametrize("error", [None, ValueError("the work is bad")])
def test_work_that_ends_gives_the_lease_to_others_and_is_done_again(
    server: api_server.Kube, tmp_path: Path, error: Exception | None
) -> None:
    begun: list[str] = []
    long = Terms(lease_seconds=3600, renew_seconds=1800, retry_seconds=0.05, call_seconds=5)

    async def work() -> None:
        begun.append(lease(server)["holderIdentity"])
        if error is not None:
            raise error

    async def main() -> None:
        async with connected(server, tmp_path) as kube:
            elector = Elector(
                *(kube, LEASE, "left"),
                terms=long,
                clock=ambient.utc_instant,
                monotonic=ambient.monotonic,
                random_bytes=no_chance,
                log=LOG,
            )
            async with running(elector.run(work)):
                await until(lambda: begun)
                await until(lambda: "holderIdentity" not in lease(server))
                assert lease(server)["leaseDurationSeconds"] == 1
                await until(lambda: len(begun) == 2)
                assert not elector.leading or len(begun) >= 2

    run(main())


def test_work_that_does_not_end_in_time_is_waited_for(
    fake_kube: FakeKube, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun: list[str] = []
    end = asyncio.Event()

    async def work() -> None:
        begun.append("work")
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                begun.append("cancelled")

    async def main() -> None:
        async with connected(fake_kube, tmp_path, token=fake_kube.token("left")) as kube:
            elector = Elector(
                *(kube, LEASE, "left"),
                terms=TERMS,
                clock=ambient.utc_instant,
                monotonic=ambient.monotonic,
                random_bytes=no_chance,
                log=LOG,
            )
            async with running(elector.run(work)):
                await until(lambda: begun)
                fake_kube.faults.freeze(user="left")
                await until(lambda: "the work does not end, and the Lease does" in caplog.text)
                fake_kube.faults.clear()
                # It could have its Lease again, but the work goes on.
                assert begun == ["work", "cancelled"]
                assert not elector.leading
                end.set()
                await until(lambda: begun.count("work") == 2)

    run(main())


def test_a_stop_does_not_wait_for_a_frozen_api_server(fake_kube: FakeKube, tmp_path: Path) -> None:
    async def main() -> None:
        async with candidates(fake_kube, tmp_path, Office(), "left") as (left,):
            fake_kube.faults.freeze()
            async with asyncio.timeout(5.0):
                await left.stop()
            fake_kube.faults.clear()

    run(main())


def test_a_lease_is_passed_on_also_when_it_was_being_renewed(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    """The renewal arrives, and its answer does not: the version that we know is not the last."""

    async def main() -> None:
        async with candidates(fake_kube, tmp_path, Office(), "left", terms=LONG) as (left,):
            before = lease(fake_kube)["renewTime"]
            unanswered = fake_kube.faults.freeze(times=1, after=True, verb="update")
            await until(lambda: lease(fake_kube)["renewTime"] > before)
            await asyncio.to_thread(unanswered.wait, 1)
            await left.stop()
            assert "holderIdentity" not in lease(fake_kube)
            unanswered.release()

    run(main())


def test_a_release_that_fails_is_no_failure(fake_kube: FakeKube, tmp_path: Path) -> None:
    async def main() -> None:
        async with candidates(fake_kube, tmp_path, Office(), "left") as (left,):
            fake_kube.faults.fail(500, times=None)
            await left.stop()
            assert left.task.cancelled()

    run(main())


def test_who_waits_may_be_stopped(server: api_server.Kube, tmp_path: Path) -> None:
    office = Office()

    async def main() -> None:
        async with candidates(server, tmp_path, office, "left", "right") as (_, right):
            await right.stop()
            assert lease(server)["holderIdentity"] == "left"

    run(main())
    assert office.history == ["left"]


@pytest.mark.parametrize(
    "terms",
    [
        {"lease_seconds": 10, "renew_seconds": 10.0},
        {"retry_seconds": 11.0},
        {"retry_seconds": 0.0},
        {"call_seconds": 11.0},
        {"call_seconds": 0.0},
    ],
)
def test_terms_that_could_make_two_leaders_are_refused(terms: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="a lease needs"):
        Terms(**terms)


def test_a_fault_of_ours_ends_the_work_and_not_the_standing_for_the_lease(
    fake_kube: FakeKube, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    office = Office()
    long = Terms(lease_seconds=3600, renew_seconds=1800, retry_seconds=0.05, call_seconds=5)
    bad: list[str] = ["replace", "get"]

    class Faulty(Kube):
        async def get(self, *args: Any) -> Object:
            if bad == ["get"]:
                assert office.holders == []
                bad.pop()
                raise KeyError("metadata")
            return await super().get(*args)

        async def replace(self, *args: Any) -> Object:
            if bad and office.holders:
                bad.remove("replace")
                raise KeyError("spec")
            return await super().replace(*args)

    async def main() -> None:
        async with connected(fake_kube, tmp_path) as kube:
            elector = Elector(
                *(Faulty(kube._connection), LEASE, "left"),
                terms=long,
                clock=ambient.utc_instant,
                monotonic=ambient.monotonic,
                random_bytes=no_chance,
                log=LOG,
            )
            async with running(elector.run(office.work("left"))) as task:
                await until(lambda: len(office.history) == 2 and office.holders)
                assert elector.leading
                assert not task.done()

    run(main())
    assert bad == []
    assert not office.crowded
    assert caplog.text.count("the election has failed") == 2


def test_the_time_to_work_counts_from_before_the_request(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    """Others may have seen the Lease as soon as it was sent, whenever the answer comes."""
    office = Office()
    now = [1000.0]
    terms = Terms(lease_seconds=20, renew_seconds=10, retry_seconds=5.0, call_seconds=5)

    async def main() -> None:
        slow = fake_kube.faults.freeze(times=1, after=True, verb="create")
        async with connected(fake_kube, tmp_path) as kube:
            elector = Elector(
                *(kube, LEASE, "left"),
                terms=terms,
                clock=ambient.utc_instant,
                monotonic=lambda: now[0],
                random_bytes=no_chance,
                log=LOG,
            )
            async with running(elector.run(office.work("left"))):
                await asyncio.to_thread(slow.wait)
                now[0] += 4.0
                slow.release()
                await until(office.is_held_by("left"))
                assert elector.leading
                now[0] = 1000.0 + terms.renew_seconds
                assert not elector.leading

    run(main())


def test_who_was_killed_is_followed_within_fifteen_seconds_by_default() -> None:
    terms = Terms()
    pause = terms.retry_seconds * (1 + JITTER)
    # The last renewal is seen at the next look, the end of the lease at another, and the Lease is
    # taken by an API server that may be slow.
    assert terms.lease_seconds + 2 * pause + terms.call_seconds < 15
    # And a leader gets over more than one renewal that is lost.
    assert terms.renew_seconds >= 2 * (pause + terms.call_seconds)
    # Work has the time to end.
    assert terms.lease_seconds - terms.renew_seconds >= 2
