"""The controller: whichever replica holds the Lease serves the AccessGrants of a cluster.

It watches, keeps database and statuses in step, and looks at the database every second for what
other replicas have redeemed. It also sees to what makes the server reachable, and where sites
connect, to their AccessTokens. The others redeem as well as it does; all that they need is in the
database, and so nothing of this has to run for a redemption.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple, TypeVar

from structlog.stdlib import BoundLogger

from app import metrics as metric
from app.domain.reach import Reach
from app.errors import GrantServerError
from app.kube.backoff import Backoff
from app.kube.client import Kube
from app.kube.connecting import Connecting
from app.kube.elector import Elector, Terms
from app.kube.exposure.exposing import Exposing
from app.kube.grants import AccessGrants
from app.kube.grants import kept as kept_of_grant
from app.kube.informer import Change, Informer, Pace
from app.kube.namespaces import KEYS_KEPT_SECONDS, Namespaces, kept_of_secret
from app.kube.news import News
from app.kube.queue import Queue
from app.kube.recorder import Recorder
from app.kube.resources import ACCESS_GRANTS, SECRETS, SITES, Key
from app.kube.sites import kept as kept_of_site
from app.kube.threads import in_thread
from app.kube.watching import watching
from app.metrics import Metrics
from app.services.cluster import Cluster
from app.store.access_grants import Mark
from app.traces import Traces

T = TypeVar("T")

COMPONENT: Final = "grantserver"
_LOOK_SECONDS: Final = 1.0
"""Between two looks for what was redeemed elsewhere: a status follows within two seconds."""
_SHARE: Final = 5
"""A look may take a sixth of the time; it takes 0.1 s at 30,000 grants, and 0.5 s at 100,000. Where
that makes it rare, the news alone is looked at beside it, twice as often as usual."""
_BACKOFF: Final = Backoff(base_seconds=0.05, most_seconds=3.0)
"""Counts have to be right within seconds when an API server that was away is back."""
_WATCH_BACKOFF: Final = Backoff(base_seconds=0.2, most_seconds=3.0)
_NO_HELM: Final = "type!=helm.sh/release.v1"  # large, many, and none of them an issuer


class Work(NamedTuple):
    """A namespace to be settled, an AccessGrant to be reconciled, or keys to be forgotten."""

    kind: Literal["namespace", "grant", "keys"]
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}".rstrip(" /")


_KEYS: Final = Work("keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """Serves the AccessGrants of `namespaces`, or of all (None), as `identity`.

    `reach` tells how the server is reached, None while nobody knows, and then `waiting` what is
    waited for, to people. `exposing` says what is to be done about it, None: nothing; `connecting`
    the same about AccessTokens. `instant` gives the UTC time in seconds with its fraction,
    `monotonic` seconds that never jump.
    """

    kube: Kube
    cluster: Cluster
    namespaces: Sequence[str] | None
    lease: Key
    identity: str
    reach: Callable[[], Reach | None]
    waiting: Callable[[], str]
    clock: Callable[[], int]
    instant: Callable[[], float]
    monotonic: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    log: BoundLogger
    exposing: Exposing | None = None
    connecting: Connecting | None = None
    metrics: Metrics | None = None
    traces: Traces | None = None
    terms: Terms = field(default_factory=Terms)
    look_seconds: float = _LOOK_SECONDS
    pace: Pace = field(default_factory=lambda: Pace(backoff=_WATCH_BACKOFF))

    async def run(self) -> None:
        """Lead whenever nobody else does, until cancelled; gives the Lease back on a clean stop."""
        elector = Elector(
            self.kube,
            self.lease,
            self.identity,
            terms=self.terms,
            clock=self.instant,
            monotonic=self.monotonic,
            random_bytes=self.random_bytes,
            log=self.log,
            begun=lambda: bool(self.cluster.namespaces()),
        )
        # One that was stopped for a while, and goes on, has not been told yet that it is over.
        kube = self.kube.writing_while(lambda: elector.leading)
        await elector.run(lambda: self._lead(kube))

    async def _lead(self, kube: Kube) -> None:
        """Do all that one replica alone may do, until cancelled."""
        while True:
            try:
                # One that led before is kept from writing to the database by this.
                cluster = await in_thread(self.cluster.led)
                break
            except GrantServerError as error:
                self.log.warning("the database cannot be written", why=str(error))
                await asyncio.sleep(self.look_seconds)
        try:
            self._tell_leading(leading=True)
            await _Term(replace(self, kube=kube, cluster=cluster)).run()
        finally:
            self._tell_leading(leading=False)

    def _tell_leading(self, *, leading: bool) -> None:
        if self.metrics is not None:
            self.metrics.leads(leading)


class _OvertakenError(Exception):
    """Somebody else has begun to lead: this time of leading is over, whatever the Lease says."""


class _Term:
    """One time of leading: nothing is remembered from an earlier one."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._cluster = controller.cluster
        self._log = controller.log
        kube = controller.kube
        grants = self._grants_informer = self._informer(kube, "grants")
        sites = self._sites_informer = self._informer(kube, "sites")
        secrets = self._informer(kube, "secrets")
        self._informers = (grants, sites, secrets)
        self._recorder = Recorder(
            kube,
            component=COMPONENT,
            instance=controller.identity,
            clock=controller.instant,
            random_bytes=controller.random_bytes,
            log=self._log,
        )
        self._queue = Queue(
            self._work,
            backoff=_BACKOFF,
            random_bytes=controller.random_bytes,
            log=self._log,
        )
        self._namespaces = Namespaces(kube, self._cluster, sites, secrets)
        self._grants = AccessGrants(
            kube,
            self._cluster,
            grants,
            self._namespaces,
            self._recorder,
            reach=controller.reach,
            lack=controller.waiting,
            settle=self._settle,
            clock=controller.clock,
        )
        self._reached = (controller.reach(), controller.waiting())  # as the grants have it
        self._settled = False  # every namespace, once
        self._news = News(self._cluster)
        self._slow = False  # the last look at everything
        grants.on_change(self._grant_changed)
        sites.on_change(self._site_changed)
        secrets.on_change(self._secret_changed)

    def _informer(self, kube: Kube, kind: Literal["grants", "sites", "secrets"]) -> Informer:
        resource, transform, selector = {
            "grants": (ACCESS_GRANTS, kept_of_grant, ""),
            "sites": (SITES, kept_of_site, ""),
            "secrets": (SECRETS, kept_of_secret, _NO_HELM),
        }[kind]
        informer = Informer(
            kube,
            resource,
            namespaces=self._controller.namespaces,
            transform=transform,
            field_selector=selector,
            metadata_only=kind == "secrets",
            pace=self._controller.pace,
            random_bytes=self._controller.random_bytes,
            log=self._log,
        )
        informer.on_news(watching(self._controller.metrics, resource, self._controller.clock))
        return informer

    async def run(self) -> None:
        namespaces = self._controller.namespaces
        try:
            async with asyncio.TaskGroup() as group:
                for informer in self._informers:
                    group.create_task(informer.run())
                group.create_task(self._recorder.run())
                for work in (*self._exposing(), *self._connecting()):
                    group.create_task(work)
                # Before anything is shown: what is redeemed meanwhile is found by the next look.
                marks = await self._until_served(self._cluster.marks)
                self._queue.start()
                group.create_task(self._look(marks))
                group.create_task(self._follow())
                # One that cannot be watched, for want of rights or definitions, holds up no other.
                begun = [
                    group.create_task(self._begin(one))
                    for one in ([None] if namespaces is None else dict.fromkeys(namespaces))
                ]
                await asyncio.gather(*begun, return_exceptions=True)
                await self._queue.idle()
                self._settled = True
                self._queue.add_after(_KEYS, KEYS_KEPT_SECONDS)
        except* _OvertakenError:
            # If the Lease is ours all the same, we are asked again to lead.
            self._log.warning("somebody else leads by now")
        finally:
            await self._queue.stop()

    def _exposing(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What makes the server reachable, beside all else: neither waits for the other."""
        controller = self._controller
        if controller.exposing is None:
            return ()
        return controller.exposing.works(
            controller.kube,
            self._cluster,
            self._recorder,
            pace=controller.pace,
            monotonic=controller.monotonic,
            log=self._log,
        )

    def _connecting(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What is done about AccessTokens, beside all else as well."""
        controller = self._controller
        if controller.connecting is None:
            return ()
        work = controller.connecting.run(
            controller.kube, self._recorder, pace=controller.pace, log=self._log
        )
        return [work]

    async def _begin(self, scope: str | None) -> None:
        """Look at everything in one namespace once, or in all (None), when all of it is known.

        Also at what was deleted while nobody watched.
        """
        for informer in self._informers:
            await informer.wait_synced_in(scope)
        await self._look_at_all(scope)

    async def _look_at_all(self, scope: str | None) -> None:
        namespaces, grants = await self._until_served(
            lambda: (self._cluster.namespaces(), self._cluster.live_names())
        )
        there = [key for key in self._grants_informer if scope in {None, key.namespace}]
        sites = [key.namespace for key in self._sites_informer if scope in {None, key.namespace}]
        for namespace in (*namespaces, *sites):
            if scope in {None, namespace}:
                self._settle(namespace)
        for namespace, name in (*grants, *there):
            if scope in {None, namespace}:
                self._queue.add(Work("grant", namespace, name))
        self._log.info(
            "serving AccessGrants",
            namespace=scope or "all",
            access_grants=len(there),
            sites=len(sites),
        )

    async def _until_served(self, read: Callable[[], T]) -> T:
        while True:
            try:
                return await in_thread(read)
            except GrantServerError as error:
                self._log.warning("the database cannot be read", why=str(error))
                await asyncio.sleep(self._controller.look_seconds)

    async def _look(self, marks: Mapping[str, Mark]) -> None:
        """Find what has changed without a resource: redemptions, revocations, wrong codes.

        `marks` are those from before everything was looked at.
        """
        seen: dict[str, Mark] = {}  # since then, by whoever looked at a single grant
        while True:
            began = self._controller.monotonic()
            self._compare_reach()
            seen.update(self._grants.seen())
            try:
                if await in_thread(self._cluster.is_overtaken):
                    raise _OvertakenError
                await in_thread(self._news.begin)
                found = await in_thread(self._cluster.marks)
                set_back = await self._is_set_back({**marks, **seen}, found)
            except GrantServerError as error:
                self._log.debug("the database cannot be read", why=str(error))
            else:
                self._compare(marks, found)
                marks, seen = found, {}
                if set_back:
                    await self._begin_anew()
            took = self._controller.monotonic() - began
            self._slow = _SHARE * took > self._controller.look_seconds
            await asyncio.sleep(max(self._controller.look_seconds, _SHARE * took))

    async def _follow(self) -> None:
        """Look at the news where looks at everything are slow, and far between."""
        while True:
            await asyncio.sleep(self._controller.look_seconds / 2)
            if not self._slow:
                continue
            self._compare_reach()
            try:
                for key in await in_thread(self._news.read):
                    self._queue.add(Work("grant", *key))
            except GrantServerError as error:
                self._log.debug("the database cannot be read", why=str(error))

    def _compare_reach(self) -> None:
        """Have all grants told anew when the server is reached in another way."""
        reached = (self._controller.reach(), self._controller.waiting())
        if reached != self._reached:
            self._reached = reached
            for key in self._grants_informer:
                self._queue.add(Work("grant", *key))

    async def _is_set_back(self, before: Mapping[str, Mark], now: Mapping[str, Mark]) -> bool:
        """Tell whether another database, or an older state of it, has come in the place of ours.

        Then it knows less than before: grants of resources that are there, redemptions, or
        revocations. Raises Unavailable.
        """
        gone = []
        for grant_id, old in before.items():
            mark = now.get(grant_id)
            if mark is None:
                found = self._grants_informer.get(Key(old.namespace, old.name))
                if found is not None and found["metadata"]["uid"] == grant_id:
                    gone.append(grant_id)  # or it ended a while ago
            elif mark.spent < old.spent or (old.revoked and not mark.revoked):
                return True
        return bool(gone) and await in_thread(self._cluster.lacks, gone)

    async def _begin_anew(self) -> None:
        """Look at everything again, and take nothing that we remember of the database for true."""
        self._log.warning("the database knows less than before: it is brought up to date")
        self._namespaces.forget_all()
        self._grants.begin_anew()
        await self._look_at_all(None)

    def _compare(self, before: Mapping[str, Mark], now: Mapping[str, Mark]) -> None:
        for grant_id, mark in now.items():
            old = before.get(grant_id)
            if mark == old:
                continue
            key = Key(mark.namespace, mark.name)
            self._queue.add(Work("grant", *key))
            tried = mark.wrong_codes - (0 if old is None else old.wrong_codes)
            if tried > 0:
                self._grants.tell_refused(key, tried)

    async def _work(self, work: Work) -> float | None:
        metrics = self._controller.metrics
        if metrics is None:
            return await self._reconcile(work)
        began, done = self._controller.monotonic(), False
        try:
            wanted = await self._reconcile(work)
            done = True
        finally:
            took = self._controller.monotonic() - began
            kind = metric.Work(work.kind)
            metrics.reconciled(kind, took, done=done, waiting=len(self._queue))
            if self._controller.traces is not None:
                self._controller.traces.reconciled(kind, work.namespace, took, done=done)
        return wanted

    async def _reconcile(self, work: Work) -> float | None:
        if work == _KEYS:
            return await self._namespaces.forget_keys()
        if not self._knows(work.namespace):
            return None  # what is not watched must not pass for deleted
        if work.kind == "grant":
            return await self._grants.reconcile(Key(work.namespace, work.name))
        grants = self._grants.of(work.namespace)
        changed = await self._namespaces.settle(
            work.namespace, self._grants.issuers(work.namespace), wanted=bool(grants)
        )
        # Those that came in the meantime, and found no namespace, wait whatever has changed.
        waiting = self._grants.waiting(work.namespace)
        for key in self._grants.of(work.namespace) | waiting if changed else waiting:
            self._queue.add(Work("grant", *key))
        if changed and self._settled:
            self._queue.add_after(_KEYS, KEYS_KEPT_SECONDS)
        return self._namespaces.soonest(work.namespace, self._controller.clock())

    def _knows(self, namespace: str) -> bool:
        return all(informer.synced_in(namespace) for informer in self._informers)

    def _settle(self, namespace: str) -> None:
        self._queue.add(Work("namespace", namespace))

    def _grant_changed(self, change: Change) -> None:
        self._grants.note(change.key)
        if not self._grants.wrote(change.key, change.after):
            self._queue.add(Work("grant", *change.key))

    def _site_changed(self, change: Change) -> None:
        self._namespaces.note_site(change.key)
        self._settle(change.key.namespace)

    def _secret_changed(self, change: Change) -> None:
        if self._namespaces.asks_for(*change.key):
            self._settle(change.key.namespace)
