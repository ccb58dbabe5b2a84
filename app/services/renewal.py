"""Renewing: a certificate comes back with a request for the next, and that takes its place.

Who comes has to sign the request with the key of the certificate in hand. As in a redemption, all
that can fail has happened before anything is written, and what is answered is on the disk.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from app.crypto.facts import facts
from app.crypto.requests import RequestedKey, check_renewal, read_request
from app.domain.certificates import Minted
from app.domain.names import common_name
from app.domain.reach import Reach
from app.domain.renewals import (
    MOST_IN_A_SPELL,
    Follower,
    Given,
    check_allowance,
    judge,
    renewal_entry,
)
from app.errors import Invalid, Reason, Refused, Unavailable
from app.services.issuance import Issuance
from app.store import audit as audit_rows
from app.store import renewals as rows
from app.store.engine import Connection
from app.store.ledger import Ledger
from app.store.renewals import Repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody sends who wants a certificate renewed: nothing in it is verified.

    `signature` is said to be that of the certificate's key over the request (DER, RFC 2986).
    """

    certificate_pem: bytes = field(repr=False)
    request_der: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """What a renewal gives, and what the log says of it.

    `given` is the certificate that came, which stops counting at `superseded_at` (UTC seconds).
    `serial` is that of the new one; None when the same was asked for before: then
    `certificate_pem` is what was issued at that time. `reach` is how the server is reached now.
    """

    certificate_pem: bytes = field(repr=False)
    ca_pem: bytes = field(repr=False)
    not_after: int
    superseded_at: int
    reach: Reach
    given: Given
    serial: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewer:
    """Renews certificates; used from one event loop.

    What is renewed counts for `overlap_seconds` beside what has taken its place. `reach` tells how
    the server is reached now.
    """

    ledger: Ledger
    issuance: Issuance
    overlap_seconds: int
    reach: Callable[[], Reach | None]
    clock: Callable[[], int]
    # Writers of one process take turns anyhow: those that wait here hold no thread.
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def renew(self, wish: Wish) -> Renewed:
        """Renew a certificate; the same wish again gets the same certificate again.

        Raises Refused, and Unready, Unavailable or Broken when the fault is on our side; nothing
        has changed when it raises.
        """
        reach = self.reach()
        if reach is None:
            raise Unavailable("nobody knows how this server is reached yet")
        given, key_hash = await self._find(wish)
        requested = _requested(wish)
        if requested.hash == key_hash:
            raise Refused(Reason.CSR, "it is for the key in hand: make a new one")
        now = self.clock()
        repeat = await asyncio.to_thread(self._look, given, requested.hash, now)
        found = await self.ledger.find(given.grant_id)
        if found is None:
            raise Refused(Reason.RENEWAL, "the grant was removed meanwhile")
        trust = await self.issuance.trust(found)
        serial = None
        if repeat is None:
            minted = await self.issuance.mint(found, common_name(given.subject), now, requested)
            follower = _follower(given, requested, minted, found.issuer_id, now)
            async with self._turn:
                repeat = await asyncio.to_thread(self._write, follower, wish.peer)
            serial = follower.serial if repeat.given.serial == follower.serial else None
        if serial is None:
            # That another has taken the place of the one before it is no reason: whoever asks has
            # not got the answer, and may have nothing else.
            judge(repeat.given, now=now)
        until = min(now + self.overlap_seconds, given.not_after)
        if given.superseded_at is not None:
            until = min(until, given.superseded_at)
        return Renewed(
            certificate_pem=repeat.certificate_pem.encode(),
            ca_pem=trust.ca_pem,
            not_after=repeat.given.not_after,
            superseded_at=until,
            reach=reach,
            given=given,
            serial=serial,
        )

    async def _find(self, wish: Wish) -> tuple[Given, bytes]:
        """Find the certificate that came, and make sure that whoever sends it has its key.

        Gives the SHA-256 of that as well. It is looked up first: nothing is computed with the key
        of a certificate that is not ours. Raises Refused(RENEWAL), whatever is wrong.
        """
        try:
            presented = facts(wish.certificate_pem)
        except Invalid as error:
            raise Refused(Reason.RENEWAL, error.why) from error
        given = await asyncio.to_thread(self._read, presented.serial)
        if given is None or given.fingerprint != presented.fingerprint:
            raise Refused(Reason.RENEWAL, "the certificate is none of ours, or forgotten")
        key_hash = check_renewal(wish.certificate_pem, wish.request_der, wish.signature)
        return given, key_hash

    def _read(self, serial: str) -> Given | None:
        with self.issuance.database.reading() as connection:
            return rows.by_serial(connection, serial)

    def _look(self, given: Given, key_hash: bytes, now: int) -> Repeat | None:
        """Tell what was issued already, or make sure that it may be, before anything is minted."""
        with self.issuance.database.reading() as connection:
            repeat = rows.issued_already(connection, given.serial, key_hash)
            if repeat is None:
                self._judge(connection, given, now)
            return repeat

    def _judge(self, connection: Connection, given: Given, now: int) -> None:
        judge(given, now=now)
        newest = rows.newest(connection, given.redemption_id, MOST_IN_A_SPELL)
        check_allowance(given, newest, now=now)

    def _write(self, follower: Follower, peer: str) -> Repeat:
        """Let it take its place, unless another process was faster; gives what counts."""
        with self.issuance.database.writing() as connection:
            repeat = rows.issued_already(connection, follower.replaces, follower.key_hash)
            if repeat is not None:
                return repeat
            given = self._still_there(connection, follower.replaces)
            self._judge(connection, given, follower.issued_at)
            rows.add(connection, follower, until=follower.issued_at + self.overlap_seconds)
            audit_rows.add(connection, renewal_entry(given, follower, peer=peer))
            added = rows.issued_already(connection, follower.replaces, follower.key_hash)
            if added is None:
                raise Unavailable("what was just written cannot be read")
            return added

    def _still_there(self, connection: Connection, serial: str) -> Given:
        given = rows.by_serial(connection, serial)
        if given is None:
            raise Refused(Reason.RENEWAL, "the certificate was forgotten meanwhile")
        return given


def _requested(wish: Wish) -> RequestedKey:
    try:
        return read_request(wish.request_der)
    except Invalid as error:
        raise Refused(Reason.CSR, error.why) from error


def _follower(
    given: Given, requested: RequestedKey, minted: Minted, issuer_id: int, now: int
) -> Follower:
    return Follower(
        redemption_id=given.redemption_id,
        replaces=given.serial,
        key_hash=requested.hash,
        certificate_pem=minted.certificate_pem.decode(),
        serial=minted.serial,
        fingerprint=minted.fingerprint,
        issuer_id=issuer_id,
        issued_at=now,
        not_after=minted.not_after,
    )
