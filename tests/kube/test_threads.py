import asyncio
import threading

import pytest

from app.errors import Unavailable
from app.kube.threads import in_thread


def test_the_answer_of_the_work_is_given() -> None:
    async def main() -> None:
        assert await in_thread(int, "11", base=2) == 3

    asyncio.run(main())


def test_so_is_what_it_raises() -> None:
    def work() -> None:
        raise Unavailable("the disk is full")

    async def main() -> None:
        with pytest.raises(Unavailable, match="full"):
            await in_thread(work)

    asyncio.run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancellation_waits_for_the_end_of_the_work(fails: bool) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(20)
        ended.set()
        if fails:
            raise Unavailable("the disk is full")

    async def main() -> None:
        task = asyncio.create_task(in_thread(work))
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=0.05)
        assert done == set()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(main())


def test_work_that_is_cancelled_before_it_began_does_not_stay() -> None:
    async def main() -> None:
        task = asyncio.create_task(in_thread(int, "1"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
