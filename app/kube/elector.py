"""Who of several replicas does the work that only one may do: whoever holds a Lease.

The holder renews it, and stops working early enough when it cannot; the others take it over when it
has not changed for its whole duration. Every process judges by its own clock alone, which never
jumps, so that clocks which disagree do no harm; the times in the Lease are for people.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any, Final, TypeVar

from structlog.stdlib import BoundLogger

from app.errors import Conflict, GrantServerError, Misconfigured, Missing, Unavailable
from app.kube.backoff import chance
from app.kube.client import Kube
from app.kube.resources import LEASES, Key, Object
from app.kube.threads import in_thread

T = TypeVar("T")

JITTER: Final = 0.2  # of the pause, so that those who wait do not ask all at the same moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The times of an election, in seconds.

    One who dies right after a renewal is followed after `lease_seconds` and twice the pause between
    two looks, for the renewal is seen at the next one, and so is the end of the Lease: 12.4 s with
    these, where the usual 15, 10 and 2 of Kubernetes' own controllers make 20 s. Those spare an API
    server with dozens of controllers in it; a request a second of each replica is not much either.
    A path that fails for less than `renew_seconds` changes nothing.

    Raises Misconfigured unless the holder stops before others may take over.
    """

    lease_seconds: int = 10
    """For so long after its last change nobody takes a Lease from its holder."""
    renew_seconds: float = 7.0
    """So long after its last renewal the holder's work is cancelled; the rest is for its end."""
    retry_seconds: float = 1.0
    """Between two renewals, and between two looks of those who wait."""
    call_seconds: float = 2.0
    """The limit of each request."""

    def __post_init__(self) -> None:
        if not 0 < self.retry_seconds <= self.renew_seconds < self.lease_seconds:
            raise Misconfigured(["a lease needs retry_seconds <= renew_seconds < lease_seconds"])
        if not 0 < self.call_seconds <= self.renew_seconds:
            raise Misconfigured(["a lease needs call_seconds <= renew_seconds"])


_TERMS: Final = Terms()


class Elector:
    """One candidate of an election; `identity` is unique to this process.

    `clock` gives the UTC time with its fraction, `monotonic` a time that never jumps; both in
    seconds. `begun` is asked in a thread, where there is no Lease, whether somebody has led before:
    whoever still does then makes the Lease again, and is given the time for that.
    """

    def __init__(
        self,
        kube: Kube,
        lease: Key,
        identity: str,
        *,
        terms: Terms = _TERMS,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        log: BoundLogger,
        begun: Callable[[], bool] = lambda: False,
    ) -> None:
        self._kube = kube
        self._begun = begun
        self._key = lease
        self._identity = identity
        self._terms = terms
        self._clock = clock
        self._monotonic = monotonic
        self._random_bytes = random_bytes
        self._log = log.bind(lease=str(lease), identity=identity)
        self._seen: Object = {}  # the specification of the Lease as it was last seen
        self._seen_at = -inf  # since when it has been like that
        self._lease: Object = {}  # ours, as the API server gave it back
        self._until = -inf  # we may work until then
        self._trouble = ""

    @property
    def leading(self) -> bool:
        """Whether it is us who may work, at this moment."""
        return self._monotonic() < self._until

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `work` whenever the Lease is ours, until cancelled.

        It is cancelled at the renew deadline, or when somebody else has got the Lease, and it is
        waited for; it begins anew when the Lease is ours again. When it ends, also by raising,
        the Lease is given to others first. On a clean stop the Lease is released when the work
        has ended.
        """
        while True:
            try:
                await self._wait_for_the_lease()
                await self._lead(work)
            except Exception:  # noqa: BLE001 - what ends here, nothing would begin again
                # Wherever it was, the work has ended by now.
                self._until = -inf
                self._log.exception("the election has failed")
            await self._pause()

    async def _wait_for_the_lease(self) -> None:
        while True:
            try:
                if await self._within(self._terms.call_seconds, self._take()):
                    return
            except Conflict:
                pass  # somebody else was faster
            except GrantServerError as error:
                self._troubled(str(error))
            else:
                self._trouble = ""
            await self._pause()

    async def _take(self) -> bool:
        """Take the Lease if it may be taken, and tell whether it is ours."""
        began = self._monotonic()
        try:
            lease = await self._kube.get(LEASES, self._key.name, self._key.namespace)
        except Missing:
            # Somebody may have deleted it while its holder works on.
            if not await self._may_make():
                return False
            body = self._body({}, first=True)
            self._hold(await self._kube.create(LEASES, body, self._key.namespace), began)
            return True
        specification = lease.get("spec") or {}
        if specification != self._seen:
            self._seen, self._seen_at = specification, self._monotonic()
        if not self._may_take(specification):
            return False
        await self._put(lease)
        return True

    async def _may_make(self) -> bool:
        """Tell whether a Lease that does not exist may be made: not in the place of its holder."""
        if self._seen or not await in_thread(self._begun):
            return self._may_take(self._seen)
        if self._seen_at == -inf:
            self._seen_at = self._monotonic()
        return self._monotonic() >= self._seen_at + self._terms.lease_seconds

    def _may_take(self, specification: Object) -> bool:
        holder = specification.get("holderIdentity") or ""
        if holder in {"", self._identity}:
            return True
        told = specification.get("leaseDurationSeconds")
        seconds = max(self._terms.lease_seconds, told if isinstance(told, int) else 0)
        return self._monotonic() >= self._seen_at + seconds

    async def _lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._log.info("leading")
        task = asyncio.create_task(work())
        try:
            while await self._goes_on(task) and await self._renew():
                pass
        finally:
            mine = self.leading
            await self._end(task)
            self._until = -inf
            if mine:
                await self._release()
            self._log.info("not leading any more")

    async def _goes_on(self, task: asyncio.Task[None]) -> bool:
        """Wait until it is time to renew; tell whether the work goes on."""
        left = self._until - self._monotonic()
        await asyncio.wait({task}, timeout=max(0.0, min(self._terms.retry_seconds, left)))
        return not task.done()

    async def _renew(self) -> bool:
        """Try once to renew, and tell whether we may go on, with or without success."""
        left = self._until - self._monotonic()
        try:
            if left > 0:
                seconds = min(left, self._terms.call_seconds)
                await self._within(seconds, self._put(self._lease))
                self._trouble = ""
        except (Conflict, Missing):
            return await self._contested()
        except GrantServerError as error:
            self._troubled(str(error))
        return self.leading

    async def _contested(self) -> bool:
        """Look who has changed or deleted the Lease, and tell whether it is still ours."""
        left = min(self._until - self._monotonic(), self._terms.call_seconds)
        try:
            if left > 0 and await self._within(left, self._take()):
                return True
        except GrantServerError as error:
            # Nobody knows; until the deadline it cannot be anybody else's.
            self._troubled(str(error))
            return self.leading
        self._until = -inf
        return False

    async def _end(self, task: asyncio.Task[None]) -> None:
        """Cancel the work and wait for its end; somebody else may begin only then."""
        late = max(0.0, self._until - self._monotonic()) + (
            self._terms.lease_seconds - self._terms.renew_seconds
        )
        task.cancel()
        _, going_on = await asyncio.wait({task}, timeout=late)
        if going_on:
            self._log.error("the work does not end, and the Lease does")
            await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("the work has failed", exc_info=error)

    async def _release(self) -> None:
        """Let others take the Lease at once; they can as well wait until it ends."""
        try:
            await self._within(self._terms.call_seconds, self._give_back())
        except GrantServerError as error:
            self._log.info("the lease was not released", why=str(error))

    async def _give_back(self) -> None:
        try:
            await self._put_nobody(self._lease)
        except Conflict:
            # A renewal may have arrived whose answer nobody has waited for any more.
            found = await self._kube.get(LEASES, self._key.name, self._key.namespace)
            if (found.get("spec") or {}).get("holderIdentity") == self._identity:
                await self._put_nobody(found)

    async def _put_nobody(self, lease: Object) -> None:
        specification = (lease.get("spec") or {}) | {
            "leaseDurationSeconds": 1,
            "renewTime": self._now(),
        }
        specification.pop("holderIdentity", None)
        await self._kube.replace(LEASES, lease | {"spec": specification}, self._key.namespace)

    async def _put(self, lease: Object) -> None:
        """Write ourselves into the version of the Lease that is given."""
        began = self._monotonic()
        body = self._body(lease.get("spec") or {})
        body["metadata"] = lease["metadata"]
        self._hold(await self._kube.replace(LEASES, body, self._key.namespace), began)

    def _hold(self, lease: Object, began: float) -> None:
        """Count from before the request was sent: others cannot have seen it any sooner."""
        self._lease = lease
        self._seen, self._seen_at = lease.get("spec") or {}, self._monotonic()
        self._until = began + self._terms.renew_seconds

    def _body(self, before: dict[str, Any], *, first: bool = False) -> Object:
        now = self._now()
        mine = before.get("holderIdentity") == self._identity
        passed_on = before.get("leaseTransitions")
        transitions = passed_on if isinstance(passed_on, int) else 0
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._key.name, "namespace": self._key.namespace},
            "spec": before
            | {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._terms.lease_seconds,
                "acquireTime": (before.get("acquireTime") if mine else None) or now,
                "renewTime": now,
                "leaseTransitions": transitions if mine or first else transitions + 1,
            },
        }

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    async def _pause(self) -> None:
        jitter = 1 + JITTER * chance(self._random_bytes)
        await asyncio.sleep(self._terms.retry_seconds * jitter)

    @staticmethod
    async def _within(seconds: float, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await call
        except TimeoutError as error:
            raise Unavailable(f"the API server did not answer within {seconds:.1f} s") from error

    def _troubled(self, why: str) -> None:
        tell = self._log.debug if self._trouble else self._log.warning
        tell("the lease cannot be looked at", why=why, leading=self.leading)
        self._trouble = why
