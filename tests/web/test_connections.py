import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from app.web import connections
from app.web.connections import Roll
from app.web.listeners import run

PATIENCE = 10.0


class Known:
    """Stands for a connection: it notes that it was dropped, and when."""

    def __init__(self) -> None:
        self.dropped = asyncio.Event()
        self.when = 0.0

    def drop(self) -> None:
        self.when = asyncio.get_running_loop().time()
        self.dropped.set()


def in_a_loop(
    test: Callable[[Callable[..., Any]], Coroutine[Any, Any, None]],
) -> Callable[[], None]:
    """Run a test in the loop that the server uses; it is handed a maker of rolls."""

    async def main() -> None:
        def make(*, max_connections: int = 10, request_seconds: float = 60.0) -> Roll:
            return Roll(
                asyncio.get_running_loop(),
                max_connections=max_connections,
                request_seconds=request_seconds,
            )

        await asyncio.wait_for(test(make), PATIENCE)

    def wrapped() -> None:
        run(main)

    wrapped.__name__ = test.__name__
    return wrapped


@in_a_loop
async def test_those_who_enter_count_until_they_leave(make: Callable[..., Any]) -> None:
    roll = make(max_connections=2)
    one, two = Known(), Known()
    roll.enter(one)
    assert not roll.is_full()
    roll.enter(two)
    roll.settle(two)
    assert roll.is_full()
    assert set(roll) == {one, two}
    roll.leave(one)
    roll.leave(one)
    assert len(roll) == 1


@in_a_loop
async def test_who_is_late_is_dropped_and_the_next_in_its_turn(make: Callable[..., Any]) -> None:
    roll = make(request_seconds=0.1)
    first, second, settled = Known(), Known(), Known()
    start = asyncio.get_running_loop().time()
    roll.enter(first)
    roll.enter(settled)
    roll.settle(settled)
    await first.dropped.wait()
    assert first.when - start > 0.09  # the loop's clock has milliseconds
    roll.enter(second)
    await second.dropped.wait()
    assert second.when - first.when > 0.09
    assert not settled.dropped.is_set()
    assert set(roll) == {settled}


@in_a_loop
async def test_who_is_waited_for_again_has_the_whole_time_again(
    make: Callable[..., Any],
) -> None:
    roll = make(request_seconds=0.1)
    again, other = Known(), Known()
    roll.enter(again)
    roll.enter(other)
    roll.wait(again)
    await again.dropped.wait()
    assert other.dropped.is_set()
    assert again.when >= other.when


@in_a_loop
async def test_hurry_shortens_the_time_of_those_inside_and_never_lengthens_it(
    make: Callable[..., Any],
) -> None:
    roll = make(request_seconds=60.0)
    one = Known()
    roll.enter(one)
    roll.hurry(0.01)
    roll.hurry(60.0)
    await one.dropped.wait()
    late = Known()
    roll.enter(late)
    await late.dropped.wait()
    assert len(roll) == 0


@in_a_loop
async def test_only_who_has_stalled_is_cut_and_the_oldest_first(
    make: Callable[..., Any],
) -> None:
    roll = make()
    assert roll.seconds_to_stall() is None
    assert not roll.cut_stalled()
    old, young = Known(), Known()
    roll.enter(old)
    roll.enter(young)
    assert 0.0 < roll.seconds_to_stall() <= connections.STALLED_SECONDS
    assert not roll.cut_stalled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "STALLED_SECONDS", 0.0)
        assert roll.cut_stalled()
        assert set(roll) == {young}
        assert old.dropped.is_set()
        assert not young.dropped.is_set()


@in_a_loop
async def test_a_watcher_is_told_of_whoever_leaves_or_is_waited_for(
    make: Callable[..., Any],
) -> None:
    roll = make()
    told: list[int] = []
    one = Known()
    roll.enter(one)
    roll.watch(lambda: told.append(len(roll)))
    roll.wait(one)
    roll.leave(one)
    assert told == [1, 0]
    roll.watch(None)
    roll.enter(one)
    assert told == [1, 0]
