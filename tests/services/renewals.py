"""Sites that keep their keys, redeem with a certificate request, and renew what they got."""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from app.crypto.facts import facts
from app.crypto.keys import make_pair
from app.crypto.requests import make_request, read_request, sign_renewal
from app.domain.certificates import CertificateFacts, KeyType
from app.domain.grants import Grant
from app.domain.reach import Reach
from app.services.renewal import Renewed, Renewer, Wish
from app.store.ledger import Spending
from tests.builders import PEM, SUBJECT, Stand, a_redemption

OVERLAP: Final = 600
REACH: Final = Reach(url="https://grants.example:9090", ca_pem=PEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A certificate and its key, as a site keeps them."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)

    @property
    def facts(self) -> CertificateFacts:
        return facts(self.certificate_pem)

    def wish(self, key_pem: bytes, **changes: Any) -> Wish:
        """Ask for a certificate for another key, signed by this one."""
        request = make_request(key_pem, "whatever")
        wish = Wish(
            certificate_pem=self.certificate_pem,
            request_der=request,
            signature=sign_renewal(self.key_pem, request),
            peer="192.0.2.7",
        )
        return replace(wish, **changes)


def a_key(kind: KeyType = KeyType.P256) -> bytes:
    return make_pair(kind).private_pem


def run(stand: Stand, use: Callable[[Renewer], Any], **changes: Any) -> Any:
    """Let a renewer do something on an event loop of its own."""

    async def main() -> Any:
        ledger = stand.ledger()
        options: dict[str, Any] = {
            "ledger": ledger,
            "issuance": stand.issuance(),
            "overlap_seconds": OVERLAP,
            "reach": lambda: REACH,
            "clock": stand.clock,
        }
        try:
            return await use(Renewer(**(options | changes)))
        finally:
            await ledger.close()

    return asyncio.run(main())


def renew(stand: Stand, wish: Wish, **changes: Any) -> Renewed:
    renewed = run(stand, lambda renewer: renewer.renew(wish), **changes)
    assert isinstance(renewed, Renewed)
    return renewed


def redeem(stand: Stand, grant: Grant, *, subject: str = SUBJECT, name: str = "east") -> Held:
    """Redeem for a key of our own, as a claim with a certificate request does."""
    key_pem = a_key()
    requested = read_request(make_request(key_pem, name))

    async def main() -> bytes:
        ledger, issuance = stand.ledger(), stand.issuance()
        try:
            found = await ledger.find(grant.id)
            assert found is not None
            now = stand.clock()
            minted = await issuance.mint(found, subject, now, requested)
            one = a_redemption(
                grant_id=grant.id, name=name, subject=subject, serial=minted.serial,
                fingerprint=minted.fingerprint, not_after=minted.not_after, redeemed_at=now,
                issuer_id=found.issuer_id,
            )  # fmt: skip
            await ledger.spend(Spending(redemption=one))
            return minted.certificate_pem
        finally:
            await ledger.close()

    return Held(certificate_pem=asyncio.run(main()), key_pem=key_pem)


def text(der: bytes) -> str:
    return base64.b64encode(der).decode()
