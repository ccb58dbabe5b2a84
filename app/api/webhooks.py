"""Webhooks, and what could not be delivered to them."""

from typing import Annotated

from pydantic import ConfigDict, Field

from app.api.events import EVENT_ID
from app.api.grants import PRINTABLE_ASCII
from app.api.shapes import Name, Shape, Time
from app.domain.events import EventType
from app.domain.webhooks import MOST_SITES

Events = Annotated[
    tuple[EventType, ...], Field(min_length=1, max_length=len(EventType), description="Of which.")
]


class NewWebhook(Shape):
    """A webhook that is asked for; without `sites` it is told of every one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "portal", "url": "https://portal.example.com/in", "events": ["redeemed"]}
            ]
        }
    )

    name: Name
    url: Annotated[
        str,
        Field(
            pattern=PRINTABLE_ASCII,
            min_length=1,
            max_length=2048,
            description="Where events are posted: https, or http to this machine itself.",
        ),
    ]
    events: Events
    sites: Annotated[tuple[Name, ...], Field(max_length=MOST_SITES)] = ()
    ca: Annotated[
        str | None,
        Field(max_length=40_000, description="PEM of the only CAs that are trusted for it."),
    ] = None


class WebhookChange(Shape):
    """What of a webhook shall become otherwise; what is null stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": False}]})

    enabled: Annotated[bool | None, Field(strict=True)] = None
    events: Events | None = None


class Webhook(Shape):
    """A webhook as it stands; of its URL no more than the origin is shown."""

    id: str
    name: str
    origin: str
    events: tuple[str, ...]
    sites: tuple[str, ...] | None
    enabled: bool
    created_at: Time
    pending: Annotated[int, Field(description="Deliveries on their way.")]
    dead: Annotated[int, Field(description="Deliveries that were given up.")]
    behind: Annotated[int, Field(description="Entries of the audit log not looked at for it yet.")]


class CreatedWebhook(Shape):
    """A new webhook with the secret of its signatures, which is shown here and never again."""

    webhook: Webhook
    secret: Annotated[str, Field(repr=False)]


class WebhookList(Shape):
    """All webhooks by name; there are fifty at most."""

    items: tuple[Webhook, ...]


class Delivery(Shape):
    """An event that could not be delivered."""

    event_id: str
    attempts: int
    status: int | None
    failure: str | None
    dead_at: Time | None


class DeliveryList(Shape):
    """The first thousand of what was given up."""

    items: tuple[Delivery, ...]


class Redelivery(Shape):
    """What is to be tried anew: one event, or all that was given up."""

    event_id: Annotated[str | None, Field(pattern=EVENT_ID, max_length=40)] = None


class Redelivered(Shape):
    """How many deliveries are tried anew."""

    deliveries: int
