"""What the courier does in transactions: hand events out, begin attempts, note what came of them.

The caller holds the transaction. An event is handed out in the one that moves its webhook's
position, and its row is deleted after it has arrived: in between it is never not there.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final

from app.domain.audit import Act, Entry
from app.domain.webhooks import MOST_ATTEMPTS, Delivery, Webhook, wait_seconds
from app.errors import Broken
from app.metrics import Delivering
from app.posting import Posted
from app.store import audit as audit_rows
from app.store import deliveries as rows
from app.store import events as event_rows
from app.store import webhooks as webhook_rows
from app.store.engine import Connection

MOST_AT_ONCE: Final = 8
MOST_OF_ONE: Final = 4  # posts to one webhook
MOST_IN_DOUBT: Final = 4  # posts to webhooks whose last one failed, and one to each of them

MOST_WAITING: Final = 10_000
"""Deliveries of a webhook that wait; further events wait in the audit log, and lose nothing."""

CLAIM_SECONDS: Final = 60
"""So long an attempt may take, far more than it can: then it is begun anew, by anybody."""

_STEP: Final = 1000  # rows written in one transaction
_RANDOM_BYTES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt to deliver, which was begun; nobody else begins one for a while."""

    webhook: Webhook
    delivery: Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What came of an attempt, as it was written down; `disabled`: the webhook is told no more."""

    attempt: Attempt
    posted: Posted
    outcome: Delivering
    disabled: bool = False


@dataclass(slots=True, kw_only=True)
class Slots:
    """Who may post how much: `flying` is what is under way, by webhook, `failing` who fails.

    However many of them do not answer, half of the slots are for the others.
    """

    flying: Counter[str] = field(default_factory=Counter)
    failing: Collection[str] = frozenset()

    def room(self, webhook_id: str) -> int:
        """How many posts to a webhook may be begun."""
        room = MOST_AT_ONCE - self.flying.total()
        if webhook_id not in self.failing:
            return min(room, MOST_OF_ONE - self.flying[webhook_id])
        doubtful = sum(self.flying[one] for one in self.failing)
        return min(room, MOST_IN_DOUBT - doubtful, 1 - self.flying[webhook_id])


def hand_out(connection: Connection, webhooks: Sequence[Webhook], *, now: int) -> bool:
    """Make deliveries of the next events, for those who are furthest behind.

    Webhooks that have got equally far, as most have, are served together. Tells whether somebody
    is behind still.
    """
    end = event_rows.newest(connection)
    behind = [one for one in webhooks if one.position < end]
    if not behind:
        return False
    before = min(one.position for one in behind)
    together = [one for one in behind if one.position == before]
    after = min(end, before + max(1, _STEP // len(together)))
    ids = [one.id for one in together]
    if not webhook_rows.move(connection, ids, before=before, after=after):
        # Ours is the only write transaction, and it has just read them.
        raise Broken("webhooks have moved in the middle of a transaction")
    new = [
        Delivery(
            webhook_id=webhook.id,
            position=event.position,
            event_id=event.id,
            body=event.body(),
            attempts=0,
            next_at=now,
        )
        for event in event_rows.between(connection, before, after)
        for webhook in together
        if webhook.wants(event)
    ]
    rows.add(connection, new)
    return after < end or len(together) < len(behind)


def begin(
    connection: Connection, webhooks: Sequence[Webhook], slots: Slots, *, now: int
) -> Sequence[Attempt]:
    """Begin as many attempts of what is due as there are slots for, in the order of `webhooks`."""
    begun = []
    for webhook in webhooks:
        room = slots.room(webhook.id)
        if room <= 0:
            continue
        for one in rows.due(connection, webhook.id, now=now, limit=room):
            until = now + CLAIM_SECONDS
            if rows.claim(connection, one, until=until):
                claimed = replace(one, attempts=one.attempts + 1, next_at=until)
                begun.append(Attempt(webhook=webhook, delivery=claimed))
                slots.flying[webhook.id] += 1
    return begun


def note(
    connection: Connection,
    attempt: Attempt,
    posted: Posted,
    *,
    now: int,
    random_bytes: Callable[[int], bytes],
) -> Noted:
    """Write down what came of an attempt: it has arrived, or is tried again, or is given up."""
    delivery = attempt.delivery
    if posted.failure is None:
        rows.arrived(connection, delivery)
        return Noted(attempt=attempt, posted=posted, outcome=Delivering.DELIVERED)
    is_last = delivery.attempts >= MOST_ATTEMPTS
    rows.failed(
        connection,
        delivery,
        status=posted.status,
        failure=posted.failure,
        next_at=now + wait_seconds(delivery.attempts, random_bytes(_RANDOM_BYTES)),
        dead_at=now if is_last else None,
    )
    return Noted(
        attempt=attempt,
        posted=posted,
        outcome=Delivering.DEAD if is_last else Delivering.FAILED,
        disabled=posted.status == HTTPStatus.GONE and _disable(connection, attempt.webhook, now),
    )


def _disable(connection: Connection, webhook: Webhook, now: int) -> bool:
    """Tell a webhook nothing any more, which has said that it is gone for good."""
    if not webhook_rows.disable(connection, webhook.id):
        return False
    audit_rows.add(
        connection,
        Entry(
            at=now,
            act=Act.WEBHOOK_DISABLED,
            actor="server",
            target=f"webhook/{webhook.name}",
            details={"why": "the receiver answered 410 Gone"},
        ),
    )
    return True
