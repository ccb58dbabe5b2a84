"""A copy of all objects of a kind, kept up to date by watching; changes are told to who wants.

What is asked of the copy costs no call, and it stays as it was while the API server is away. What
happened while nobody watched comes out of the comparison with the next full list.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf
from typing import Final

from structlog.stdlib import BoundLogger

from app.errors import GrantServerError, Missing
from app.kube.backoff import Backoff, chance
from app.kube.client import Kube
from app.kube.resources import Key, Object, Resource, key_of
from app.kube.stream import Event, Seen

_BACKOFF: Final = Backoff(base_seconds=0.2, most_seconds=30.0)
_SHORT_SECONDS: Final = 1.0  # a watch that ends sooner, with nothing told, was none


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How an informer goes about it."""

    page: int = 250
    """Objects in one answer to a list."""
    watch_seconds: int = 290
    """After which a watch is begun anew: below the five minutes at which proxies end a request."""
    idle_seconds: float = 75.0
    """After which a silent watch is taken for dead: a bookmark comes once a minute."""
    backoff: Backoff = _BACKOFF


_PACE: Final = Pace()


class What(StrEnum):
    """What happened to an object."""

    ADDED = "added"
    CHANGED = "changed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that happened to an object: as it was `before` and as it is `after`, if it is.

    An object that was deleted and made anew under its name is two changes, for it is another.
    """

    what: What
    key: Key
    before: Object | None = field(default=None, repr=False)
    after: Object | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Kept:
    uid: str
    version: str
    kept: Object = field(repr=False)
    older: frozenset[str] = frozenset()
    """Versions that writes of ours have replaced, and that may still come."""


@dataclass(slots=True)
class _Scope:
    """One namespace, or all (None): how far it is watched."""

    namespace: str | None
    log: BoundLogger
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    version: str | None = None
    too_old: bool = False
    failures: int = 0
    heard: bool = False  # something, since the last time that of all of them something was


class Informer:
    """Knows all objects of one kind, in all `namespaces` (None) or in those that are named.

    `transform` takes an object as it came and gives what is kept of it: without what is large or
    secret and not needed; None when it is not to be known at all. It may change what it is given.
    With `metadata_only` nothing else of an object is asked for, but may come all the same.
    """

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        *,
        namespaces: Sequence[str] | None = None,
        transform: Callable[[Object], Object | None] | None = None,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        pace: Pace = _PACE,
        random_bytes: Callable[[int], bytes],
        log: BoundLogger,
    ) -> None:
        self._kube = kube
        self._on_news: Callable[[], None] = lambda: None
        self._resource = resource
        self._transform = transform
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._metadata_only = metadata_only
        self._pace = pace
        self._random_bytes = random_bytes
        self._log = log.bind(resource=str(resource))
        self._store: dict[Key, _Kept] = {}
        self._handlers: list[Callable[[Change], None]] = []
        names: Sequence[str | None] = (
            [None] if namespaces is None else list(dict.fromkeys(namespaces))
        )
        self._scopes = [_Scope(one, self._log.bind(namespace=one or "all")) for one in names]

    def on_change(self, handler: Callable[[Change], None]) -> None:
        """Have `handler` called with every change from now on; it must be quick.

        All that there is when the informer begins is a change as well.
        """
        self._handlers.append(handler)

    def on_news(self, handler: Callable[[], None]) -> None:
        """Have `handler` called when something was heard of every namespace since the last time.

        That nothing is new counts, as the API server says now and then.
        """
        self._on_news = handler

    def get(self, key: Key) -> Object | None:
        """Give an object as it was last seen; not to be changed."""
        found = self._store.get(key)
        return None if found is None else found.kept

    def put(self, found: Object, *, instead_of: str) -> None:
        """Take what a write of ours has made of the version `instead_of`, before the watch tells.

        The next write then knows its version, even if the watch has died and nobody knows yet.
        """
        old = self._store.get(key_of(found))
        uid, version = found["metadata"]["uid"], found["metadata"]["resourceVersion"]
        # Otherwise the watch has come farther than this already.
        if old is not None and (old.uid, old.version) == (uid, instead_of) != (uid, version):
            self._put(found, older=old.older | {instead_of})

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._store))

    def __len__(self) -> int:
        return len(self._store)

    @property
    def synced(self) -> bool:
        """Whether all that there was has been seen once: only then an absent object is absent."""
        return all(scope.synced.is_set() for scope in self._scopes)

    async def wait_synced(self) -> None:
        """Wait until it is."""
        for scope in self._scopes:
            await scope.synced.wait()

    def synced_in(self, namespace: str) -> bool:
        """Whether all that there was in one of the namespaces has been seen once."""
        return any(
            scope.synced.is_set() for scope in self._scopes if scope.namespace in {None, namespace}
        )

    async def wait_synced_in(self, namespace: str | None) -> None:
        """Wait until it is; None where all namespaces are watched as one."""
        for scope in self._scopes:
            if scope.namespace == namespace:
                await scope.synced.wait()

    async def run(self) -> None:
        """List, watch, and begin again whatever happens, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for scope in self._scopes:
                group.create_task(self._follow(scope))

    async def _follow(self, scope: _Scope) -> None:
        """Keep the copy of one namespace, or of all."""
        while True:
            scope.too_old = False
            why = await self._turn(scope)
            if why is None:
                scope.failures = 0
                continue
            scope.failures += 1
            if scope.too_old and scope.failures == 1:
                continue  # versions do get too old: there is nothing to wait for
            pause = self._pace.backoff.delay(scope.failures, chance(self._random_bytes))
            tell = scope.log.warning if scope.failures == 1 else scope.log.debug
            tell("not watching", why=why, pause_seconds=round(pause, 1))
            await asyncio.sleep(pause)

    async def _turn(self, scope: _Scope) -> str | None:
        """List if need be, and watch until it ends; tell why, unless it was time to."""
        loop = asyncio.get_running_loop()
        try:
            if scope.version is None:
                scope.version = await self._list(scope)
            async with self._kube.watch(
                self._resource,
                scope.namespace,
                version=scope.version,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                watch_seconds=self._pace.watch_seconds,
                idle_seconds=self._pace.idle_seconds,
                metadata_only=self._metadata_only,
            ) as events:
                opened = loop.time()
                try:
                    async for seen in events:
                        if scope.failures:
                            scope.log.info("watching again")
                        scope.failures = 0
                        scope.version = seen.version
                        self._see(seen)
                        self._hear_from(scope)
                        opened = -inf
                finally:
                    well = loop.time() - opened >= _SHORT_SECONDS
                    scope.failures = 0 if well else scope.failures
        except Missing as error:
            scope.too_old = scope.version is not None
            scope.version = None
            return str(error)
        except GrantServerError as error:
            return str(error)
        except Exception:
            # A fault of ours must not end the watching, which nothing would begin again.
            scope.log.exception("the watch has failed")
            scope.version = None
            return "a fault in the program"
        return None if well else "the watch ended at once"

    async def _list(self, scope: _Scope) -> str:
        """Compare the copy with what there is, and give the version from which to watch."""
        there: set[Key] = set()
        version, more = await self._take_page(scope, there)
        while more:
            version, more = await self._take_page(scope, there, more)
        for key in self:
            if scope.namespace in {None, key.namespace} and key not in there:
                self._drop(key)
        scope.synced.set()
        self._hear_from(scope)
        scope.log.debug("listed", objects=len(there))
        return version

    async def _take_page(self, scope: _Scope, there: set[Key], at: str = "") -> tuple[str, str]:
        """Put a page of a list into the copy; give the version of the list, and the next page.

        Nothing of a page is held while the next one is waited for: objects may be large.
        """
        page = await self._kube.page(
            self._resource,
            scope.namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            size=self._pace.page,
            at=at,
            metadata_only=self._metadata_only,
        )
        there.update(key_of(found) for found in page.items)
        for found in page.items:
            self._put(found)
        return page.version, page.more

    def _hear_from(self, scope: _Scope) -> None:
        """Tell of news once there were some of every namespace: one that is silent counts."""
        scope.heard = True
        if all(one.heard for one in self._scopes):
            for one in self._scopes:
                one.heard = False
            self._on_news()

    def _see(self, seen: Seen) -> None:
        if seen.event in {Event.ADDED, Event.MODIFIED}:
            self._put(seen.found)
        elif seen.event is Event.DELETED:
            self._drop(key_of(seen.found))

    def _put(self, found: Object, older: frozenset[str] = frozenset()) -> None:
        key, metadata = key_of(found), found["metadata"]
        uid, version = metadata["uid"], metadata["resourceVersion"]
        old = self._store.get(key)
        if old is not None and old.uid == uid:
            if old.version == version:
                self._store[key] = replace(old, older=frozenset())  # the watch has come up with us
                return
            if version in old.older:
                return
        try:
            kept = found if self._transform is None else self._transform(found)
        except Exception:  # noqa: BLE001 - it must not keep us from the others, nor pass for deleted
            self._log.exception("an object was not read", object=str(key))
            return
        if old is not None and (kept is None or old.uid != uid):
            self._drop(key)
            old = None
        if kept is None:
            return
        self._store[key] = _Kept(uid, version, kept, older)
        if old is None:
            self._tell(Change(what=What.ADDED, key=key, after=kept))
        else:
            self._tell(Change(what=What.CHANGED, key=key, before=old.kept, after=kept))

    def _drop(self, key: Key) -> None:
        old = self._store.pop(key, None)
        if old is not None:
            self._tell(Change(what=What.DELETED, key=key, before=old.kept))

    def _tell(self, change: Change) -> None:
        for handler in self._handlers:
            try:
                handler(change)
            except Exception:  # noqa: BLE001 - the others are to hear of it all the same
                self._log.exception("a change was not taken", object=str(change.key))
