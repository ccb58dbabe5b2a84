"""One object kept as it is wanted, and never that of somebody else; and what is not wanted removed.

What follows for the address, and when to look again, is decided above.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from structlog.stdlib import BoundLogger

from app.domain.limits import Allowance
from app.errors import Conflict, Invalid, Missing
from app.kube.backoff import Backoff
from app.kube.client import Kube
from app.kube.exposure.objects import MANAGER, is_as_wanted, is_ours, kept
from app.kube.exposure.plan import MARK
from app.kube.exposure.service import is_fixed_otherwise
from app.kube.recorder import Importance, Recorder
from app.kube.resources import SERVICES, Key, Object, Resource, key_of

AGAIN_SECONDS: Final = 10.0
"""Between two looks at an object that is somebody else's: nobody tells us when it is gone."""

_REFUSED_SECONDS: Final = Backoff(base_seconds=AGAIN_SECONDS, most_seconds=300.0)
"""Between two tries of what the API server does not accept: whoever forbids it may be talked to."""

_ALLOWANCE: Final = Allowance(burst=20, interval=5_000)  # writes to an object, in milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it: the object that is there, if it is ours; else why there is none.

    `again` are the seconds after which to look once more, where nobody will tell.
    """

    found: Object | None = field(default=None, repr=False)
    problem: str = ""
    again: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """What was not accepted, for which state of the object, how often, and until when it counts."""

    wanted: Object = field(repr=False)
    seen: object = field(repr=False)
    times: int
    until: float


class Keeping:
    """Applies objects as one field manager, for one installation.

    An object that others fight about with us is written ever more slowly. `monotonic` gives seconds
    that never jump.
    """

    def __init__(
        self,
        kube: Kube,
        installation: str,
        recorder: Recorder,
        *,
        monotonic: Callable[[], float],
        log: BoundLogger,
    ) -> None:
        self._kube = kube
        self._installation = installation
        self._recorder = recorder
        self._monotonic = monotonic
        self._log = log
        self._full_until: dict[tuple[str, Key], int] = {}
        self._refused: dict[tuple[str, Key], _Refusal] = {}
        self._foreign: set[str] = set()  # by their UIDs; each is told of once

    async def keep(self, resource: Resource, seen: Object | None, wanted: Object) -> Outcome:
        """See to it that an object is as wanted; `seen` is what an informer has of it.

        Raises Unavailable, and Conflict when it has just been changed: then it is to be done again.
        """
        key = key_of(wanted)
        found = seen if seen is not None else await self._read(resource, key)
        if found is None:
            return await self._apply(resource, None, wanted)
        if not is_ours(found, self._installation):
            return self._leave(resource, key, found)
        if found["metadata"].get("deletionTimestamp"):
            return Outcome(problem=f"waiting for the end of {resource.kind} {key}")
        if resource == SERVICES and is_fixed_otherwise(found, wanted):
            await self.remove(resource, found)
            return Outcome(problem=f"waiting for the end of {resource.kind} {key}")
        if is_as_wanted(found, wanted):
            return Outcome(found=found)
        return await self._apply(resource, found, wanted)

    async def remove(self, resource: Resource, found: Object) -> None:
        """Delete an object of ours, and no other one of its name."""
        key = key_of(found)
        try:
            await self._kube.delete(resource, key.name, key.namespace, uid=found["metadata"]["uid"])
        except Missing:
            return
        self._log.info("removed", kind=resource.kind, object=str(key))

    async def clean(self, resource: Resource, namespace: str, kept_names: frozenset[str]) -> None:
        """Delete all of a kind that is ours and not to be kept. Raises Unavailable, Conflict."""
        try:
            listing = await self._kube.list(
                resource, namespace, label_selector=f"{MARK}={self._installation}"
            )
        except Missing:
            return  # the kind has gone, and with it all that there was
        for found in listing.items:
            if found["metadata"]["name"] not in kept_names and is_ours(found, self._installation):
                await self.remove(resource, found)

    async def _read(self, resource: Resource, key: Key) -> Object | None:
        """Look for one that no informer has: it has just been made, or it is somebody else's."""
        try:
            found = await self._kube.get(resource, key.name, key.namespace)
        except Missing:
            return None
        return kept(found)

    async def _apply(self, resource: Resource, found: Object | None, wanted: Object) -> Outcome:
        key = key_of(wanted)
        place = (resource.kind, key)
        refusal = self._refused.get(place)
        if found is not None and refusal is not None and refusal.wanted == wanted:
            left = refusal.until - self._monotonic()
            if refusal.seen == _asked_of(found) and left > 0:
                return Outcome(found=found, again=left)  # it has been said
        wait = self._wait(place)
        if wait > 0:
            problem = f"somebody else changes {resource.kind} {key} again and again"
            return Outcome(found=found, problem=problem, again=wait)
        body = wanted
        if found is not None:
            body = wanted | {"metadata": wanted["metadata"] | {"uid": found["metadata"]["uid"]}}
        try:
            # Without force what somebody has made since we looked is a conflict.
            made = await self._kube.apply(
                *(resource, body, key.namespace), manager=MANAGER, force=found is not None
            )
        except Invalid as error:
            if "metadata.uid" in error.field:  # there is another one of its name by now
                raise Conflict(str(error)) from error
            problem = f"{resource.kind} {key} was not accepted: {error}"
            return Outcome(
                found=found, problem=problem, again=self._refuse(resource, found, wanted, error)
            )
        self._refused.pop(place, None)
        what = "made" if found is None else "brought up to date"
        self._log.info(what, kind=resource.kind, object=str(key))
        return Outcome(found=kept(made))

    def _refuse(
        self, resource: Resource, found: Object | None, wanted: Object, error: Invalid
    ) -> float:
        """Remember what was not accepted, and say so once; gives the seconds to the next try."""
        place = (resource.kind, key_of(wanted))
        before = self._refused.get(place)
        times = before.times + 1 if before is not None and before.wanted == wanted else 1
        pause = _REFUSED_SECONDS.delay(times, 0.0)
        self._refused[place] = _Refusal(
            wanted=wanted,
            seen=None if found is None else _asked_of(found),
            times=times,
            until=self._monotonic() + pause,
        )
        if times == 1:
            self._log.error("not accepted", kind=place[0], object=str(place[1]), why=str(error))
            if found is not None:
                self._recorder.tell(
                    resource,
                    found,
                    "NotAccepted",
                    "The API server does not accept what GrantServer would change here, so it "
                    "stays as it is: an admission webhook or a policy may say why",
                    importance=Importance.WARNING,
                )
        return pause

    def _wait(self, place: tuple[str, Key]) -> float:
        now = int(self._monotonic() * 1000)
        full_until = self._full_until.get(place, 0)
        wait = _ALLOWANCE.wait(full_until, now)
        if wait == 0:
            self._full_until[place] = _ALLOWANCE.fill(full_until, now)
        return wait / 1000

    def _leave(self, resource: Resource, key: Key, found: Object) -> Outcome:
        problem = f"{resource.kind} {key} is there and not ours, so it is left alone"
        uid = found["metadata"]["uid"]
        if uid not in self._foreign:
            self._foreign.add(uid)
            self._log.warning("not ours", kind=resource.kind, object=str(key))
            self._recorder.tell(
                resource,
                found,
                "NotOurs",
                "GrantServer would make an object of this name, and leaves this one alone: "
                "remove or rename it, or give GrantServer another name",
                importance=Importance.WARNING,
            )
        return Outcome(problem=problem, again=AGAIN_SECONDS)


def _asked_of(found: Object) -> object:
    """Give what others may have changed of an object since it was refused, and not its status."""
    return found.get("spec"), found["metadata"].get("annotations")
