"""Accounts of a cluster: who its API server says somebody is, and how they are named here."""

import re
from dataclasses import dataclass
from typing import Final

from app.domain.callers import LONGEST_CALLER, Caller, Kind

_SERVICE_ACCOUNT: Final = re.compile(r"system:serviceaccount:([^:/]+):([^:/]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """All that the API server tells of a user, which it wants to be told again to judge a right."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def caller(self) -> Caller | None:
        """Who that is: `NAMESPACE/NAME` of a service account, else `user:` and the user name.

        So nobody can be called like a service account. None for a name that no log could show.
        """
        found = _SERVICE_ACCOUNT.fullmatch(self.username)
        name = f"{found[1]}/{found[2]}" if found else f"user:{self.username}"
        if not self.username or not name.isprintable() or len(name) > LONGEST_CALLER:
            return None
        return Caller(kind=Kind.ACCOUNT, name=name)
