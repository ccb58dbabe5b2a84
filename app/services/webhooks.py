"""Webhooks: made, listed, changed, removed, and what could not be delivered sent anew."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from app.crypto.sealing import NONCE_BYTES, Keyring
from app.domain import webhooks
from app.domain.audit import Act, Entry
from app.domain.events import EventType, position_of
from app.domain.names import check_name
from app.domain.webhooks import Delivery, Webhook
from app.errors import Conflict, Missing
from app.posting import check_ca
from app.store import audit as audit_rows
from app.store import deliveries as delivery_rows
from app.store import events as event_rows
from app.store import webhooks as rows
from app.store.engine import Connection, Database

MOST_SHOWN: Final = 1000
"""Dead deliveries in one list."""

_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A webhook that was made, and the secret of its signatures, which is never shown again."""

    webhook: Webhook
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A webhook, and how many deliveries to it are on their way (`pending`) or given up (`dead`).

    `behind` are entries of the audit log that were not looked at for it yet, be they events or
    not.
    """

    webhook: Webhook
    pending: int
    dead: int
    behind: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a webhook shall be told of, and where; no `sites` are every one.

    `ca_pem` holds the only certificates that are trusted for it; None trusts those that the system
    does.
    """

    name: str
    url: str = field(repr=False)
    events: Sequence[str]
    sites: Sequence[str] = ()
    ca_pem: str | None = field(default=None, repr=False)


def create(
    database: Database,
    keyring: Keyring,
    wish: Wish,
    *,
    actor: str,
    now: int,
    random_bytes: Callable[[int], bytes],
    record: Callable[[Connection, Created], None] | None = None,
) -> Created:
    """Make a webhook that is told of what happens from now on.

    `record` is called with it in its transaction, and prevents it by raising. Raises
    Invalid("name" | "url" | "events" | "sites" | "ca", …), and Conflict when there is one of this
    name, or as many as there may be.
    """
    name, url, ca_pem = wish.name, wish.url, wish.ca_pem
    check_name("name", name)
    webhooks.check_url(url)
    wanted, scope = webhooks.read_events(wish.events), webhooks.read_sites(wish.sites)
    if ca_pem is not None:
        webhooks.check_ca(ca_pem)
        check_ca(ca_pem)
    made_id = str(UUID(bytes=random_bytes(_ID_BYTES), version=4))
    secret = random_bytes(webhooks.SECRET_BYTES)
    sealed = keyring.seal(secret, purpose=secret_purpose(made_id), random=random_bytes(NONCE_BYTES))
    with database.writing() as connection:
        if rows.by_name(connection, name) is not None:
            raise Conflict(f'there is a webhook "{name}" already')
        if rows.count(connection) >= webhooks.MOST_WEBHOOKS:
            raise Conflict(f"there are {webhooks.MOST_WEBHOOKS} webhooks, which is the most")
        made = Webhook(
            id=made_id,
            name=name,
            url=url,
            events=wanted,
            sites=scope,
            sealed_secret=sealed,
            ca_pem=ca_pem,
            enabled=True,
            created_at=now,
            position=event_rows.newest(connection),
        )
        rows.add(connection, made)
        facts = {"to": made.origin, "events": _listed(made.events)}
        if scope is not None:
            facts["sites"] = _listed(scope)
        audit_rows.add(connection, _entry(Act.WEBHOOK_CREATED, name, actor, now, **facts))
        created = Created(webhook=made, secret=webhooks.write_secret(secret))
        if record is not None:
            record(connection, created)
    return created


def every(database: Database) -> Sequence[Standing]:
    """All webhooks, by name: `MOST_WEBHOOKS` at most. Raises Unavailable."""
    with database.reading() as connection:
        return _standings(connection, rows.every(connection))


def show(database: Database, name: str) -> Standing:
    """The webhook of this name. Raises Missing."""
    with database.reading() as connection:
        (standing,) = _standings(connection, [_found(connection, name)])
    return standing


def change(
    database: Database,
    name: str,
    *,
    enabled: bool | None = None,
    events: Sequence[str] | None = None,
    actor: str,
    now: int,
) -> Webhook:
    """Change what is not None. Raises Missing, and Invalid("events", …).

    One that is not enabled is told nothing. Enabled again, it is told what happened meanwhile, as
    far as the audit log still has it.
    """
    wanted = None if events is None else webhooks.read_events(events)
    with database.writing() as connection:
        known = _found(connection, name)
        changed = replace(
            known,
            enabled=known.enabled if enabled is None else enabled,
            events=known.events if wanted is None else wanted,
        )
        if changed == known:
            return known
        rows.change(connection, changed)
        facts = {}
        if changed.enabled != known.enabled:
            facts["enabled"] = "yes" if changed.enabled else "no"
        if changed.events != known.events:
            facts["events"] = _listed(changed.events)
        audit_rows.add(connection, _entry(Act.WEBHOOK_CHANGED, name, actor, now, **facts))
    return changed


def remove(database: Database, name: str, *, actor: str, now: int) -> None:
    """Remove a webhook, with all that is on its way to it. Raises Missing."""
    with database.writing() as connection:
        rows.remove(connection, _found(connection, name).id)
        audit_rows.add(connection, _entry(Act.WEBHOOK_REMOVED, name, actor, now))


def dead(database: Database, name: str, *, limit: int = MOST_SHOWN) -> Sequence[Delivery]:
    """The first deliveries to a webhook that were given up, in the order of their events.

    Raises Missing.
    """
    with database.reading() as connection:
        webhook = _found(connection, name)
        return delivery_rows.dead(connection, webhook.id, min(limit, MOST_SHOWN))


def redeliver(
    database: Database, name: str, *, event_id: str | None = None, actor: str, now: int
) -> int:
    """Have what was given up tried anew: all of a webhook, or one event; tells how many.

    Raises Missing for a webhook or an event that is not there, Invalid for what is no id of one.
    """
    with database.writing() as connection:
        webhook = _found(connection, name)
        position = None if event_id is None else _dead_position(connection, webhook, event_id)
        number = delivery_rows.send_anew(connection, webhook.id, position=position, now=now)
        if number:
            entry = _entry(Act.WEBHOOK_REDELIVERED, name, actor, now, deliveries=number)
            audit_rows.add(connection, entry)
    return number


def secret_purpose(webhook_id: str) -> str:
    """Say where a sealed secret belongs."""
    return f"secret of webhook {webhook_id}"


def _found(connection: Connection, name: str) -> Webhook:
    webhook = rows.by_name(connection, name)
    if webhook is None:
        raise Missing("webhook", name)
    return webhook


def _dead_position(connection: Connection, webhook: Webhook, event_id: str) -> int:
    position = position_of(event_id)
    if delivery_rows.dead_event(connection, webhook.id, position) != event_id:
        raise Missing("dead delivery", event_id)
    return position


def _standings(connection: Connection, found: Sequence[Webhook]) -> Sequence[Standing]:
    pending = delivery_rows.count_pending(connection)
    dead_ones = delivery_rows.count_dead(connection)
    end = event_rows.newest(connection)
    return [
        Standing(
            webhook=webhook,
            pending=pending.get(webhook.id, 0),
            dead=dead_ones.get(webhook.id, 0),
            behind=max(0, end - webhook.position),
        )
        for webhook in found
    ]


def _entry(act: Act, name: str, actor: str, now: int, **facts: str | int) -> Entry:
    return Entry(at=now, act=act, actor=actor, target=f"webhook/{name}", details=facts)


def _listed(names: frozenset[EventType] | frozenset[str]) -> str:
    return ", ".join(sorted(map(str, names)))
