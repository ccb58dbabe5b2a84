"""`grantserver grant explain`: the story of a grant, and what its next claim would get."""

from typing import Any, Final

import click

from app import ambient
from app.cli.commands import Verb
from app.cli.opening import opened
from app.cli.output import Document, Form, aligned, form_option, say, show_one, table
from app.domain.stories import DEFAULT_MOMENTS, MOST_MOMENTS, Moment, Story
from app.domain.times import rfc3339
from app.services import timeline

_EMPTY: Final = "-"


@click.command(
    "explain",
    cls=Verb,
    examples=["grantserver grant explain lab --site west"],
)
@click.argument("name")
@click.option("--site", help="Site of the grant, where two sites use one name.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, MOST_MOMENTS),
    default=DEFAULT_MOMENTS,
    show_default=True,
    help="How many of the newest moments.",
)
@form_option
def command(name: str, site: str | None, limit: int, form: Form) -> None:
    """Tell the story of a grant (by its name or id), and what its next claim would get.

    Who made it and with what policy, who redeemed it, who was refused though the code was right,
    locks, suspected token theft, renewals, revocations, extensions: the oldest first.
    """
    story = timeline.explain(opened().database, name, site=site, now=ambient.utc_now(), limit=limit)
    if form is not Form.TABLE:
        show_one(form, (), _document(story))
        return
    if story.left_out:
        say(f"{story.left_out} older moments are left out: --limit tells more.")
    say(
        table(
            ("time", "what", "who", "from", "serial"),
            [
                (one.time, one.what, one.who or _EMPTY, one.peer or _EMPTY, one.serial or _EMPTY)
                for one in story.moments
            ],
        )
    )
    say()
    say(aligned(_facts(story)))


def _facts(story: Story) -> list[tuple[str, object]]:
    now = story.standing
    return [
        ("Grant", f"{story.name} ({story.id})"),
        ("Site", story.site),
        ("State", now.state.replace("_", " ")),
        ("Redemptions", f"{now.spent} of {now.allowed}, {now.left} left"),
        ("From", rfc3339(now.begins_at)),
        ("Until", rfc3339(now.expires_at)),
        *([("Revoked", rfc3339(now.revoked_at))] if now.revoked_at else []),
        *([("Wrong codes", now.wrong_codes)] if now.wrong_codes else []),
        ("Next claim", now.next_claim),
    ]


def _document(story: Story) -> Document:
    now = story.standing
    return {
        "name": story.name,
        "id": story.id,
        "site": story.site,
        "creationTime": rfc3339(story.created_at),
        "time": rfc3339(story.now),
        "moments": [_moment(one) for one in story.moments],
        "momentsLeftOut": story.left_out,
        "state": now.state,
        "redemptionsAllowed": now.allowed,
        "redemptionsMade": now.spent,
        "redemptionsLeft": now.left,
        "beginTime": rfc3339(now.begins_at),
        "expirationTime": rfc3339(now.expires_at),
        "revocationTime": rfc3339(now.revoked_at) if now.revoked_at else None,
        "wrongCodes": now.wrong_codes,
        "nextClaim": now.next_claim,
        "reasons": [{"reason": one.reason, "text": one.text} for one in now.obstructions],
        "conditions": list(now.conditions),
    }


def _moment(one: Moment) -> dict[str, Any]:
    return {
        "time": one.time,
        "act": one.act,
        "what": one.what,
        "who": one.who or None,
        "peer": one.peer or None,
        "serial": one.serial or None,
        "times": one.times,
    }
