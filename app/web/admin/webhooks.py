"""Routes of webhooks."""

from fastapi import APIRouter, Response

from app.api import webhooks as shapes
from app.api.problems import Kind
from app.api.shapes import Name
from app.domain.callers import Verb
from app.domain.times import rfc3339
from app.domain.webhooks import Delivery
from app.services import webhooks
from app.services.webhooks import Created, Standing, Wish
from app.web.admin.document import answers
from app.web.admin.grants import moment
from app.web.admin.idempotency import IdempotencyKey, created, repeated
from app.web.admin.office import PREFIX, Caller, Given, run, want

router = APIRouter(prefix=PREFIX, tags=["webhooks"])


@router.get("/webhooks", operation_id="list_webhooks", responses=answers(Kind.FORBIDDEN))
async def list_webhooks(caller: Caller, office: Given) -> shapes.WebhookList:
    """List all webhooks by name."""
    await want(caller, Verb.MANAGE, None)
    found = await run(webhooks.every, office.database)
    return shapes.WebhookList(items=tuple(map(_shape, found)))


@router.post(
    "/webhooks",
    operation_id="create_webhook",
    status_code=201,
    responses=answers(Kind.FORBIDDEN, Kind.CONFLICT, Kind.INVALID, ok=201, headers=("Location",)),
)
async def create_webhook(
    asked: shapes.NewWebhook,
    caller: Caller,
    office: Given,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> shapes.CreatedWebhook:
    """Make a webhook; the secret of its signatures is in this answer and nowhere else.

    With an `Idempotency-Key`, the same request gets the same answer for a day.
    """
    await want(caller, Verb.MANAGE, None)
    made = created("create_webhook", caller, office, idempotency_key, asked, shapes.CreatedWebhook)
    answer = await repeated(made)
    if answer is None:
        answer = _said(
            await run(
                webhooks.create,
                office.database,
                office.keyring,
                Wish(
                    name=asked.name,
                    url=asked.url,
                    events=asked.events,
                    sites=asked.sites,
                    ca_pem=asked.ca,
                ),
                actor=caller.caller.actor,
                now=office.clock(),
                random_bytes=office.random_bytes,
                record=made.recorder(_said),
            )
        )
    response.headers["Location"] = f"{PREFIX}/webhooks/{answer.webhook.name}"
    return answer


@router.get(
    "/webhooks/{name}",
    operation_id="get_webhook",
    responses=answers(Kind.FORBIDDEN, Kind.MISSING),
)
async def get_webhook(name: Name, caller: Caller, office: Given) -> shapes.Webhook:
    """Show a webhook."""
    await want(caller, Verb.MANAGE, None)
    return _shape(await run(webhooks.show, office.database, name))


@router.patch(
    "/webhooks/{name}",
    operation_id="change_webhook",
    responses=answers(Kind.FORBIDDEN, Kind.MISSING),
)
async def change_webhook(
    name: Name, asked: shapes.WebhookChange, caller: Caller, office: Given
) -> shapes.Webhook:
    """Turn a webhook off or on, or have it told of other events.

    One that is turned on again is told what happened meanwhile.
    """
    await want(caller, Verb.MANAGE, None)
    await run(
        webhooks.change,
        office.database,
        name,
        enabled=asked.enabled,
        events=asked.events,
        actor=caller.caller.actor,
        now=office.clock(),
    )
    return _shape(await run(webhooks.show, office.database, name))


@router.delete(
    "/webhooks/{name}",
    operation_id="delete_webhook",
    status_code=204,
    responses=answers(Kind.FORBIDDEN, Kind.MISSING, ok=204),
)
async def delete_webhook(name: Name, caller: Caller, office: Given) -> None:
    """Remove a webhook, with all that is on its way to it."""
    await want(caller, Verb.MANAGE, None)
    await run(
        webhooks.remove,
        office.database,
        name,
        actor=caller.caller.actor,
        now=office.clock(),
    )


@router.get(
    "/webhooks/{name}/dead",
    operation_id="list_dead_deliveries",
    responses=answers(Kind.FORBIDDEN, Kind.MISSING),
)
async def list_dead_deliveries(name: Name, caller: Caller, office: Given) -> shapes.DeliveryList:
    """List what could not be delivered and was given up."""
    await want(caller, Verb.MANAGE, None)
    found = await run(webhooks.dead, office.database, name)
    return shapes.DeliveryList(items=tuple(map(_delivery, found)))


@router.post(
    "/webhooks/{name}/redeliver",
    operation_id="redeliver",
    responses=answers(Kind.FORBIDDEN, Kind.MISSING),
)
async def redeliver(
    name: Name, caller: Caller, office: Given, asked: shapes.Redelivery | None = None
) -> shapes.Redelivered:
    """Have what was given up tried anew: one event, or all."""
    await want(caller, Verb.MANAGE, None)
    number = await run(
        webhooks.redeliver,
        office.database,
        name,
        event_id=None if asked is None else asked.event_id,
        actor=caller.caller.actor,
        now=office.clock(),
    )
    return shapes.Redelivered(deliveries=number)


def _said(made: Created) -> shapes.CreatedWebhook:
    standing = Standing(webhook=made.webhook, pending=0, dead=0, behind=0)
    return shapes.CreatedWebhook(webhook=_shape(standing), secret=made.secret)


def _shape(standing: Standing) -> shapes.Webhook:
    webhook = standing.webhook
    return shapes.Webhook(
        id=webhook.id,
        name=webhook.name,
        origin=webhook.origin,
        events=tuple(sorted(one.value for one in webhook.events)),
        sites=None if webhook.sites is None else tuple(sorted(webhook.sites)),
        enabled=webhook.enabled,
        created_at=rfc3339(webhook.created_at),
        pending=standing.pending,
        dead=standing.dead,
        behind=standing.behind,
    )


def _delivery(delivery: Delivery) -> shapes.Delivery:
    return shapes.Delivery(
        event_id=delivery.event_id,
        attempts=delivery.attempts,
        status=delivery.status,
        failure=None if delivery.failure is None else delivery.failure.value,
        dead_at=moment(delivery.dead_at),
    )
