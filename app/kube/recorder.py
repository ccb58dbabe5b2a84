"""Events of Kubernetes: what happened to an object, for who looks at it with `kubectl describe`.

They are a courtesy: telling one never waits and never fails. What cannot be sent soon is dropped,
what is told again is counted, and an object that is told about without end falls silent.
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
from app.kube.resources import EVENTS, Object, Resource

K = TypeVar("K")
V = TypeVar("V")

_MOST_WAITING: Final = 1000
_MOST_REMEMBERED: Final = 4000
_MOST_TRIES: Final = 8
_MOST_PATIENCE: Final = 60.0  # seconds, whatever the API server asks for
_BACKOFF: Final = Backoff(base_seconds=0.2, most_seconds=10.0)
_ALLOWANCE: Final = Allowance(burst=25, interval=60_000)  # for each object, in milliseconds
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
        self._waiting: OrderedDict[_Told, _Times] = OrderedDict()
        self._remembered: OrderedDict[_Told, _Times] = OrderedDict()
        self._buckets: OrderedDict[str, int] = OrderedDict()
        self._something = asyncio.Event()
        self._dropped = 0

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
        if not self._allowed(told.uid, int(now * 1000)):
            return
        when = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        times = self._waiting.get(told)
        if times is not None:
            times.count, times.last = times.count + 1, when
        elif len(self._waiting) < _MOST_WAITING:
            self._waiting[told] = _Times(when, when)
            self._something.set()
        else:
            self._drop("there are too many that wait")

    async def run(self) -> None:
        """Send what is told, until cancelled."""
        while True:
            await self._something.wait()
            while self._waiting:
                told, times = self._waiting.popitem(last=False)
                await self._send(told, times)
            self._something.clear()

    async def _send(self, told: _Told, times: _Times) -> None:
        times.event = self._name(told)
        why = ""
        for tries in range(1, _MOST_TRIES + 1):
            try:
                await self._post(told, times)
            except Unavailable as error:
                why = str(error)
                pause = self._backoff.delay(tries, chance(self._random_bytes))
                await asyncio.sleep(max(pause, min(error.retry_after or 0.0, _MOST_PATIENCE)))
            except GrantServerError as error:
                why = str(error)
                break
            except Exception:  # noqa: BLE001 - the next one may fare better
                self._log.exception("an event was not sent")
                return
            else:
                self._dropped = 0
                return
        self._drop(why)

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

    def _allowed(self, uid: str, now: int) -> bool:
        empty_at = self._buckets.get(uid, 0)
        if self._allowance.wait(empty_at, now) > 0:
            return False
        _keep(self._buckets, uid, self._allowance.fill(empty_at, now))
        return True

    def _drop(self, why: str) -> None:
        self._dropped += 1
        if self._dropped == 1:  # once, for others will follow
            self._log.warning("events are dropped", why=why)

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
