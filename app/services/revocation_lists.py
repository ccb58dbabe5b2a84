"""Revocation lists of site authorities: made when they are asked for, kept while they hold.

Each generation of an authority signs the list of what it has signed itself. Neither a router nor
an unmodified client reads any of this; it is for whoever verifies certificates with more care.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.crypto import crl
from app.crypto.sealing import Keyring
from app.domain.authorities import Authority, Purpose
from app.errors import Conflict, Missing, Reason, Refused
from app.services.authorities import open_issuer
from app.store import authorities as authority_rows
from app.store import renewals as rows
from app.store.engine import Database
from app.store.renewals import Listed

LIFETIME_SECONDS: Final = 24 * 3600
LOOK_SECONDS: Final = 10.0
"""So long a list is given out before it is looked for what was revoked meanwhile."""

_MOST_KEPT: Final = 100  # bounds the memory that lists take


def make(database: Database, keyring: Keyring, name: str, *, now: int) -> bytes:
    """Sign the list of the site authority of this name, as of now; returns its DER.

    Raises Missing when there is none, Conflict when it signs no such lists, Unready(ISSUER) when
    its key is gone or cannot be opened.
    """
    authority, listed = _look(database, name, now)
    return _sign(authority, listed, keyring, now)


@dataclass(slots=True)
class _Kept:
    """A list that was signed, what is on it, and when it was made and last looked at."""

    authority_id: int
    listed: Sequence[Listed]
    der: bytes = field(repr=False)
    made_at: int
    looked_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationLists:
    """Gives lists out, and signs one anew when something was revoked or half its time is over.

    Used from one event loop.
    """

    database: Database
    keyring: Keyring
    clock: Callable[[], int]
    monotonic: Callable[[], float]
    _kept: dict[str, _Kept] = field(default_factory=dict, repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def get(self, name: str) -> bytes:
        """The list of the site authority of this name, in DER.

        Raises Refused(UNKNOWN_AUTHORITY), Unready(ISSUER), Unavailable.
        """
        kept = self._fresh(name)
        if kept is None:
            async with self._turn:  # whoever waited may find it done
                kept = self._fresh(name) or await self._renew(name)
        return kept.der

    def _fresh(self, name: str) -> _Kept | None:
        kept = self._kept.get(name)
        if kept is None or self.monotonic() - kept.looked_at >= LOOK_SECONDS:
            return None
        return kept

    async def _renew(self, name: str) -> _Kept:
        now = self.clock()
        try:
            kept = await asyncio.to_thread(self._made, name, self._kept.get(name), now)
        except (Missing, Conflict) as error:
            self._kept.pop(name, None)
            raise Refused(Reason.UNKNOWN_AUTHORITY, str(error)) from error
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[name] = kept
        return kept

    def _made(self, name: str, before: _Kept | None, now: int) -> _Kept:
        authority, listed = _look(self.database, name, now)
        der, made_at = b"", now
        if (
            before is not None
            and before.authority_id == authority.id  # a name goes from one generation to the next
            and before.listed == listed
            and 0 <= now - before.made_at < LIFETIME_SECONDS // 2
        ):
            der, made_at = before.der, before.made_at
        return _Kept(
            authority_id=authority.id,
            listed=listed,
            der=der or _sign(authority, listed, self.keyring, now),
            made_at=made_at,
            looked_at=self.monotonic(),
        )


def _look(database: Database, name: str, now: int) -> tuple[Authority, Sequence[Listed]]:
    """Find the authority, and what its list has to name."""
    with database.reading() as connection:
        authority = authority_rows.by_name(connection, name)
        if authority is None:
            raise Missing("authority", name)
        if authority.purpose is not Purpose.SITE:
            raise Conflict(
                f'authority "{name}" signs for this server alone, and nothing is revoked'
            )
        family = [one.id for one in authority_rows.family(connection, authority.root)]
        listed = rows.listed(connection, issuer_id=authority.id, family=family, now=now)
    return authority, listed


def _sign(authority: Authority, listed: Sequence[Listed], keyring: Keyring, now: int) -> bytes:
    return crl.make_list(
        open_issuer(authority, keyring),
        [crl.Entry(serial=one.serial, at=one.at, superseded=one.superseded) for one in listed],
        number=now,
        now=now,
        lifetime_seconds=LIFETIME_SECONDS,
    )
