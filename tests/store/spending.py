"""What the tests of all ledgers have in common: claims that are spent, and what is left of them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

from app.domain.audit import Act, Entry
from app.domain.grants import Grant, Redemption
from app.errors import Reason, Refused
from app.store import audit, authorities, grants, ledgers, sites
from app.store.engine import Database
from app.store.ledger import Keeping, Kept, Ledger, Spending
from tests.builders import GRANT_ID, NOW, a_grant, a_redemption, an_authority, an_endpoint

OTHER_ID = GRANT_ID.replace("2", "3")


Outcome = Redemption | BaseException


def furnish(database: Database, *made: Grant) -> None:
    """Put in one authority, one site and grants; without any, the builder's two."""
    with database.writing() as connection:
        issuer = authorities.add(connection, an_authority())
        sites.put(connection, name="west", issuer_id=issuer, wanted=[an_endpoint()], now=NOW)
        for grant in made or (a_grant(), a_grant(id=OTHER_ID, name="other", allowed=1000)):
            grants.add(connection, grant)


def open_ledger(database: Database, **changes: Any) -> Ledger:
    options: dict[str, Any] = {"spacing_seconds": 0.0, "on_batch": lambda _: None}
    return ledgers.open_ledger(database, **(options | changes))


@contextlib.asynccontextmanager
async def opened(database: Database, **changes: Any) -> AsyncIterator[Ledger]:
    made = open_ledger(database, **changes)
    try:
        yield made
    finally:
        await made.close()


async def spend(made: Ledger, wanted: Redemption) -> Redemption:
    outcome = await made.spend(Spending(redemption=wanted))
    assert isinstance(outcome, Redemption)
    return outcome


async def all_of(awaitables: Sequence[Awaitable[Redemption]]) -> list[Outcome]:
    return list(await asyncio.gather(*awaitables, return_exceptions=True))


def grant_of(database: Database, grant_id: str = GRANT_ID) -> Grant | None:
    with database.reading() as connection:
        return grants.by_id(connection, grant_id)


def spent(database: Database, grant_id: str = GRANT_ID) -> int:
    grant = grant_of(database, grant_id)
    assert grant is not None
    return grant.spent


def rows(database: Database, grant_id: str = GRANT_ID) -> list[Redemption]:
    with database.reading() as connection:
        return list(grants.redemptions_of(connection, grant_id))


def entries(database: Database, grant_id: str = GRANT_ID) -> list[Entry]:
    with database.reading() as connection:
        found = audit.latest(connection, 10_000, audit.Filter(target=f"grant/{grant_id}"))
    return [entry for entry in found if entry.act is Act.GRANT_REDEEMED]


def assert_untouched(database: Database, grant_id: str = GRANT_ID) -> None:
    assert spent(database, grant_id) == 0
    assert rows(database, grant_id) == []
    assert entries(database, grant_id) == []


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def sixty_spends(database: Database, how_many_ledgers: int = 1) -> list[Outcome]:
    async def main() -> list[Outcome]:
        async with contextlib.AsyncExitStack() as stack:
            made = [
                await stack.enter_async_context(opened(database, spacing_seconds=0.001))
                for _ in range(how_many_ledgers)
            ]
            return await all_of(
                [spend(made[number % how_many_ledgers], a_redemption()) for number in range(60)]
            )

    return asyncio.run(main())


def assert_exactly_seven(database: Database, outcomes: Sequence[Outcome]) -> None:
    won = [outcome for outcome in outcomes if isinstance(outcome, Redemption)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert sorted(one.ordinal for one in won) == [1, 2, 3, 4, 5, 6, 7]
    assert Counter(one.reason for one in lost) == {Reason.USED_UP: 53}
    assert spent(database) == 7
    assert {row.serial for row in rows(database)} == {one.serial for one in won}
    assert len(rows(database)) == 7
    assert sorted(entry.details["ordinal"] or 0 for entry in entries(database)) == [
        1, 2, 3, 4, 5, 6, 7,
    ]  # fmt: skip


def revoke(database: Database) -> None:
    with database.writing() as connection:
        grants.revoke(connection, GRANT_ID, NOW)


def remove(database: Database) -> None:
    with database.writing() as connection:
        grants.remove(connection, GRANT_ID)


def use_up(database: Database) -> None:
    async def main() -> None:
        async with opened(database) as made:
            await all_of([spend(made, a_redemption()) for _ in range(2)])

    asyncio.run(main())


def revoke_and_use_up(database: Database) -> None:
    use_up(database)
    revoke(database)


CLAIM_KEY = b"k" * 16


def wish(key: bytes = CLAIM_KEY, sealed: bytes = b"sealed", **changes: Any) -> Spending:
    made = a_redemption(**changes)
    keeping = Keeping(claim_key=key, sealed=sealed, until=made.redeemed_at + 600)
    return Spending(redemption=made, keeping=keeping)


async def outcomes(made: Ledger, *wishes: Spending) -> list[Redemption | Kept | Any]:
    return list(await asyncio.gather(*map(made.spend, wishes), return_exceptions=True))


def ordinals(found: Sequence[Redemption | Kept | Any]) -> list[int]:
    return [one.ordinal for one in found]
