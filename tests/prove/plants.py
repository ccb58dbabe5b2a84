"""Bugs for the proof to find: each is planted in the processes of one run, from outside."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import bindparam, insert, literal_column, update

from app import ambient
from app.crypto.requests import RequestedKey
from app.domain.certificates import Minted
from app.domain.grants import Claim, Redemption
from app.errors import Conflict
from app.services.issuance import Issuance, Trust
from app.services.redemption import Redeemed, Redeemer
from app.store import postgres_ledger, sqlite_ledger
from app.store.engine import Database
from app.store.ledger import Found, Kept, Ledger, Spending
from app.store.schema import answers, redemptions
from app.store.schema import grants as table

_NOTHING: Final = "0" * 64


def no_guard() -> None:
    """The statement that spends does not ask whether there is anything left."""
    unguarded = (
        update(table)
        .where(table.c.id == bindparam("grant_id"))
        .values(spent=table.c.spent + literal_column("1"))
        .returning(table.c.spent)
    )
    sqlite_ledger.SPEND = sqlite_ledger._compiled(unguarded)
    postgres_ledger.SPEND = postgres_ledger.spending(  # type: ignore[misc]
        guard="true", claims="count(*)"
    )


def answer_kept_after_the_commit() -> None:
    """The answer is kept in a transaction of its own, once the redemption is committed."""

    def around(self: Redeemer, _: Claim) -> Redeemer:
        return replace(self, ledger=_KeepingLate(self.ledger, self.issuance.database))

    _exchange(around)


def spent_before_the_mint() -> None:
    """The redemption is spent before there is a certificate for it."""

    def around(self: Redeemer, claim: Claim) -> Redeemer:
        early = _SpendingEarly(self.ledger, self.issuance, claim)
        return replace(self, ledger=early, issuance=early)  # type: ignore[arg-type]

    _exchange(around)


def _exchange(around: Callable[[Redeemer, Claim], Redeemer]) -> None:
    original: Callable[[Redeemer, Claim], Awaitable[Redeemed]] = Redeemer.redeem

    async def redeem(self: Redeemer, claim: Claim) -> Redeemed:
        return await original(around(self, claim), claim)

    Redeemer.redeem = redeem  # type: ignore[method-assign]


def _keep(database: Database, spending: Spending, ordinal: int) -> None:
    keeping = spending.keeping
    assert keeping is not None
    with contextlib.suppress(Conflict), database.writing() as connection:
        connection.execute(
            insert(answers).values(
                claim_key=keeping.claim_key,
                ordinal=ordinal,
                sealed=keeping.sealed,
                expires_at=keeping.until,
            )
        )


class _Passing:
    """A ledger before which another one stands."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def find(self, key: str) -> Found | None:
        return await self._ledger.find(key)

    async def find_by_name(self, namespace: str, name: str) -> Found | None:
        return await self._ledger.find_by_name(namespace, name)

    async def find_kept(self, claim_key: bytes, now: int) -> Kept | None:
        return await self._ledger.find_kept(claim_key, now)

    async def uses(self, grant_id: str, subject: str) -> int:
        return await self._ledger.uses(grant_id, subject)

    async def close(self) -> None:
        await self._ledger.close()


class _KeepingLate(_Passing):
    def __init__(self, ledger: Ledger, database: Database) -> None:
        super().__init__(ledger)
        self._database = database

    async def spend(self, spending: Spending) -> Redemption | Kept:
        outcome = await self._ledger.spend(replace(spending, keeping=None))
        if isinstance(outcome, Redemption):
            await asyncio.to_thread(_keep, self._database, spending, outcome.ordinal)
        return outcome


@dataclass
class _SpendingEarly(_Passing):
    """Spends when it is asked to mint, and only completes the row when it is asked to spend."""

    _ledger: Ledger
    issuance: Issuance
    claim: Claim
    ordinal: int = 0
    spent: str = ""

    @property
    def database(self) -> Database:
        return self.issuance.database

    async def links(self, found: Found, name: str) -> Any:
        return await self.issuance.links(found, name)

    async def trust(self, found: Found) -> Trust:
        return await self.issuance.trust(found)

    async def mint(
        self, found: Found, common_name: str, now: int, requested: RequestedKey | None = None
    ) -> Minted:
        self.spent = ambient.random_bytes(16).hex()
        name = self.claim.name or found.grant.name
        outcome = await self._ledger.spend(
            Spending(
                redemption=Redemption(
                    grant_id=found.grant.id,
                    ordinal=0,
                    name=name,
                    subject=self.claim.subject or name,
                    peer=self.claim.peer,
                    serial=self.spent,
                    fingerprint=_NOTHING,
                    not_after=now + 1,
                    redeemed_at=now,
                )
            )
        )
        assert isinstance(outcome, Redemption)
        self.ordinal = outcome.ordinal
        return await self.issuance.mint(found, common_name, now, requested)

    async def spend(self, spending: Spending) -> Redemption | Kept:
        await asyncio.to_thread(self._complete, spending)
        return spending.redemption.numbered(self.ordinal)

    def _complete(self, spending: Spending) -> None:
        wanted = spending.redemption
        with self.database.writing() as connection:
            connection.execute(
                update(redemptions)
                .where(redemptions.c.serial == self.spent)
                .values(
                    serial=wanted.serial,
                    fingerprint=wanted.fingerprint,
                    not_after=wanted.not_after,
                )
            )
        _keep(self.database, spending, self.ordinal)
