"""Everything a redemption hands over, made ready before anything is spent.

All that can fail is in here: a site without endpoints, an authority that is missing, expired or
cannot be opened, a key that cannot be made. The ledger has not been asked yet when it does.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from app.crypto import keys, mint
from app.crypto.issuers import Issuer
from app.crypto.keys import KeyPair
from app.crypto.sealing import Keyring
from app.domain.authorities import Authority
from app.domain.certificates import KeyType, Minted
from app.domain.sites import Endpoint, Link, links
from app.errors import Lack, Unready
from app.services.authorities import open_issuer
from app.store import authorities as authority_rows
from app.store import sites as site_rows
from app.store.engine import Database
from app.store.ledger import Found

# Made one by one, between other work, a key takes twice as long as those made in a row.
_KEYS_AT_ONCE = 16
_MOST_SITES_KEPT = 10_000  # bounds the memory that endpoints take, not how many sites there are


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What client certificates are like."""

    key_type: KeyType
    lifetime_seconds: int


@dataclass(slots=True)
class Issuance:
    """Mints certificates and finds Links; keeps what it has read, parsed and opened once.

    Authorities never change, and endpoints are kept under the revision of their site, so
    nothing that is kept here can be stale.
    """

    database: Database
    keyring: Keyring
    policy: Policy
    random_bytes: Callable[[int], bytes]
    _issuers: dict[int, Issuer] = field(default_factory=dict)
    _endpoints: dict[int, tuple[int, tuple[Endpoint, ...]]] = field(default_factory=dict)
    _keys: list[KeyPair] = field(default_factory=list, repr=False)

    async def links(self, found: Found, name: str) -> tuple[Link, ...]:
        """The Links to the grant's site. Raises Unready(ENDPOINTS), Refused(NAME)."""
        kept = self._endpoints.get(found.site_id)
        if kept is None or kept[0] != found.site_revision:
            kept = found.site_revision, await asyncio.to_thread(self._read_endpoints, found)
            if len(self._endpoints) >= _MOST_SITES_KEPT:
                self._endpoints.clear()
            self._endpoints[found.site_id] = kept
        return links(name, kept[1], found.grant.cost)

    async def mint(self, found: Found, common_name: str, now: int) -> Minted:
        """Make a key and a client certificate for it, signed by the grant's authority.

        Raises Unready(ISSUER) when there is none that can sign, Broken when the finished
        certificate is not the one that was ordered.
        """
        issuer = self._issuers.get(found.issuer_id) or await self._open(found.issuer_id)
        return mint.mint_client(
            issuer,
            key=await self._take_key(),
            common_name=common_name,
            random=self.random_bytes(16),
            now=now,
            lifetime_seconds=self.policy.lifetime_seconds,
        )

    async def ca_pem(self, issuer_id: int) -> bytes:
        """The certificates of an authority that has signed before, if it still can or not.

        Raises Unready(ISSUER) when it is not there.
        """
        issuer = self._issuers.get(issuer_id)
        if issuer is not None:
            return issuer.certificate_pem
        authority = await asyncio.to_thread(self._read_authority, issuer_id)
        return authority.certificate_pem.encode()

    async def _open(self, issuer_id: int) -> Issuer:
        issuer = await asyncio.to_thread(self._read_issuer, issuer_id)
        self._issuers[issuer_id] = issuer
        return issuer

    async def _take_key(self) -> KeyPair:
        """Take a key that nobody has had; the first of a few pays for the others."""
        key_type = self.policy.key_type
        if key_type is KeyType.RSA_2048:  # some 50 ms: not on the event loop
            return await asyncio.to_thread(keys.make_pair, key_type)
        if not self._keys:
            self._keys = [keys.make_pair(key_type) for _ in range(_KEYS_AT_ONCE)]
        return self._keys.pop()

    def _read_endpoints(self, found: Found) -> tuple[Endpoint, ...]:
        with self.database.reading() as connection:
            return site_rows.endpoints_of(connection, found.site_id)

    def _read_issuer(self, issuer_id: int) -> Issuer:
        return open_issuer(self._read_authority(issuer_id), self.keyring)

    def _read_authority(self, issuer_id: int) -> Authority:
        with self.database.reading() as connection:
            authority = authority_rows.by_id(connection, issuer_id)
        if authority is None:
            raise Unready(Lack.ISSUER, "the authority that signs for this grant is gone")
        return authority
