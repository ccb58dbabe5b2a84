"""Which AccessGrants something was written down about, between two looks at all of them.

The audit log has each redemption and each revocation of every replica, in the transaction of the
act itself. On PostgreSQL an entry may come to light behind one with a higher number, so each
stretch is read for a while; what comes later still is found by the next look at everything.
"""

from collections.abc import Set as AbstractSet
from threading import Lock

from app.kube.resources import Key
from app.services.cluster import Cluster


class News:
    """The end of the audit log of a cluster's database. Blocking: to be called from threads."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._newest: int | None = None
        self._since = 0
        self._told: set[int] = set()
        self._lock = Lock()

    def begin(self) -> None:
        """Note where the log ends, right before everything is looked at.

        What comes after the call before this one may be told from now on. Raises Unavailable.
        """
        with self._lock:
            newest = self._cluster.newest_entry()
            # The end is nearer than it was when an older state of the database has come back.
            self._since = newest if self._newest is None else min(self._newest, newest)
            self._newest = newest
            self._told = {one for one in self._told if one > self._since}

    def read(self) -> AbstractSet[Key]:
        """Tell which AccessGrants there is news of, each entry once. Raises Unavailable."""
        with self._lock:
            if self._newest is None:
                return set()
            found = self._cluster.entries_after(self._since)
            fresh = {found[one] for one in found.keys() - self._told}
            self._told |= found.keys()
        return {Key(*one) for one in fresh if one is not None}
