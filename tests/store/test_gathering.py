import asyncio
from collections.abc import Mapping, Sequence

import pytest

from app.errors import Broken, Unavailable
from app.store.gathering import Gathering


class Squares:
    """Look-ups that are let go on by the test."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, keys: Sequence[int]) -> Mapping[int, int]:
        self.asked.append(list(keys))
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return {key: key * key for key in keys if key >= 0}


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_who_asks_at_the_same_moment_shares_a_query() -> None:
    async def main() -> None:
        squares = Squares()
        gathering = Gathering(squares)
        squares.go_on.set()
        found = await asyncio.gather(*(gathering.find(key) for key in (3, 4, 3, -1)))
        assert found == [9, 16, 9, None]
        assert squares.asked == [[3, 4, -1]]
        assert await gathering.find(5) == 25

    asyncio.run(main())


def test_who_asks_meanwhile_is_not_answered_with_what_was_read_before() -> None:
    async def main() -> None:
        squares = Squares()
        gathering = Gathering(squares)
        first = asyncio.ensure_future(gathering.find(1))
        await turn()
        later = [asyncio.ensure_future(gathering.find(key)) for key in (1, 2)]
        await turn()
        assert squares.asked == [[1]]
        squares.go_on.set()
        assert [await first, *[await one for one in later]] == [1, 1, 4]
        assert squares.asked == [[1], [1, 2]]

    asyncio.run(main())


def test_very_many_are_asked_for_in_several_queries() -> None:
    async def main() -> None:
        squares = Squares()
        gathering = Gathering(squares)
        squares.go_on.set()
        found = await asyncio.gather(*(gathering.find(key) for key in range(600)))
        assert found == [key * key for key in range(600)]
        assert [len(keys) for keys in squares.asked] == [256, 256, 88]

    asyncio.run(main())


def test_who_gave_up_is_not_asked_for_and_hurts_nobody() -> None:
    async def main() -> None:
        squares = Squares()
        gathering = Gathering(squares)
        tasks = [asyncio.ensure_future(gathering.find(key)) for key in (1, 2)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await turn()
        tasks.append(asyncio.ensure_future(gathering.find(3)))
        tasks[1].cancel()
        squares.go_on.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in found] == [True, True, False]
        assert found[2] == 9
        assert squares.asked == [[2], [3]]

    asyncio.run(main())


def test_a_batch_of_which_everybody_gave_up_asks_nothing() -> None:
    async def main() -> None:
        squares = Squares()
        gathering = Gathering(squares)
        task = asyncio.ensure_future(gathering.find(1))
        await asyncio.sleep(0)
        task.cancel()
        await turn()
        await gathering.drain()
        assert squares.asked == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "told"), [(Unavailable("away"), Unavailable), (KeyError("s3cret"), Broken)]
)
def test_an_error_is_told_to_all_who_asked_and_passes(
    error: Exception, told: type[Exception]
) -> None:
    async def main() -> None:
        squares = Squares()
        gathering = Gathering(squares)
        squares.go_on.set()
        squares.error = error
        found = await asyncio.gather(
            *(gathering.find(key) for key in (1, 2)), return_exceptions=True
        )
        assert all(isinstance(one, told) for one in found)
        assert "s3cret" not in str(found[0])
        squares.error = None
        assert await gathering.find(2) == 4

    asyncio.run(main())
