"""Telling, once, of each certificate that ends soon and that nothing has taken the place of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.domain.renewals import Given, ends_soon, expiry_entry
from app.store import audit as audit_rows
from app.store import expiring as rows
from app.store.engine import Connection, Database
from app.store.expiring import Kind

_STEP: Final = 1000  # certificates looked at in one transaction
_MOST: Final = 50_000  # and in one sweep


@dataclass(slots=True, kw_only=True)
class ExpiryNotices:
    """Writes an entry of the audit log for each certificate that ends within `ahead_seconds`.

    0 turns it off. A sweep looks at `most` certificates, and the next one goes on behind them, so
    that each is looked at again and again. However many do this at once, of a certificate it is
    told once: the note of it is made in the transaction of the entry.
    """

    database: Database
    ahead_seconds: int
    clock: Callable[[], int]
    step: int = _STEP
    most: int = _MOST
    _places: dict[Kind, int] = field(default_factory=dict, init=False)

    def sweep(self) -> int:
        """Sweep once; tell of how many certificates it was told. Raises Unavailable."""
        if not self.ahead_seconds:
            return 0
        now = self.clock()
        told = sum(self._look_through(kind, now) for kind in Kind)
        with self.database.reading() as connection:
            over = rows.has_ended(connection, until=now)
        if over:
            with self.database.writing() as connection:
                rows.forget(connection, until=now, limit=self.step)
        return told

    def _look_through(self, kind: Kind, now: int) -> int:
        told = looked = 0
        while looked < self.most:
            after = self._places.get(kind, 0)
            with self.database.reading() as connection:
                stretch = rows.look(connection, kind, after=after, limit=self.step)
                found = self._ending(connection, kind, after, now)
            if found:
                with self.database.writing() as connection:
                    found = self._ending(connection, kind, after, now)  # somebody may be faster
                    for one in found:
                        audit_rows.add(connection, expiry_entry(one, now=now))
                    rows.note(connection, found)
            told += len(found)
            looked += stretch.rows
            if stretch.rows < self.step:
                self._places[kind] = 0
                break
            self._places[kind] = stretch.last
        return told

    def _ending(self, connection: Connection, kind: Kind, after: int, now: int) -> Sequence[Given]:
        until = now + self.ahead_seconds
        found = rows.ending(connection, kind, after=after, limit=self.step, now=now, until=until)
        return [one for one in found if ends_soon(one, now=now)]
