"""Limits on failures: how often a peer may fail at all, and how often a grant may be guessed at.

Peers are counted in memory, by the address of their connection and nothing that they say. A
grant's wrong codes are counted in the database, for all replicas together.
"""

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.domain.audit import Act, Entry
from app.domain.limits import Allowance
from app.errors import GrantServerError, Reason, Refused
from app.logs import get_logger
from app.store import audit as audit_rows
from app.store import wrong_codes
from app.store.engine import Database
from app.store.wrong_codes import Filled

MOST_REMEMBERED: Final = 65_536
MERGE_SECONDS: Final = 1.0  # between two merges of wrong codes into the database
_COUNTED: Final = frozenset(
    {
        *(Reason.METHOD, Reason.BODY, Reason.NAME, Reason.SUBJECT),
        *(Reason.UNKNOWN_GRANT, Reason.WRONG_CODE, Reason.CSR),
        *(Reason.RENEWAL, Reason.UNKNOWN_AUTHORITY),
    }
)
_MAPPED: Final = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, IPv4 in IPv6 (RFC 4291)
_NETWORK_BYTES: Final = 8
_MILLI: Final = 1000

_log = get_logger(__name__)


def network_of(peer: str) -> str:
    """Tell whom an address counts as: itself, or the /64 of an IPv6 address.

    One IPv6 client has a whole /64 to itself, and may come from another address each time.
    """
    if ":" not in peer:
        return peer
    try:
        packed = socket.inet_pton(socket.AF_INET6, peer.partition("%")[0])
    except (OSError, ValueError):  # ValueError: a NUL in it, or no ASCII
        return peer
    if packed.startswith(_MAPPED):
        return socket.inet_ntoa(packed[len(_MAPPED) :])
    return packed[:_NETWORK_BYTES].hex()


class PeerLimits:
    """Turns away peers that have failed too often; used from one event loop.

    Without an `allowance` nobody is. Of the peers that have failed, the 65,536 that did so last
    are remembered.
    """

    def __init__(self, allowance: Allowance | None, *, monotonic: Callable[[], float]) -> None:
        self._allowance = allowance
        self._monotonic = monotonic
        self._empty_at: OrderedDict[str, int] = OrderedDict()

    def admit(self, peer: str) -> None:
        """Raise Refused(RATE_LIMITED) when the peer has used up its failures."""
        if self._allowance is None or not self._empty_at:
            return
        empty_at = self._empty_at.get(network_of(peer))
        if empty_at is not None and (wait := self._allowance.wait(empty_at, self._now())):
            raise _limited("the peer has failed too often", wait)

    def note(self, peer: str, reason: Reason) -> None:
        """Count a refusal if it is a failure of the peer's own.

        To come too late with the right code is none, nor is to be turned away by a limit.
        """
        if reason in _COUNTED:
            self.fail(peer)

    def fail(self, peer: str) -> None:
        """Count a failure of the peer's own."""
        if self._allowance is None:
            return
        network, now = network_of(peer), self._now()
        self._empty_at[network] = self._allowance.fill(self._empty_at.get(network, now), now)
        self._empty_at.move_to_end(network)
        if len(self._empty_at) > MOST_REMEMBERED:
            self._empty_at.popitem(last=False)

    def _now(self) -> int:
        return int(self._monotonic() * _MILLI)


@dataclass(slots=True)
class _Bucket:
    """What this process knows of a grant's wrong codes; `told` since it was found locked."""

    empty_at: int
    told: bool = False


class GrantLocks:
    """Locks grants at which too many wrong codes were tried; used from one event loop.

    A locked grant is closed to the addresses that have presented a wrong code for it, and to
    nobody else: so whoever has the right code is not locked out, and a guesser has one guess for
    each address. The addresses are remembered by this process; the count is everybody's. It is
    merged into the database at most once in `merge_seconds`, in a thread: to write each wrong
    code durably would give every stranger a lever. Without an `allowance` nothing is locked.
    `on_lock` is called whenever this process finds that a grant has become locked.
    """

    def __init__(
        self,
        allowance: Allowance | None,
        *,
        database: Database,
        clock: Callable[[], int],
        on_lock: Callable[[], None],
        merge_seconds: float = MERGE_SECONDS,
    ) -> None:
        self._allowance = allowance
        self._database = database
        self._clock = clock
        self._on_lock = on_lock
        self._merge_seconds = merge_seconds
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._failed: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._unmerged: dict[str, int] = {}
        self._merger: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._well = True

    def admit(self, grant_id: str, peer: str) -> None:
        """Raise Refused(RATE_LIMITED) when the grant is locked and the peer has failed there."""
        bucket = self._buckets.get(grant_id)
        if bucket is None or self._allowance is None:
            return
        if (grant_id, network_of(peer)) not in self._failed:
            return
        now = self._now()
        bucket.empty_at = self._allowance.bounded(bucket.empty_at, now)
        if wait := self._allowance.wait(bucket.empty_at, now):
            raise _limited("the grant is locked for this peer: too many wrong codes", wait)

    def right(self, grant_id: str, peer: str) -> None:
        """Forget that the peer has failed there: it has the code now."""
        if grant_id in self._buckets:
            self._failed.pop((grant_id, network_of(peer)), None)

    def wrong(self, grant_id: str, peer: str) -> None:
        """Count a wrong code."""
        if self._allowance is None:
            return
        now = self._now()
        bucket = self._buckets.get(grant_id)
        if bucket is None:
            bucket = self._buckets[grant_id] = _Bucket(now)
        bucket.empty_at = self._allowance.fill(bucket.empty_at, now)
        self._buckets.move_to_end(grant_id)
        where = (grant_id, network_of(peer))
        self._failed[where] = None
        self._failed.move_to_end(where)
        for remembered in (self._buckets, self._failed):
            if len(remembered) > MOST_REMEMBERED:
                remembered.popitem(last=False)
        self._unmerged[grant_id] = self._unmerged.get(grant_id, 0) + 1
        if self._merger is None:
            self._merger = asyncio.get_running_loop().create_task(self._merge_all())

    async def close(self) -> None:
        """Merge what is not merged yet, if the database lets us."""
        self._closing.set()
        if self._merger is not None:
            await self._merger

    async def _merge_all(self) -> None:
        """Merge until there is nothing left to merge; a failure is tried again."""
        try:
            while self._unmerged:
                await self._merge_once()
                if self._closing.is_set() and not self._well:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._merge_seconds):
                        await self._closing.wait()
        finally:
            self._merger = None

    async def _merge_once(self) -> None:
        counts, self._unmerged = self._unmerged, {}
        now = self._now()
        told = {one for one in counts if (known := self._buckets.get(one)) and known.told}
        try:
            merged, locked = await asyncio.to_thread(self._merge, counts, now, told)
        except Exception as error:  # noqa: BLE001 - nothing of a claim's answer hangs on it
            for grant_id, count in counts.items():
                self._unmerged[grant_id] = self._unmerged.get(grant_id, 0) + count
            if self._well or not isinstance(error, GrantServerError):
                _log.warning("wrong codes cannot be written down", why=str(error))
            self._well = False
            return
        self._well = True
        for one in merged:
            self._learn(one, now)
        for one in locked:
            _log.warning("grant locked", grant=one.grant_id, failures=one.count)
            self._on_lock()

    def _merge(
        self, counts: Mapping[str, int], now: int, told: Collection[str]
    ) -> tuple[Sequence[Filled], Sequence[Filled]]:
        """Write in one transaction; gives all buckets, and those that have become locked."""
        allowance = self._allowance
        if allowance is None:
            return (), ()
        with self._database.writing() as connection:
            merged = wrong_codes.merge(connection, counts, allowance, now)
            # Under fire a bucket is full again as often as it has leaked a drop: that is one lock.
            locked = [
                one
                for one in merged
                if allowance.wait(one.empty_at, now)
                and not allowance.wait(one.before, now)
                and one.grant_id not in told
            ]
            for one in locked:
                audit_rows.add(connection, _entry(one, now // _MILLI))
        return merged, locked

    def _learn(self, merged: Filled, now: int) -> None:
        """Take in what all replicas have counted together."""
        bucket = self._buckets.get(merged.grant_id)
        if bucket is None or self._allowance is None:
            return
        if self._allowance.wait(merged.empty_at, now):
            bucket.told = True
        elif merged.empty_at - now <= self._allowance.burst * self._allowance.interval // 2:
            bucket.told = False
        bucket.empty_at = max(bucket.empty_at, merged.empty_at)

    def _now(self) -> int:
        return self._clock() * _MILLI


def _limited(detail: str, wait: int) -> Refused:
    return Refused(Reason.RATE_LIMITED, detail, retry_after=-(-wait // _MILLI))


def _entry(locked: Filled, at: int) -> Entry:
    return Entry(
        at=at,
        act=Act.GRANT_LOCKED,
        actor="server",
        target=f"grant/{locked.grant_id}",
        details={"wrong_codes": locked.count},
    )
