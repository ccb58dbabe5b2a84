"""Events of Kubernetes: what happened to an object, for who looks at it with `kubectl describe`.

They are a courtesy: telling one never waits and never fails. What cannot be sent soon is dropped,
what is told again is counted, and an object that the same is told about without end falls silent.
Each namespace has a line of its own: one whose Events are refused, or hang, holds up no other.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TypeVar

from structlog.stdlib import BoundLogger

from app.domain.limits import Allowance
from app.errors import Conflict, GrantServerError, Missing, Unavailable
from app.kube.backoff import Backoff, chance
from app.kube.client import Kube
from app.kube.queue import Queue
from app.kube.resources import EVENTS, Object, Resource

K = TypeVar("K")
V = TypeVar("V")

_MOST_WAITING: Final = 1000
_MOST_REMEMBERED: Final = 4000
_MOST_TRIES: Final = 8
_MOST_PATIENCE: Final = 60.0  # seconds, whatever the API server asks for
_BACKOFF: Final = Backoff(base_seconds=0.2, most_seconds=10.0)
_ALLOWANCE: Final = Allowance(burst=25, interval=60_000)
"""For each object and reason, in milliseconds: wrong codes, that anybody may try, are not to use up
the room of a redemption or of a theft."""
_LONGEST_MESSAGE: Final = 1024  # bytes, by the rules of the API server
_LONGEST_NAME: Final = 253


class Importance(StrEnum):
    """How an event is shown."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class _Told:
    """What was told; the same once more is not another event."""

    namespace: str
    kind: str
    api_version: str
    name: str
    uid: str
    importance: Importance
    reason: str
    message: str


@dataclass(slots=True)
class _Times:
    """How often, when for the first and when for the last time, and the event that says so."""

    first: str
    last: str
    count: int = 1
    event: str = ""
    tries: int = 0


class Recorder:
    """Tells events in the name of `component`, running as `instance`.

    `clock` gives the UTC time in seconds, with its fraction.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        component: str,
        instance: str,
        allowance: Allowance = _ALLOWANCE,
        backoff: Backoff = _BACKOFF,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        log: BoundLogger,
    ) -> None:
        self._kube = kube
        self._component = component
        self._instance = instance
        self._allowance = allowance
        self._backoff = backoff
        self._clock = clock
        self._random_bytes = random_bytes
        self._log = log
        # By namespace; one that is in here is worked on, or will be.
        self._waiting: dict[str, OrderedDict[_Told, _Times]] = {}
        self._remembered: OrderedDict[_Told, _Times] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, str], int] = OrderedDict()  # by UID and reason
        self._dropped: OrderedDict[str, int] = OrderedDict()  # by namespace, since the last success
        self._queue = Queue(self._send_next, random_bytes=random_bytes, log=log)

    def tell(
        self,
        resource: Resource,
        about: Object,
        reason: str,
        message: str,
        *,
        importance: Importance = Importance.NORMAL,
    ) -> None:
        """Tell what happened to an object: `reason` in one word, `message` for people."""
        metadata = about["metadata"]
        told = _Told(
            namespace=metadata["namespace"],
            kind=resource.kind,
            api_version=resource.api_version,
            name=metadata["name"],
            uid=metadata["uid"],
            importance=importance,
            reason=reason,
            message=_cut(message),
        )
        now = self._clock()
        if not self._allowed((told.uid, told.reason), int(now * 1000)):
            return
        when = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = self._waiting.get(told.namespace)
        times = None if line is None else line.get(told)
        if times is not None:
            times.count, times.last = times.count + 1, when
        elif self.waiting >= _MOST_WAITING:
            self._drop(told, "there are too many that wait")
        elif line is not None:
            line[told] = _Times(when, when)
        else:
            self._waiting[told.namespace] = OrderedDict({told: _Times(when, when)})
            self._queue.add(told.namespace)

    @property
    def waiting(self) -> int:
        """How many events wait to be sent."""
        return sum(len(line) for line in self._waiting.values())

    async def run(self) -> None:
        """Send what is told, until cancelled."""
        self._queue.start()
        try:
            await asyncio.Event().wait()
        finally:
            await self._queue.stop()

    async def _send_next(self, namespace: str) -> float | None:
        """Send what waits longest in a namespace; gives the seconds until it is tried again."""
        line = self._waiting[namespace]
        told, times = line.popitem(last=False)
        pause = await self._send(told, times)
        if pause is not None:
            later = line.get(told)
            if later is not None:
                times.count, times.last = times.count + later.count, later.last
            line[told] = times
            line.move_to_end(told, last=False)
            return pause
        if line:
            self._queue.add(namespace)  # after the other namespaces
        else:
            del self._waiting[namespace]
        return None

    async def _send(self, told: _Told, times: _Times) -> float | None:
        """Try once to send an event; gives the seconds after which to try again, if at all."""
        times.event = times.event or self._name(told)
        times.tries += 1
        try:
            await self._post(told, times)
        except Unavailable as error:
            # What is forbidden stays so for long: a right is missing, the namespace is on its end.
            if error.forbidden or times.tries >= _MOST_TRIES:
                self._drop(told, str(error))
                return None
            pause = self._backoff.delay(times.tries, chance(self._random_bytes))
            return max(pause, min(error.retry_after or 0.0, _MOST_PATIENCE))
        except GrantServerError as error:
            self._drop(told, str(error))
        except Exception:  # noqa: BLE001 - the next one may fare better
            self._log.exception("an event was not sent")
        else:
            self._dropped.pop(told.namespace, None)
        return None

    async def _post(self, told: _Told, times: _Times) -> None:
        before = self._remembered.get(told)
        if before is not None:
            count = before.count + times.count
            change = {"count": count, "lastTimestamp": times.last}
            try:
                await self._kube.patch(EVENTS, before.event, told.namespace, change)
            except Missing:
                del self._remembered[told]  # the API server keeps events for an hour
            else:
                before.count = count
                self._remembered.move_to_end(told)
                return
        # One that is there already is ours: only the answer was lost.
        with suppress(Conflict):
            await self._kube.create(EVENTS, self._body(told, times), told.namespace)
        _keep(self._remembered, told, times)

    def _name(self, told: _Told) -> str:
        unique = self._random_bytes(8).hex()
        return f"{told.name[: _LONGEST_NAME - len(unique) - 1].rstrip('-.')}.{unique}"

    def _allowed(self, bucket: tuple[str, str], now: int) -> bool:
        empty_at = self._buckets.get(bucket, 0)
        if self._allowance.wait(empty_at, now) > 0:
            return False
        _keep(self._buckets, bucket, self._allowance.fill(empty_at, now))
        return True

    def _drop(self, told: _Told, why: str) -> None:
        dropped = self._dropped.get(told.namespace, 0) + 1
        _keep(self._dropped, told.namespace, dropped)
        if dropped == 1:  # once, for others will follow
            self._log.warning("events are dropped", namespace=told.namespace, why=why)

    def _body(self, told: _Told, times: _Times) -> Object:
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": times.event, "namespace": told.namespace},
            "involvedObject": {
                "apiVersion": told.api_version,
                "kind": told.kind,
                "namespace": told.namespace,
                "name": told.name,
                "uid": told.uid,
            },
            "type": told.importance.value,
            "reason": told.reason,
            "message": told.message,
            "count": times.count,
            "firstTimestamp": times.first,
            "lastTimestamp": times.last,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
        }


def _keep(store: OrderedDict[K, V], key: K, value: V) -> None:
    """Remember something, and forget what was remembered longest ago if that is too much."""
    store[key] = value
    store.move_to_end(key)
    if len(store) > _MOST_REMEMBERED:
        store.popitem(last=False)


def _cut(message: str) -> str:
    return message.encode()[:_LONGEST_MESSAGE].decode(errors="ignore")
