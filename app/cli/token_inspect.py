"""`grantserver token inspect`: what is left of a token, or why nothing is, without using it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from app import outbound
from app.cli import answers
from app.cli.asking import ask
from app.cli.commands import Verb
from app.cli.files import read_input
from app.cli.output import Form, form_option, say, show_one, table
from app.domain.durations import format_seconds
from app.domain.grants import State
from app.domain.tokens import read_token

_CONDITIONS: Final = {
    "namePrefix": "Name prefix",
    "perSubject": "Per subject",
    "keyType": "Key type",
}


@click.command("inspect", cls=Verb, examples=["grantserver token inspect west-token.yaml"])
@click.argument("source", metavar="FILE")
@form_option
def command(source: str, form: Form) -> None:
    """Ask what is left of a token, without using it.

    Tells how many redemptions are left, from and until when, who has used the others, and who came
    when none was left (suspected token theft); what a claim has to fulfil, and why one from here
    would be refused now. FILE is a token file, or - for standard input. Only a server that runs
    this program can tell.
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
        *_outlook(found),
        ("Redemptions", f"{made} of {allowed}, {left}"),
        *([("Begin", found["beginTime"])] if "beginTime" in found else []),
        ("Expiration", found["expirationTime"]),
        ("Cost", found["linkCost"]),
        *_asked(found),
    ]
    show_one(form, facts, found)
    if form is Form.TABLE and found["redemptions"]:
        newest = found["redemptions"]
        say()
        if made > len(newest):
            say(f"The newest {len(newest)} of {made} redemptions:")
        say(
            table(
                ("", "time", "name", "subject"),
                [(one.get("ordinal"), *_came(one)) for one in newest],
            )
        )
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


def _outlook(found: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Say whether a claim from here would do; servers of before do not tell."""
    if "redeemable" in found:
        why = "; ".join(str(one.get("text")) for one in found["reasons"])
        yield "Redeemable", "yes" if found["redeemable"] else f"no: {why}"


def _asked(found: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Say what a claim has to fulfil, as far as its holder is told."""
    policy = found.get("policy") or {}
    if subjects := policy.get("subjects"):
        yield "Subjects", ", ".join(map(str, subjects))
    for name, label in _CONDITIONS.items():
        if policy.get(name) is not None:
            yield label, policy[name]
    if isinstance(lifetime := policy.get("lifetime"), int):
        yield "Lifetime", format_seconds(lifetime)
    if found.get("addressFits") is not None:
        yield "Address", "fits" if found["addressFits"] else "is in none of the grant's networks"


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
        parties += found.get("reasons", ())
        listed = all(isinstance(one, Mapping) for one in parties)
        policy = found.get("policy") or {}
        listed = listed and isinstance(policy.get("subjects", []), list)
        listed = listed and ("redeemable" in found) is ("reasons" in found)
        known = {"grant", "site", "state", "expirationTime", "linkCost"} <= found.keys()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        counted = listed = known = False
    if not (counted and listed and known):
        raise click.ClickException("the server's answer does not tell what is left of the token")
    return dict(found)
