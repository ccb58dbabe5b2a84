"""Redeeming: a code comes in, a bundle goes out, and exactly one redemption is spent.

Mint first, spend last. Whatever can fail has happened before the ledger is asked, and nothing
secret leaves before the ledger has committed.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from app.domain import codes
from app.domain.documents import bundle
from app.domain.grants import Claim, Grant, Redemption, judge
from app.domain.names import check_claimed_name, common_name
from app.errors import Reason, Refused
from app.services.issuance import Issuance
from app.store import grants as grant_rows
from app.store.ledger import Found, SqliteLedger

_MOST_SHOWN: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Redeemed:
    """What a successful claim gets, and what the log says of it."""

    bundle: bytes = field(repr=False)
    grant: Grant
    redemption: Redemption


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What the holder of a code may know of its grant without using it.

    `redemptions` are the first hundred at most; `now` is when it was looked at.
    """

    grant: Grant
    redemptions: tuple[Redemption, ...]
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Redeemer:
    """Redeems claims.

    `code_keys` are the keys under which codes are stored, the current one first.
    """

    ledger: SqliteLedger
    issuance: Issuance
    code_keys: Mapping[str, bytes] = field(repr=False)
    clock: Callable[[], int]

    async def redeem(self, claim: Claim) -> Redeemed:
        """Redeem a claim, once.

        Raises Refused, and Unready, Unavailable or Broken when the fault is on our side;
        nothing has been spent when it raises.
        """
        now = self.clock()
        found = self._find(claim)
        grant = found.grant
        judge(claim, grant, keys=self.code_keys, now=now)
        name = claim.name or grant.name
        check_claimed_name(name)
        subject = claim.subject or name
        certificate_name = common_name(subject)
        links = await self.issuance.links(found, name)
        minted = await self.issuance.mint(found, certificate_name, now)
        answer = bundle(name, minted, links)
        redemption = await self.ledger.spend(
            Redemption(
                grant_id=grant.id,
                ordinal=0,  # the ledger counts
                name=name,
                subject=subject,
                peer=claim.peer,
                serial=minted.serial,
                fingerprint=minted.fingerprint,
                not_after=minted.not_after,
                redeemed_at=now,
            )
        )
        return Redeemed(bundle=answer, grant=grant, redemption=redemption)

    async def inspect(self, claim: Claim) -> Inspection:
        """Tell the holder of the right code what is left, until when, and who used it.

        Nothing is spent. Raises Refused(UNKNOWN_GRANT or WRONG_CODE), Unavailable.
        """
        grant = self._find(claim).grant
        codes.check(claim.presented_code, grant.concealed_code, self.code_keys)
        redemptions = await asyncio.to_thread(self._read_redemptions, grant.id)
        return Inspection(grant=grant, redemptions=redemptions, now=self.clock())

    def _find(self, claim: Claim) -> Found:
        """Find the claim's grant, or refuse after as much work as a wrong code costs."""
        namespace, slash, name = claim.key.partition("/")
        ledger = self.ledger
        found = ledger.find_by_name(namespace, name) if slash else ledger.find(claim.key)
        if found is None:
            codes.check_against_nothing(claim.presented_code, self.code_keys)
            raise Refused(Reason.UNKNOWN_GRANT)
        return found

    def _read_redemptions(self, grant_id: str) -> tuple[Redemption, ...]:
        with self.issuance.database.reading() as connection:
            return tuple(grant_rows.redemptions_of(connection, grant_id, limit=_MOST_SHOWN))
