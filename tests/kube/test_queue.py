import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from app.errors import Conflict, Unavailable
from app.kube.backoff import Backoff
from app.kube.queue import Queue
from tests.kube.clients import LOG, QUICK, no_chance, until

NEVER = Backoff(base_seconds=1e6, most_seconds=1e6)
Handle = Callable[[str], Awaitable[float | None]]


def queue(handle: Handle, *, workers: int = 4, backoff: Backoff = QUICK) -> Queue[str]:
    return Queue(handle, workers=workers, backoff=backoff, random_bytes=no_chance, log=LOG)


class Hands:
    """A handler that works until it is let go, and tells who is working and who has."""

    def __init__(self) -> None:
        self.working: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.done: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, key: str) -> None:
        self.working[key] += 1
        self.most[key] = max(self.most[key], self.working[key])
        self.most[""] = max(self.most[""], self.working.total())
        try:
            await self.go.wait()
        finally:
            self.working[key] -= 1
        self.done.append(key)


def test_keys_are_worked_on_in_the_order_they_came() -> None:
    done: list[str] = []

    async def handle(key: str) -> None:
        await asyncio.sleep(0)
        done.append(key)

    async def main() -> None:
        work = queue(handle, workers=1)
        for key in "abcab":
            work.add(key)
        assert len(work) == 3
        work.start()
        await work.idle()
        assert len(work) == 0

    asyncio.run(main())
    assert done == ["a", "b", "c"]


def test_nothing_is_worked_on_before_the_start() -> None:
    async def main() -> None:
        hands = Hands()
        work = queue(hands)
        work.add("a")
        await asyncio.sleep(0)
        assert not hands.working.total()
        work.start()
        await until(lambda: hands.working["a"])
        await work.stop()

    asyncio.run(main())


def test_a_key_is_worked_on_by_one_at_a_time_and_once_more_if_it_came_meanwhile() -> None:
    async def main() -> None:
        hands = Hands()
        work = queue(hands)
        work.start()
        work.add("a")
        await until(lambda: hands.working["a"])
        for _ in range(3):
            work.add("a")
        work.add("b")
        await until(lambda: hands.working["b"])
        assert len(work) == 0  # it waits for itself, and takes nobody's place
        hands.go.set()
        await work.idle()
        assert (hands.most["a"], Counter(hands.done)) == (1, Counter(a=2, b=1))

    asyncio.run(main())


def test_so_many_are_worked_on_at_a_time_and_no_more() -> None:
    async def main() -> None:
        hands = Hands()
        work = queue(hands, workers=3)
        work.start()
        for number in range(20):
            work.add(f"{number}")
        await until(lambda: hands.working.total() == 3)
        assert len(work) == 17
        hands.go.set()
        await work.idle()
        assert hands.most[""] == 3
        assert len(hands.done) == 20

    asyncio.run(main())


@pytest.mark.parametrize("error", [Conflict("x"), Unavailable("x"), ValueError("x")])
def test_a_key_that_fails_comes_again_and_keeps_nobody_from_working(error: Exception) -> None:
    tries: Counter[str] = Counter()

    async def handle(key: str) -> None:
        tries[key] += 1
        if key == "bad" and tries[key] < 7:
            raise error

    async def main() -> None:
        work = queue(handle, workers=1)
        work.start()
        work.add("bad")
        work.add("good")
        await until(lambda: tries["bad"] == 7)
        await work.idle()
        assert (tries["good"], work._failures) == (1, {})

    asyncio.run(main())


def test_it_comes_later_each_time() -> None:
    pauses: list[float] = []

    async def handle(_: str) -> None:
        raise Conflict("x")

    async def main() -> None:
        work = queue(handle, backoff=Backoff(base_seconds=0.1, most_seconds=2.0))
        pauses.extend(work._after_failure("a", Conflict("x")) for _ in range(7))

    asyncio.run(main())
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])


def test_it_comes_no_sooner_than_it_is_wanted() -> None:
    async def main() -> None:
        work = queue(Hands())
        assert work._after_failure("a", Unavailable("x", retry_after=2.0)) == 2.0
        assert work._after_failure("a", Unavailable("x")) < 1.0

    asyncio.run(main())


def test_it_is_right_within_seconds_whatever_an_api_server_has_asked_for() -> None:
    async def main() -> None:
        work = queue(Hands())
        assert work._after_failure("a", Unavailable("x", retry_after=3600.0)) < 4.0

    asyncio.run(main())


def test_a_few_that_hang_hold_up_no_other_by_default() -> None:
    async def main() -> None:
        hands = Hands()
        work = Queue(hands, random_bytes=no_chance, log=LOG)
        work.start()
        for number in range(20):
            work.add(f"{number}")
        await until(lambda: hands.working.total() >= 4)
        await work.stop()

    asyncio.run(main())


def test_a_key_that_came_anew_does_not_wait_for_its_failures() -> None:
    tries: list[str] = []

    async def handle(key: str) -> None:
        tries.append(key)
        raise Conflict("x")

    async def main() -> None:
        work = queue(handle, backoff=NEVER)
        work.start()
        work.add("a")
        await work.idle()
        work.add("a")
        await work.idle()
        await work.stop()

    asyncio.run(main())
    assert tries == ["a", "a"]


def test_a_handler_says_when_it_wants_to_see_a_key_again() -> None:
    tries: list[str] = []

    async def handle(key: str) -> float | None:
        tries.append(key)
        return 0.01 if len(tries) < 3 else None

    async def main() -> None:
        work = queue(handle)
        work.start()
        work.add("a")
        await until(lambda: len(tries) == 3)
        await work.idle()
        assert not work._later

    asyncio.run(main())


def test_of_several_times_the_first_counts() -> None:
    async def main() -> None:
        hands = Hands()
        hands.go.set()
        work = queue(hands)
        work.start()
        work.add_after("a", 1e6)
        work.add_after("a", 0.01)
        work.add_after("a", 1e6)
        work.add_after("b", -1.0)
        await until(lambda: len(hands.done) == 2)
        assert set(hands.done) == {"a", "b"}
        assert not work._later

    asyncio.run(main())


def test_what_is_to_come_later_does_not_count_as_work() -> None:
    async def main() -> None:
        work = queue(Hands())
        work.start()
        work.add_after("a", 1e6)
        await work.idle()
        await work.stop()

    asyncio.run(main())


def test_a_stop_gives_what_is_under_way_the_time_to_end() -> None:
    async def main() -> None:
        hands = Hands()
        work = queue(hands, workers=1)
        work.start()
        work.add("a")
        work.add("b")
        work.add_after("c", 0.0)
        await until(lambda: hands.working["a"])
        asyncio.get_running_loop().call_later(0.01, hands.go.set)
        await work.stop(20.0)
        assert hands.done == ["a"]
        await work.idle()
        assert (len(work), work._later, work._wanted) == (0, {}, set())

    asyncio.run(main())


def test_a_stop_does_not_wait_for_ever() -> None:
    async def main() -> None:
        hands = Hands()
        work = queue(hands)
        work.start()
        work.add("a")
        await until(lambda: hands.working["a"])
        work.add("a")
        await work.stop(0.01)
        assert not hands.working.total()
        assert hands.done == []
        await work.idle()

    asyncio.run(main())


def test_a_stop_that_is_cancelled_stops_all_the_same() -> None:
    async def main() -> None:
        hands = Hands()
        work = queue(hands)
        work.start()
        work.add("a")
        await until(lambda: hands.working["a"])
        stopping = asyncio.create_task(work.stop(1e6))
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        await until(lambda: not hands.working.total())
        await work.idle()

    asyncio.run(main())


def test_it_may_be_started_again() -> None:
    async def main() -> None:
        hands = Hands()
        hands.go.set()
        work = queue(hands)
        work.start()
        work.add("a")
        await work.idle()
        await work.stop()
        work.add("b")
        await asyncio.sleep(0)
        assert hands.done == ["a"]
        work.start()
        await work.idle()
        assert hands.done == ["a", "b"]

    asyncio.run(main())


def test_a_failure_that_goes_on_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[str] = []

    async def handle(key: str) -> None:
        tries.append(key)
        raise Unavailable("away")

    async def main() -> None:
        work = queue(handle, backoff=Backoff(base_seconds=1e-4, most_seconds=1e-3))
        work.start()
        work.add("a")
        await until(lambda: len(tries) >= 20)
        await work.stop()

    asyncio.run(main())
    assert [one.levelname for one in caplog.records] == ["WARNING"]
