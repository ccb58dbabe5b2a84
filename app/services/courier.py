"""The courier: carries events to webhooks as the audit log's chain grows.

Whatever ends the process in between, an event is sent at least once; and normally once, because
each attempt is begun by one courier of however many there are.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from structlog.stdlib import BoundLogger

from app import posting
from app.crypto.sealing import Keyring
from app.domain.webhooks import Failure, Webhook, headers
from app.errors import Broken, GrantServerError, Misconfigured
from app.metrics import Delivering
from app.posting import Posted
from app.services import dispatch
from app.services.dispatch import MOST_WAITING, Attempt, Noted, Slots
from app.services.webhooks import secret_purpose
from app.store import deliveries as delivery_rows
from app.store import events as event_rows
from app.store import webhooks as webhook_rows
from app.store.engine import Connection, Database

LOOK_SECONDS: Final = 1.0
"""Between two looks at what is new or due, while nothing comes back."""


class Post(Protocol):
    """How a message is posted: `app.posting.post`."""

    def __call__(
        self, url: str, *, headers: Mapping[str, str], body: bytes, ca_pem: str | None
    ) -> Awaitable[Posted]:
        """Post it; whatever happens is an outcome, and no exception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What a turn has done: attempts begun, and outcomes noted; there may be `more` at once."""

    attempts: Sequence[Attempt] = ()
    noted: Sequence[Noted] = ()
    pending: int = 0
    more: bool = False


@dataclass(slots=True, kw_only=True)
class Courier:
    """Hands out and posts, turn by turn. Used from one event loop, and in a thread of it.

    `on_outcome` is told what came of each attempt, `on_pending` how many deliveries wait.
    """

    database: Database
    keyring: Keyring
    clock: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    log: BoundLogger
    on_outcome: Callable[[Delivering], None]
    on_pending: Callable[[int], None]
    post: Post = posting.post
    _flights: dict[asyncio.Task[None], str] = field(default_factory=dict)
    _returned: list[tuple[Attempt, Posted]] = field(default_factory=list)
    _failing: set[str] = field(default_factory=set)
    _served: dict[str, int] = field(default_factory=dict)  # in which turn, by webhook
    _turns: int = 0
    _well: bool = True
    _back: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Go on until cancelled; what has been answered by then is noted."""
        try:
            while True:
                self._back.clear()
                if not await self.turn():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_SECONDS):
                            await self._back.wait()
        finally:
            for flight in self._flights:
                flight.cancel()
            await self.settle()
            await self._do(self._note)

    async def turn(self) -> bool:
        """Note what came back, hand out what is new, and begin to post what is due.

        Tells whether there is more to be done at once.
        """
        self._turns += 1
        work = await self._do(self._work)
        for attempt in work.attempts:
            self._served[attempt.webhook.id] = self._turns
            flight = asyncio.create_task(self._send(attempt))
            self._flights[flight] = attempt.webhook.id
            flight.add_done_callback(self._land)
        return work.more

    async def settle(self) -> None:
        """Wait until no post is under way."""
        while self._flights:
            await asyncio.wait(list(self._flights))

    async def _do(self, step: Callable[[Sequence[tuple[Attempt, Posted]], Slots], _Work]) -> _Work:
        """Take a step in a thread, with all that came back; it comes back again if that fails."""
        returned, self._returned = self._returned, []
        failing = set(self._failing)
        for attempt, posted in returned:
            (failing.discard if posted.failure is None else failing.add)(attempt.webhook.id)
        slots = Slots(flying=Counter(self._flights.values()), failing=failing)
        try:
            work = await asyncio.to_thread(step, returned, slots)
        except Exception as error:  # noqa: BLE001 - the next turn may fare better
            self._returned = [*returned, *self._returned]
            if self._well or not isinstance(error, GrantServerError):
                self.log.warning("events cannot be handed out", why=str(error))
            self._well = False
            return _Work()
        self._well = True
        self.on_pending(work.pending)
        for noted in work.noted:
            self._tell(noted)
        return work

    def _work(self, returned: Sequence[tuple[Attempt, Posted]], slots: Slots) -> _Work:
        now = self.clock()
        with self.database.reading() as connection:
            pending = delivery_rows.count_pending(connection)
            waiting = sum(pending.values())
            end = event_rows.newest(connection)
            behind = any(one.position < end for one in self._open(connection, pending))
            if not (returned or behind or delivery_rows.is_due(connection, now)):
                return _Work(pending=waiting)
        with self.database.writing() as connection:
            noted = self._note_all(connection, returned, now)
            enabled = [one for one in webhook_rows.every(connection) if one.enabled]
            more = dispatch.hand_out(connection, self._open(connection, pending), now=now)
            in_turn = sorted(enabled, key=lambda one: self._served.get(one.id, 0))
            attempts = dispatch.begin(connection, in_turn, slots, now=now)
        return _Work(attempts=attempts, noted=noted, pending=waiting, more=more)

    def _note(self, returned: Sequence[tuple[Attempt, Posted]], _: Slots) -> _Work:
        """Note what came back, and begin nothing."""
        if not returned:
            return _Work()
        with self.database.writing() as connection:
            noted = self._note_all(connection, returned, self.clock())
            waiting = sum(delivery_rows.count_pending(connection).values())
        return _Work(noted=noted, pending=waiting)

    def _note_all(
        self, connection: Connection, returned: Sequence[tuple[Attempt, Posted]], now: int
    ) -> Sequence[Noted]:
        return [
            dispatch.note(connection, attempt, posted, now=now, random_bytes=self.random_bytes)
            for attempt, posted in returned
        ]

    def _open(self, connection: Connection, pending: Mapping[str, int]) -> Sequence[Webhook]:
        """Those who are told, and for whom not too much waits already."""
        return [
            one
            for one in webhook_rows.every(connection)
            if one.enabled and pending.get(one.id, 0) < MOST_WAITING
        ]

    def _land(self, flight: asyncio.Task[None]) -> None:
        del self._flights[flight]
        self._back.set()

    async def _send(self, attempt: Attempt) -> None:
        webhook, delivery = attempt.webhook, attempt.delivery
        body = delivery.body.encode()
        try:
            secret = self.keyring.open(webhook.sealed_secret, purpose=secret_purpose(webhook.id))
        except (Misconfigured, Broken):
            posted = Posted(failure=Failure.SECRET)
        else:
            signed = headers(secret, event_id=delivery.event_id, body=body, now=self.clock())
            posted = await self.post(webhook.url, headers=signed, body=body, ca_pem=webhook.ca_pem)
        self._returned.append((attempt, posted))

    def _tell(self, noted: Noted) -> None:
        """Count an outcome, and log what is new about its webhook; never its URL."""
        self.on_outcome(noted.outcome)
        webhook, posted = noted.attempt.webhook, noted.posted
        if posted.failure is None:
            if webhook.id in self._failing:
                self.log.info("a webhook takes events again", webhook=webhook.name)
            self._failing.discard(webhook.id)
            return
        why = posted.failure.value
        if webhook.id not in self._failing:
            self.log.warning(
                "a webhook takes no events", webhook=webhook.name, why=why, status=posted.status
            )
        self._failing.add(webhook.id)
        if noted.outcome is Delivering.DEAD:
            event_id = noted.attempt.delivery.event_id
            self.log.warning("an event was given up", webhook=webhook.name, id=event_id, why=why)
        if noted.disabled:
            self.log.warning("a webhook is gone, and was disabled", webhook=webhook.name)
