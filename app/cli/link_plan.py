"""`grantserver link plan`: what link costs come to, before anybody sets them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import click

from app.cli.commands import Verb
from app.cli.files import read_input
from app.cli.output import Form, form_option, hint, say, show_one, table
from app.domain.link_plans import (
    MOST_CONNECTIONS,
    LinkPlan,
    Loss,
    Question,
    Route,
    plan,
    read_question,
)
from app.errors import Invalid

_NOBODY: Final = "nobody: the service is lost"


@click.command(
    "plan",
    cls=Verb,
    examples=[
        "grantserver link plan network.yaml",
        "grantserver link plan network.yaml --from east --to north --to south --connections 100",
    ],
)
@click.argument("source", metavar="FILE")
@click.option("--from", "client", metavar="SITE", help="Site of the clients, in place of `from`.")
@click.option(
    "--to",
    "servers",
    multiple=True,
    metavar="SITE",
    help="Site where the service runs, in place of `to`; give it as often as needed.",
)
@click.option(
    "--connections",
    type=click.IntRange(0, MOST_CONNECTIONS),
    help="How many connections are open at once, in place of `connections`.",
)
@form_option
def command(
    source: str, client: str | None, servers: tuple[str, ...], connections: int | None, form: Form
) -> None:
    """Work out where connections go, given the cost of each link.

    FILE (or - for standard input) is YAML: `links`, a list of {from, to, cost}; `from`, the site
    of the clients; `to`, the sites where the service runs; and if wanted `connections` and `sites`,
    the names of all sites. Shown are the cheapest ways in the order of failover, how open
    connections spread over them, and what happens when a link is lost.
    """
    try:
        text = read_input(source, what="file").decode()
    except UnicodeDecodeError:
        raise Invalid("file", f"{source} is no text in UTF-8") from None
    question = read_question(text)
    question = replace(
        question,
        client=client or question.client,
        servers=tuple(dict.fromkeys(servers)) or question.servers,
        connections=question.connections if connections is None else connections,
    )
    answer = plan(question)
    if form is not Form.TABLE:
        show_one(form, (), _document(question, answer))
        return
    _tell(question, answer)


def _tell(question: Question, answer: LinkPlan) -> None:
    if answer.routes:
        say(f"Connections from {question.client} go to the first of these that is there:")
        say(_indented(table(_headers(question), [_row(question, one) for one in answer.routes])))
    for site in answer.unreachable:
        hint(f"warning: no links lead from {question.client} to {site}")
    if answer.losses:
        say("When one link is lost, new connections go to:")
        rows = [_row_of_loss(loss) for loss in answer.losses]
        say(_indented(table(("link", "to", "by way of", "cost"), rows)))


def _headers(question: Question) -> Sequence[str]:
    counted = (f"of {question.connections} open",) if question.connections else ()
    return ("", "site", "cost", "by way of", "gets connections from", *counted)


def _row(question: Question, route: Route) -> Sequence[object]:
    place = "first" if route.first_at == 1 else "then"
    counted = (route.connections,) if question.connections else ()
    return (place, route.server, route.cost, _way(route.path), f"no. {route.first_at}", *counted)


def _row_of_loss(loss: Loss) -> Sequence[object]:
    if not loss.path:
        return (loss.link, _NOBODY, None, None)
    return (loss.link, loss.path[-1], _way(loss.path), loss.cost)


def _way(path: Sequence[str]) -> str:
    return " > ".join(path) if len(path) > 1 else "its own site"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _document(question: Question, answer: LinkPlan) -> Mapping[str, Any]:
    return {
        "from": question.client,
        "connections": question.connections,
        "routes": [
            {
                "site": route.server,
                "cost": route.cost,
                "path": list(route.path),
                "firstConnection": route.first_at,
                "connections": route.connections,
            }
            for route in answer.routes
        ],
        "unreachable": list(answer.unreachable),
        "lostLinks": [
            {
                "from": loss.link.one,
                "to": loss.link.other,
                "site": loss.path[-1] if loss.path else None,
                "cost": loss.cost,
                "path": list(loss.path),
            }
            for loss in answer.losses
        ],
    }
