"""`grantserver audit`: the record of everything that was changed."""

import re
from typing import Any, Final

import click

from app.cli.commands import Noun
from app.cli.opening import opened
from app.cli.output import Document, Form, form_option, show_list
from app.domain.audit import Entry
from app.domain.times import rfc3339
from app.services import audit

_TIMES: Final = re.compile(r"not_(?:before|after)|\w+_at")
_MOST: Final = 1_000_000


@click.group(cls=Noun, name="audit")
def command() -> None:
    """The record of everything that was changed."""


@command.command(
    "list", examples=["grantserver audit list", "grantserver audit list -n 5 --target site/west"]
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, _MOST),
    default=50,
    show_default=True,
    help="How many of the newest entries.",
)
@click.option("--target", help="Only what happened to this: site/NAME, grant/ID, authority/NAME.")
@form_option
def _list(limit: int, target: str | None, form: Form) -> None:
    """List the newest entries, the newest of them last."""
    found = audit.latest(opened().database, limit=limit, target=target)
    show_list(
        form,
        ("time", "act", "actor", "target", "details"),
        [
            (rfc3339(one.at), one.act, one.actor, one.target, _written(_details(one)))
            for one in found
        ],
        [_document(one) for one in found],
        empty="There are no entries" + (f" about {target}: is it kind/name?" if target else "."),
    )


def _document(entry: Entry) -> Document:
    return {
        "time": rfc3339(entry.at),
        "act": entry.act.value,
        "actor": entry.actor,
        "target": entry.target,
        "details": _details(entry),
    }


def _details(entry: Entry) -> dict[str, Any]:
    """Show details as all of the output is: camelCase names, RFC 3339 times."""
    return {
        re.sub(r"_([a-z])", lambda found: found[1].upper(), name): (
            rfc3339(value) if isinstance(value, int) and _TIMES.fullmatch(name) else value
        )
        for name, value in entry.details.items()
    }


def _written(details: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in details.items())
