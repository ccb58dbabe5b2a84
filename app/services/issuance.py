"""Everything a redemption hands over, made ready before anything is spent.

All that can fail is in here: a site without endpoints, an authority that is missing, expired or
cannot be opened, a key that cannot be made. The ledger has not been asked yet when it does.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.crypto import keys, mint
from app.crypto.issuers import Issuer
from app.crypto.keys import KeyPair
from app.crypto.requests import RequestedKey
from app.crypto.sealing import Keyring
from app.domain import authorities as rules
from app.domain.authorities import Authority, State
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom an answer tells to trust: the authorities' ids, and their certificates as PEM."""

    issuer_ids: tuple[int, ...]
    ca_pem: bytes = field(repr=False)


@dataclass(slots=True)
class Issuance:
    """Mints certificates and finds Links; keeps what it has read, parsed and opened once.

    The certificate of an authority never changes. Endpoints, and which authorities are to be
    trusted, are kept under the revision of their site, which every claim reads and every step of a
    rotation raises; so nothing that is kept here can be stale.
    """

    database: Database
    keyring: Keyring
    policy: Policy
    random_bytes: Callable[[int], bytes]
    _issuers: dict[int, Issuer] = field(default_factory=dict)
    _trusts: dict[tuple[int, int], tuple[int, Trust]] = field(default_factory=dict)
    _bundles: dict[tuple[int, ...], bytes] = field(default_factory=dict)
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

    async def mint(
        self, found: Found, common_name: str, now: int, requested: RequestedKey | None = None
    ) -> Minted:
        """Make a key and a client certificate for it, signed by the grant's authority.

        Where a key is `requested`, none is made, and the private one is empty. The grant's policy
        says which kind of key is made, and how much shorter than usual the certificate lives.

        Raises Unready(ISSUER) when there is none that can sign, Broken when the finished
        certificate is not the one that was ordered.
        """
        issuer = self._issuers.get(found.issuer_id) or await self._open(found.issuer_id)
        wanted, lifetime = self.policy.key_type, self.policy.lifetime_seconds
        policy = found.grant.policy
        if policy is not None:
            wanted = policy.key_type or wanted
            # A rotation counts on no certificate outliving the server's own lifetime.
            lifetime = min(policy.lifetime_seconds or lifetime, lifetime)
        return mint.mint_client(
            issuer,
            key=await self._key(wanted, requested),
            common_name=common_name,
            random=self.random_bytes(16),
            now=now,
            lifetime_seconds=lifetime,
        )

    async def trust(self, found: Found) -> Trust:
        """Whom the answer to a claim tells to trust: all living generations of its authority.

        Raises Unready(ISSUER) when there is none.
        """
        place = found.site_id, found.issuer_id
        kept = self._trusts.get(place)
        if kept is None or kept[0] != found.site_revision:
            kept = found.site_revision, await asyncio.to_thread(self._read_trust, found.issuer_id)
            if len(self._trusts) >= _MOST_SITES_KEPT:
                self._trusts.clear()
            self._trusts[place] = kept
        return kept[1]

    async def ca_pem(self, issuer_ids: tuple[int, ...]) -> bytes:
        """The certificates that an earlier answer told to trust, whether they are still or not.

        Raises Unready(ISSUER) when one is not there.
        """
        kept = self._bundles.get(issuer_ids)
        if kept is None:
            kept = await asyncio.to_thread(self._read_bundle, issuer_ids)
        return kept

    async def _open(self, issuer_id: int) -> Issuer:
        issuer = await asyncio.to_thread(self._read_issuer, issuer_id)
        self._issuers[issuer_id] = issuer
        return issuer

    async def _key(self, wanted: KeyType, requested: RequestedKey | None) -> KeyPair:
        if requested is not None:
            return _public_half(requested)
        if wanted is KeyType.RSA_2048:  # some 50 ms: not on the event loop
            return await asyncio.to_thread(keys.make_pair, wanted)
        if wanted is not self.policy.key_type:
            return keys.make_pair(wanted)
        return self._take_key()

    def _take_key(self) -> KeyPair:
        """Take a key that nobody has had; the first of a few pays for the others."""
        key_type = self.policy.key_type
        if not self._keys:
            self._keys = [keys.make_pair(key_type) for _ in range(_KEYS_AT_ONCE)]
        return self._keys.pop()

    def _read_endpoints(self, found: Found) -> tuple[Endpoint, ...]:
        with self.database.reading() as connection:
            return site_rows.endpoints_of(connection, found.site_id)

    def _read_trust(self, issuer_id: int) -> Trust:
        signing = self._read_authority(issuer_id)
        with self.database.reading() as connection:
            family = authority_rows.family(connection, signing.root)
        for one in family:
            if one.state is not State.ACTIVE:
                self._issuers.pop(one.id, None)  # its key is needed no more
        trusted = rules.trusted(family)
        if all(one.id != issuer_id for one in trusted):
            trusted = (signing, *trusted)  # which has ended since the claim came
        issuer_ids = tuple(one.id for one in trusted)
        return Trust(issuer_ids=issuer_ids, ca_pem=self._keep_bundle(issuer_ids, trusted))

    def _read_bundle(self, issuer_ids: tuple[int, ...]) -> bytes:
        return self._keep_bundle(issuer_ids, [self._read_authority(one) for one in issuer_ids])

    def _keep_bundle(self, issuer_ids: tuple[int, ...], trusted: Sequence[Authority]) -> bytes:
        """Write the certificates of some authorities; equal ones are kept once for all sites."""
        if len(self._bundles) >= _MOST_SITES_KEPT:
            self._bundles.clear()
        return self._bundles.setdefault(issuer_ids, rules.bundle(trusted).encode())

    def _read_issuer(self, issuer_id: int) -> Issuer:
        return open_issuer(self._read_authority(issuer_id), self.keyring)

    def _read_authority(self, issuer_id: int) -> Authority:
        with self.database.reading() as connection:
            authority = authority_rows.by_id(connection, issuer_id)
        if authority is None:
            raise Unready(Lack.ISSUER, "the authority that signs for this grant is gone")
        return authority


def _public_half(requested: RequestedKey) -> KeyPair:
    return KeyPair(
        private_pem=b"", public_key=requested.public_key, public_der=requested.public_der
    )
