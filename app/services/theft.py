"""The theft alarm: a right code that comes from somebody else after its last redemption.

The claim is refused whatever becomes of the alarm; here it is written down for the operator and
for whoever holds the code.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from app.domain.grants import Redemption
from app.domain.theft import SuspectedTheft, Suspicion, revocation_entry, theft_entry
from app.logs import get_logger
from app.store import audit as audit_rows
from app.store import grants as grant_rows
from app.store import renewals as renewal_rows
from app.store import suspicions as suspicion_rows
from app.store.engine import Connection, Database

_PATIENCE: Final = 1.0  # seconds that a refusal waits for its alarm; it is written all the same
_MOST_REMEMBERED: Final = 4096
_MOST_WAITING: Final = 1024
_MOST_AT_ONCE: Final = 32  # in one transaction: other writers wait for its end

_log = get_logger(__name__)


class TheftAlarm:
    """Writes suspicions down, in a thread, those that wait in one transaction.

    With `revoke`, the certificates of the grant are marked as revoked as well. `on_suspicion` is
    called for each one that is new. Used from one event loop.
    """

    def __init__(
        self, *, database: Database, revoke: bool, on_suspicion: Callable[[], None]
    ) -> None:
        self._database = database
        self._revoke = revoke
        self._on_suspicion = on_suspicion
        # Those that were looked at: a controller asks again every half minute.
        self._seen: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._waiting: list[tuple[Suspicion, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def suspect(self, later: Suspicion) -> None:
        """Raise the alarm if the subject never redeemed the grant, once for each peer of it.

        Returns when that is written, or after a second. Never raises: a failure is in the log.
        """
        key = (later.grant_id, later.subject, later.peer)
        if key in self._seen or len(self._waiting) >= _MOST_WAITING:
            return
        self._seen[key] = None
        if len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._waiting.append((later, written))
        if self._writer is None:
            self._writer = loop.create_task(self._write_all())
        await asyncio.wait([written], timeout=_PATIENCE)

    async def close(self) -> None:
        """Write what waits."""
        if self._writer is not None:
            await self._writer

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:_MOST_AT_ONCE]
                del self._waiting[:_MOST_AT_ONCE]
                await self._write_batch([later for later, _ in batch])
                for _, written in batch:
                    written.set_result(None)
        finally:
            self._writer = None

    async def _write_batch(self, batch: Sequence[Suspicion]) -> None:
        try:
            thefts = await asyncio.to_thread(self._write, batch)
        except Exception as error:  # noqa: BLE001 - the answer must not hang on it
            for later in batch:
                self._seen.pop((later.grant_id, later.subject, later.peer), None)
            _log.error("suspected token theft could not be written down", why=str(error))
            return
        for first, later in thefts:
            self._on_suspicion()
            _log.warning(
                "suspected token theft",
                grant=later.grant_id,
                first_subject=first.subject,
                first_peer=first.peer,
                later_subject=later.subject,
                later_peer=later.peer,
            )

    def _write(self, batch: Sequence[Suspicion]) -> Sequence[tuple[Redemption, Suspicion]]:
        thefts: list[tuple[Redemption, Suspicion]] = []
        with self._database.writing() as connection:
            for later in sorted(batch, key=lambda one: one.grant_id):  # one order of locks
                first = suspicion_rows.add(connection, later)
                if first is None:
                    continue
                thefts.append((first, later))
                audit_rows.add(connection, theft_entry(first, later))
                if self._revoke:
                    _revoke_certificates(connection, later)
        return thefts


def suspected(database: Database, grant_id: str) -> SuspectedTheft | None:
    """Tell who is suspected of having had a grant's code besides those it was meant for."""
    with database.reading() as connection:
        return suspected_in(connection, grant_id)


def suspected_in(connection: Connection, grant_id: str) -> SuspectedTheft | None:
    """Tell the same from within a transaction."""
    later = tuple(suspicion_rows.of_grant(connection, grant_id))
    if not later:
        return None
    return SuspectedTheft(first=grant_rows.last_redemption(connection, grant_id), later=later)


def suspected_grants(database: Database) -> frozenset[str]:
    """The ids of all grants of which there is a suspicion."""
    with database.reading() as connection:
        return suspicion_rows.suspected_grants(connection)


def _revoke_certificates(connection: Connection, later: Suspicion) -> None:
    revoked = renewal_rows.revoke(connection, later.grant_id, later.at)
    if revoked:
        audit_rows.add(connection, revocation_entry(later, revoked))
