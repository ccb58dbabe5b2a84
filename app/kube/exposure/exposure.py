"""The exposure reconciler: what makes the server reachable is there, and where that is, is told.

It is the work of whoever holds the Lease. Everybody reads the row that it keeps; while the API
server is away the row stays as it is, for the way in does not depend on that. When nothing changes
nothing is written.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal

from structlog.stdlib import BoundLogger

from app.domain.exposure import Way, stable_choice
from app.errors import Conflict, GrantServerError, Unavailable
from app.kube.backoff import Backoff, chance
from app.kube.client import Kube
from app.kube.exposure.discovery import discover
from app.kube.exposure.keeping import Keeping
from app.kube.exposure.objects import kept, owned_by
from app.kube.exposure.owner import owner
from app.kube.exposure.plan import Observed, Plan, Served, Wanted
from app.kube.exposure.ways import WAYS, WayIn, chosen
from app.kube.informer import Informer, Pace
from app.kube.queue import Queue
from app.kube.recorder import Recorder
from app.kube.resources import (
    INGRESSES,
    ROUTES,
    SERVICES,
    Object,
    Resource,
    gateways,
    tls_routes,
)
from app.kube.threads import in_thread
from app.services import addresses
from app.store.addresses import AddressRow
from app.store.engine import Database

Work = Literal["objects", "remains"]

_BACKOFF: Final = Backoff(base_seconds=0.1, most_seconds=10.0)
_LACKING_SECONDS: Final = 30.0  # between two looks for an API that is not served
_SERVED_SECONDS: Final = 300.0  # between two looks at what is served: clusters are upgraded
_SEEN_SECONDS: Final = 10.0  # which listing takes at most while all is well
_REMAINS_SECONDS: Final = 300.0  # between two tries to remove what is left of other ways in


class Exposure:
    """Keeps the objects of a way in, and the row of the addresses.

    Made anew for each time of leading: what an earlier leader made is found in the cluster.
    `clock` gives UTC seconds, `monotonic` seconds that never jump.
    """

    def __init__(
        self,
        kube: Kube,
        plan: Plan,
        database: Database,
        recorder: Recorder,
        *,
        pace: Pace,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        log: BoundLogger,
    ) -> None:
        self._kube = kube
        self._plan = plan
        self._database = database
        self._keeping = Keeping(kube, plan.installation, recorder, monotonic=monotonic, log=log)
        self._pace = pace
        self._clock = clock
        self._random_bytes = random_bytes
        self._log = log
        self._served = Served()
        self._way: WayIn = WAYS[Way.URL]
        self._queue = self._new_queue()
        self._informers: dict[str, Informer] = {}

    async def run(self) -> None:
        """Keep everything as it is to be, until cancelled."""
        while True:
            await self._find_the_way()
            await self._go_it()

    async def _go_it(self) -> None:
        """Keep the objects of the way in until the API server serves something else for it."""
        self._queue, self._informers = self._new_queue(), {}
        try:
            async with asyncio.TaskGroup() as group:
                tasks = []
                for wanted in self._wanted():
                    informer = self._informers[wanted.resource.kind] = self._informer(
                        wanted.resource
                    )
                    tasks.append(group.create_task(informer.run()))
                tasks.append(group.create_task(self._begin()))
                # Also while nothing was seen yet: what is not served any more is never seen.
                await self._until_served_otherwise()
                for task in tasks:
                    task.cancel()
        finally:
            await self._queue.stop()

    async def _begin(self) -> None:
        """Begin to work once it is known what there is."""
        await self._until_seen()
        self._queue.add("objects")
        self._queue.add("remains")
        self._queue.start()

    async def _until_seen(self) -> None:
        """Wait until all that there is has been seen, and say so if that takes long."""
        for kind, informer in self._informers.items():
            while not informer.synced:
                try:
                    async with asyncio.timeout(_SEEN_SECONDS):
                        await informer.wait_synced()
                except TimeoutError:
                    why = f"the API server does not show us a {kind}: the log says why"
                    await self._tell_trouble(Unavailable(why))

    async def _until_served_otherwise(self) -> None:
        """Wait until there is another way in, or its objects are served in other versions."""
        while True:
            await asyncio.sleep(_SERVED_SECONDS)
            try:
                served = await discover(self._kube)
            except GrantServerError as error:
                self._log.debug("nobody knows what the API server serves", why=str(error))
                continue
            if self._resources(served) != self._resources(self._served):
                self._log.info("the API server serves something else")
                return

    async def _find_the_way(self) -> None:
        """Choose the way in, as soon as the API server serves what it takes."""
        failures = 0
        while True:
            try:
                if await self._found_the_way():
                    return
                failures, pause = 0, _LACKING_SECONDS
            except GrantServerError as error:
                failures += 1
                pause = _BACKOFF.delay(failures, chance(self._random_bytes))
                tell = self._log.warning if failures == 1 else self._log.debug
                tell("nobody knows what the API server serves", why=str(error))
                await self._tell_trouble(error)
            await asyncio.sleep(pause)

    async def _found_the_way(self) -> bool:
        served = await discover(self._kube)
        way = chosen(self._plan.way, served)
        lacking = WAYS[way].lacking(self._plan, served)
        if lacking:
            await self._tell(Observed(waiting=lacking))
            return False
        self._served, self._way = served, WAYS[way]
        self._log.info("way in", way=way.value, objects=str(self._plan.objects))
        return True

    def _wanted(self) -> Sequence[Wanted]:
        return self._way.wanted(self._plan, self._served)

    def _resources(self, served: Served) -> Sequence[Resource]:
        """The kinds of what would be made, none where something is lacking."""
        way = WAYS[chosen(self._plan.way, served)]
        if way.lacking(self._plan, served):
            return ()
        return [one.resource for one in way.wanted(self._plan, served)]

    def _new_queue(self) -> Queue[Work]:
        return Queue(
            self._work,
            workers=1,
            backoff=_BACKOFF,
            random_bytes=self._random_bytes,
            log=self._log,
        )

    def _informer(self, resource: Resource) -> Informer:
        informer = Informer(
            self._kube,
            resource,
            namespaces=[self._plan.objects.namespace],
            transform=kept,
            label_selector=self._plan.selects_ours,
            pace=self._pace,
            random_bytes=self._random_bytes,
            log=self._log,
        )
        informer.on_change(lambda _: self._queue.add("objects"))
        return informer

    async def _work(self, work: Work) -> float | None:
        if work == "objects":
            return await self._keep()
        # The role may be for one way in only, and then nothing is left of the others.
        return None if await self._remove_remains() else _REMAINS_SECONDS

    async def _keep(self) -> float | None:
        """Bring the objects about, see what address they have, and tell it."""
        found: dict[str, Object] = {}
        again: list[float] = []
        observed: Observed | None = None
        try:
            deployment = await owner(self._kube, self._plan.objects, self._plan.deployment)
            for wanted in self._wanted():
                outcome = await self._keeping.keep(
                    wanted.resource,
                    self._informers[wanted.resource.kind].get(self._plan.objects),
                    owned_by(wanted.body, deployment),
                )
                again += [] if outcome.again is None else [outcome.again]
                if outcome.found is None:
                    observed = Observed(waiting=outcome.problem)
                    break  # nothing may lead to what is not there, or to somebody else's
                found[wanted.resource.kind] = outcome.found
        except Conflict:
            raise
        except GrantServerError as error:
            await self._tell_trouble(error)
            raise
        await self._tell(observed or self._way.observed(self._plan, found))
        return min(again, default=None)

    async def _tell(self, observed: Observed) -> None:
        """Write where the server is reached, if that has changed."""
        before = await in_thread(addresses.told, self._database)
        observed = self._as_asked(observed, before.url)
        choice = stable_choice(observed.addresses, before.url)
        row = AddressRow(url="", problem=observed.waiting)
        if choice is not None:
            # All of them: tokens may carry another URL, and these lead to us nevertheless.
            row = AddressRow(url=choice.url, hosts=observed.hosts)
        if not await in_thread(addresses.tell, self._database, row, now=self._clock()):
            return
        if choice is not None:
            self._log.info("reached at", url=row.url, hosts=list(row.hosts))
        elif observed.waiting:
            self._log.warning("no address", why=observed.waiting)

    def _as_asked(self, observed: Observed, before: str) -> Observed:
        """Leave out a host that nobody of us has asked for, unless tokens carry it already."""
        asked = self._plan.public_host
        if not asked or not observed.addresses:
            return observed
        known = tuple(one for one in observed.addresses if asked == one.host or one.url == before)
        if known:
            others = tuple(one.host for one in observed.addresses if one not in known)
            return replace(observed, addresses=known, names=(*others, *observed.names))
        where = self._plan.objects
        return Observed(waiting=f"{where} has another host than {asked}: somebody has changed it")

    async def _tell_trouble(self, error: GrantServerError) -> None:
        """Say why nothing is known; what is known stays, for what leads to us does not go away."""
        try:
            if not (await in_thread(addresses.told, self._database)).url:
                await self._tell(Observed(waiting=str(error)))
        except GrantServerError as trouble:
            self._log.debug("the database does not serve us", why=str(trouble))

    async def _remove_remains(self) -> bool:
        """Remove what is left of another way in, or from under another name; tell whether all."""
        wanted = {one.resource for one in self._wanted()}
        name, namespace = self._plan.objects.name, self._plan.objects.namespace
        done = True
        for resource in self._kinds():
            names = frozenset({name} if resource in wanted else ())
            try:
                await self._keeping.clean(resource, namespace, names)
            except GrantServerError as error:
                self._log.info("not looked for", kind=resource.kind, why=str(error))
                done = False
        return done

    def _kinds(self) -> Sequence[Resource]:
        """All kinds that a way in may have, as far as they are served; what faces outside first."""
        served = self._served
        return (
            *((ROUTES,) if served.routes else ()),
            *((tls_routes(served.tls_routes),) if served.tls_routes else ()),
            *((gateways(served.gateways),) if served.gateways else ()),
            INGRESSES,
            SERVICES,
        )
