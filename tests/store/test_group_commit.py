import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.domain.grants import Redemption
from app.errors import Broken, Reason, Refused, Unavailable
from app.store import group_commit
from app.store.group_commit import LARGEST_BATCH, GroupCommit, give_all
from app.store.ledger import Kept, Spending
from tests.builders import a_redemption

SPENDING = Spending(redemption=a_redemption())


def queue(settle: Callable[[GroupCommit], Awaitable[None]], spacing: float = 0.0) -> GroupCommit:
    made = GroupCommit(spacing_seconds=spacing, settle_next=lambda: settle(made))
    return made


def test_those_who_come_together_are_served_together_up_to_the_largest_batch() -> None:
    sizes: list[int] = []

    async def settle(made: GroupCommit) -> None:
        batch = made.take()
        sizes.append(len(batch))
        for number, waiting in enumerate(batch):
            waiting.give(waiting.spending.redemption.numbered(number + 1))

    async def main() -> list[Redemption | Kept]:
        made = queue(settle)
        return list(await asyncio.gather(*[made.spend(SPENDING) for _ in range(LARGEST_BATCH + 2)]))

    assert len(asyncio.run(main())) == LARGEST_BATCH + 2
    assert sizes == [LARGEST_BATCH, 2]


def test_each_claim_gets_its_own_outcome() -> None:
    async def settle(made: GroupCommit) -> None:
        first, second, third = made.take()
        first.give(first.spending.redemption)
        second.give(Kept(sealed=b"", ordinal=2))
        third.give(Refused(Reason.USED_UP))

    async def main() -> list[object]:
        made = queue(settle)
        return list(
            await asyncio.gather(*[made.spend(SPENDING) for _ in range(3)], return_exceptions=True)
        )

    one, two, three = asyncio.run(main())
    assert one == SPENDING.redemption
    assert two == Kept(sealed=b"", ordinal=2)
    assert isinstance(three, Refused)


def test_who_has_waited_for_too_long_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "_PATIENCE", -1.0)

    async def settle(made: GroupCommit) -> None:
        assert not made.anybody_waits()

    async def main() -> None:
        with pytest.raises(Unavailable, match="locked by others"):
            await queue(settle).spend(SPENDING)

    asyncio.run(main())


def test_whoever_gave_up_is_not_taken() -> None:
    taken: list[int] = []

    async def settle(made: GroupCommit) -> None:
        batch = made.take()
        taken.append(len(batch))
        give_all(batch, Unavailable("away"))

    async def main() -> None:
        made = queue(settle)
        leaving = asyncio.ensure_future(made.spend(SPENDING))
        staying = asyncio.ensure_future(made.spend(SPENDING))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(Unavailable):
            await staying

    asyncio.run(main())
    assert taken == [1]


def test_a_queue_whose_commit_breaks_leaves_nobody_waiting() -> None:
    async def settle(_: GroupCommit) -> None:
        raise RuntimeError("a bug")

    async def main() -> None:
        made = queue(settle)
        waiting = asyncio.ensure_future(made.spend(SPENDING))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="a bug"):
            await made.drain()
        with pytest.raises(Broken, match="stopped"):
            await waiting

    asyncio.run(main())
