"""`grantserver token inspect`: what is left of a token, without using it."""

import json
from collections.abc import Mapping
from typing import Any

import click

from app import outbound
from app.cli import answers
from app.cli.asking import ask
from app.cli.commands import Verb
from app.cli.files import read_input
from app.cli.output import Form, form_option, say, show_one, table
from app.domain.grants import State
from app.domain.tokens import read_token


@click.command("inspect", cls=Verb, examples=["grantserver token inspect west-token.yaml"])
@click.argument("source", metavar="FILE")
@form_option
def command(source: str, form: Form) -> None:
    """Ask what is left of a token, without using it.

    Tells how many redemptions are left, until when, who has used the others, and who came when
    none was left (suspected token theft). FILE is a token file, or - for standard input. Only a
    server that runs this program can tell.
    """
    token = read_token(read_input(source, what="token"))
    answer = ask(
        outbound.inspect(token.url, code=token.code.encode(), ca_pem=token.ca_pem.encode())
    )
    answers.check(answer)
    found = _read(answer.body)
    made, allowed = found["redemptionsMade"], found["redemptionsAllowed"]
    state = str(found["state"]).replace("_", " ")
    left = f"{max(0, allowed - made)} left" if state == State.ACTIVE else state
    facts = [
        ("Grant", found["grant"]),
        ("Site", found["site"]),
        ("State", state),
        ("Redemptions", f"{made} of {allowed}, {left}"),
        ("Expiration", found["expirationTime"]),
        ("Cost", found["linkCost"]),
    ]
    show_one(form, facts, found)
    if form is Form.TABLE and found["redemptions"]:
        say()
        say(table(("time", "name", "subject"), [_came(one) for one in found["redemptions"]]))
    if form is Form.TABLE and (theft := found.get("suspectedTokenTheft")):
        first = [theft["first"]] if theft["first"] else []
        say()
        say("Suspected token theft: the code came again, from somebody else.")
        say(
            table(
                ("came", "time", "name", "subject"),
                [
                    *(("first", *_came(one)) for one in first),
                    *(("later", *_came(one)) for one in theft["later"]),
                ],
            )
        )


def _came(one: Mapping[str, object]) -> tuple[object, object, object]:
    return one.get("time"), one.get("name"), one.get("subject")


def _read(body: bytes) -> Mapping[str, Any]:
    """Read the server's answer; it may come from any server that says 200."""
    try:
        found = json.loads(body)
        counted = isinstance(found["redemptionsMade"], int)
        counted = counted and isinstance(found["redemptionsAllowed"], int)
        parties = list(found["redemptions"])
        if theft := found.get("suspectedTokenTheft"):
            parties += theft["later"]
            parties += [theft["first"]] if theft["first"] else []
        listed = all(isinstance(one, Mapping) for one in parties)
        known = {"grant", "site", "state", "expirationTime", "linkCost"} <= found.keys()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        counted = listed = known = False
    if not (counted and listed and known):
        raise click.ClickException("the server's answer does not tell what is left of the token")
    return dict(found)
