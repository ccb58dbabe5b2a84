"""What an API server was asked: every request, for tests that count them."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

WRITES: Final = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(slots=True, kw_only=True)
class Request:
    """One request, in RBAC's words; `code` is 0 until it is answered, or for ever.

    `accept` is the header, which only ours tells.
    """

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    user: str = ""
    path: str = ""
    accept: str = ""
    code: int = 0

    @property
    def is_write(self) -> bool:
        return self.verb in WRITES

    @property
    def rule(self) -> tuple[str, str, str]:
        """What a role must allow for it: group, resource with subresource, verb."""
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return self.group, resource, self.verb


class Requests:
    """The requests of a server since it started, or since they were cleared."""

    def __init__(self) -> None:
        self._all: list[Request] = []
        self._lock = threading.Lock()

    def add(self, request: Request) -> None:
        with self._lock:
            self._all.append(request)

    def clear(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self._all.clear()

    def __iter__(self) -> Iterator[Request]:
        with self._lock:
            return iter(list(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def of(self, **which: str) -> list[Request]:
        """Those with these values, e.g. `of(verb="patch", resource="accessgrants")`.

        A user is found by the name that its token was made for, too.
        """
        return [
            one
            for one in self
            if all(
                getattr(one, name) == wanted
                or (name == "user" and one.user.rpartition(":")[2] == wanted)
                for name, wanted in which.items()
            )
        ]

    def writes(self, **which: str) -> list[Request]:
        """Those of them that were to change something."""
        return [one for one in self.of(**which) if one.is_write]

    def rules(self, **which: str) -> set[tuple[str, str, str]]:
        """What a role must allow for all of them: group, resource, verb."""
        return {one.rule for one in self.of(**which) if one.resource}
