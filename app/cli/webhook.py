"""`grantserver webhook`: who is told of redemptions, refusals, thefts, certificates that end."""

import json
from typing import Any, Final

import click

from app import ambient
from app.cli.commands import Noun
from app.cli.files import read_input
from app.cli.opening import actor, opened
from app.cli.output import (
    Document,
    Form,
    form_option,
    hint,
    paste,
    say,
    show_list,
    show_one,
)
from app.domain.events import EventType
from app.domain.times import rfc3339
from app.domain.webhooks import Delivery, Webhook
from app.errors import Invalid
from app.services import webhooks
from app.services.webhooks import MOST_SHOWN, Standing

_EVERY: Final = "(every)"


@click.group(cls=Noun, name="webhook")
def command() -> None:
    """Who is told of redemptions, refusals and thefts."""


@command.command(
    "create",
    examples=[
        "grantserver webhook create portal https://portal.example.com/hook --event redeemed",
        "grantserver webhook create soc https://soc.example.com/in --event theft --event refused",
        "grantserver webhook create lab https://10.0.0.5/ --event redeemed --site lab --ca ca.crt",
    ],
)
@click.argument("name")
@click.argument("url")
@click.option(
    "--event",
    "events",
    type=click.Choice([one.value for one in EventType]),
    multiple=True,
    required=True,
    help="What to tell; may be given several times.",
)
@click.option(
    "--site",
    "sites",
    metavar="SITE",
    multiple=True,
    help="Only of grants of this site; may be given several times. Without it, of every site.",
)
@click.option(
    "--ca",
    metavar="FILE",
    help="Certificates, PEM, that alone are trusted for the URL; without it, those that this "
    "system trusts.",
)
@form_option
def _create(
    name: str,
    url: str,
    events: tuple[str, ...],
    sites: tuple[str, ...],
    ca: str | None,
    form: Form,
) -> None:
    """Tell a URL of what happens from now on; the secret of the signatures is shown once."""
    home = opened()
    made = webhooks.create(
        home.database,
        home.keyring,
        webhooks.Wish(
            name=name,
            url=url,
            events=events,
            sites=sites,
            ca_pem=None if ca is None else _ca(ca),
        ),
        actor=actor(),
        now=ambient.utc_now(),
        random_bytes=ambient.random_bytes,
    )
    if form is not Form.TABLE:
        show_one(form, [], {**_webhook(made.webhook), "secret": made.secret})
        return
    say(f"Webhook {name} is told of {', '.join(_events(made.webhook))}.")
    say("Its receiver verifies the signatures with this secret, which is not shown again:")
    say(f"  {made.secret}")
    hint("See how it fares:")
    hint(f"  {paste('webhook', 'show', name)}")


@command.command("list", examples=["grantserver webhook list", "grantserver webhook list -o json"])
@form_option
def _list(form: Form) -> None:
    """List all webhooks."""
    found = webhooks.every(opened().database)
    show_list(
        form,
        ("name", "to", "events", "sites", "enabled", "pending", "dead"),
        [
            (
                one.webhook.name,
                one.webhook.origin,
                ", ".join(_events(one.webhook)),
                ", ".join(_sites(one.webhook) or [_EVERY]),
                _yes(one.webhook),
                one.pending,
                one.dead,
            )
            for one in found
        ],
        [_document(one) for one in found],
        empty="There are no webhooks yet. Make one:\n  "
        + paste("webhook", "create", "NAME", "https://HOST/PATH", "--event", "redeemed"),
    )


@command.command("show", examples=["grantserver webhook show portal"])
@click.argument("name")
@form_option
def _show(name: str, form: Form) -> None:
    """Show one webhook, and what waits for it."""
    found = webhooks.show(opened().database, name)
    webhook = found.webhook
    facts: list[tuple[str, object]] = [
        ("Name", webhook.name),
        ("URL", webhook.url),
        ("Events", ", ".join(_events(webhook))),
        ("Sites", ", ".join(_sites(webhook) or [_EVERY])),
        ("Trusts", "the system's CAs" if webhook.ca_pem is None else "a CA of its own"),
        ("Enabled", _yes(webhook)),
        ("Created", rfc3339(webhook.created_at)),
        ("Pending", found.pending),
        ("Dead", found.dead),
        ("Behind", found.behind),
    ]
    show_one(form, facts, _document(found))
    if found.dead and form is Form.TABLE:
        hint("See what was given up, and send it anew:")
        hint(f"  {paste('webhook', 'dead', name)}")
        hint(f"  {paste('webhook', 'redeliver', name)}")


@command.command("enable", examples=["grantserver webhook enable portal"])
@click.argument("name")
def _enable(name: str) -> None:
    """Tell a webhook again what happens, and what happened while it was disabled."""
    _switch(name, enabled=True)
    say(f"Webhook {name} is enabled; what happened meanwhile is on its way.")


@command.command("disable", examples=["grantserver webhook disable portal"])
@click.argument("name")
def _disable(name: str) -> None:
    """Tell a webhook nothing for now."""
    _switch(name, enabled=False)
    say(f"Webhook {name} is disabled; what happens meanwhile is kept for it in the audit log.")


@command.command("remove", examples=["grantserver webhook remove portal"])
@click.argument("name")
def _remove(name: str) -> None:
    """Remove a webhook, with all that is on its way to it."""
    webhooks.remove(opened().database, name, actor=actor(), now=ambient.utc_now())
    say(f"Webhook {name} is removed.")


@command.command("dead", examples=["grantserver webhook dead portal"])
@click.argument("name")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, MOST_SHOWN),
    default=50,
    show_default=True,
    help="How many, the oldest first.",
)
@form_option
def _dead(name: str, limit: int, form: Form) -> None:
    """List the events that a webhook did not take, and that were given up."""
    found = webhooks.dead(opened().database, name, limit=limit)
    show_list(
        form,
        ("id", "type", "attempts", "why", "given up"),
        [
            (one.event_id, _body(one)["type"], one.attempts, _why(one), _time(one.dead_at))
            for one in found
        ],
        [_dead_document(one) for one in found],
        empty=f"Webhook {name} has taken everything so far, or it is on its way.",
    )


@command.command(
    "redeliver",
    examples=[
        "grantserver webhook redeliver portal",
        "grantserver webhook redeliver portal 48211-6d1f0a9b8c7d6e5f",
    ],
)
@click.argument("name")
@click.argument("event_id", metavar="[ID]", required=False)
def _redeliver(name: str, event_id: str | None) -> None:
    """Send anew what was given up: all of it, or the event of this id."""
    number = webhooks.redeliver(
        opened().database, name, event_id=event_id, actor=actor(), now=ambient.utc_now()
    )
    say(f"{number} {'event is' if number == 1 else 'events are'} on the way to webhook {name}.")


def _switch(name: str, *, enabled: bool) -> None:
    webhooks.change(opened().database, name, enabled=enabled, actor=actor(), now=ambient.utc_now())


def _ca(path: str) -> str:
    try:
        return read_input(path, what="ca").decode("ascii")
    except UnicodeDecodeError:
        raise Invalid("ca", "it is not in PEM") from None


def _events(webhook: Webhook) -> list[str]:
    return sorted(one.value for one in webhook.events)


def _sites(webhook: Webhook) -> list[str] | None:
    return None if webhook.sites is None else sorted(webhook.sites)


def _yes(webhook: Webhook) -> str:
    return "yes" if webhook.enabled else "no"


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


def _why(one: Delivery) -> str:
    if one.failure is None:
        return ""
    return f"{one.failure.value} {one.status or ''}".strip()


def _body(one: Delivery) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(one.body)
    return body


def _webhook(webhook: Webhook) -> Document:
    return {
        "name": webhook.name,
        "url": webhook.url,
        "events": _events(webhook),
        "sites": _sites(webhook),
        "ca": webhook.ca_pem,
        "enabled": webhook.enabled,
        "creationTime": rfc3339(webhook.created_at),
    }


def _document(one: Standing) -> Document:
    return {
        **_webhook(one.webhook),
        "pending": one.pending,
        "dead": one.dead,
        "behind": one.behind,
    }


def _dead_document(one: Delivery) -> Document:
    return {
        "event": _body(one),
        "attempts": one.attempts,
        "status": one.status,
        "failure": None if one.failure is None else one.failure.value,
        "deadTime": _time(one.dead_at),
    }
