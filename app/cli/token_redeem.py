"""`grantserver token redeem`: a full client, which turns a token into a link's resources."""

import contextlib
import re
import socket
import sys
from pathlib import Path
from typing import Final

import click

from app import outbound
from app.cli import answers, resources
from app.cli.asking import ask
from app.cli.commands import Verb
from app.cli.exits import one_line
from app.cli.files import read_input
from app.cli.output import hint, paste, say
from app.crypto.facts import facts
from app.domain.names import common_name, is_object_name
from app.domain.receipts import Receipt, read_receipt
from app.domain.times import rfc3339
from app.domain.tokens import Token, read_token
from app.errors import GrantServerError, Invalid, Refused, Unavailable

_COUNTED: Final = "the redemption may have been counted all the same"
_NAMESPACES: Final = "namespaces"  # system sites live in …/namespaces/NAME
_LONGEST_SUBJECT: Final = 63


@click.command(
    "redeem",
    cls=Verb,
    examples=[
        "grantserver token redeem west-token.yaml | kubectl apply -f -",
        "grantserver token redeem west-token.yaml --out ~/.local/share/skupper/namespaces/default",
    ],
)
@click.argument("source", metavar="FILE")
@click.option(
    "--subject",
    help="Who is linking: it becomes the name in the certificate. Without it, this host's name.",
)
@click.option("--name", help="Name of the Secret and the Link; without it, the token's.")
@click.option(
    "--out",
    "namespace",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Store the resources for a Skupper system site: DIR is the directory of its namespace.",
)
@click.option("--force", is_flag=True, help="With --out: replace a link of the same name.")
def command(
    source: str, subject: str | None, name: str | None, namespace: Path | None, force: bool
) -> None:
    """Turn a token into the Secret and Links of a link.

    FILE is a token file, or - for standard input. Secret and Links are printed as YAML, with
    the private key of the link in them, or stored with --out. One redemption is used.
    """
    token = read_token(read_input(source, what="token"))
    wanted = _checked_name(name or token.name)
    subject = _checked_subject(_host_name() if subject is None else subject)
    if namespace is None:
        receipt = _redeem(token, wanted, subject, source)
        for resource in receipt.resources:
            sys.stdout.write(f"---\n{resource.text}")
        sys.stdout.flush()
        hint(_summary(receipt, subject))
        return
    with resources.removed_if_refused(namespace):
        directory = resources.prepare(namespace, wanted, force=force)
        receipt = _redeem(token, wanted, subject, source)
        try:
            paths = resources.store(directory, receipt.resources, force=force)
        except GrantServerError as error:
            raise click.ClickException(f"{error}; {_COUNTED}") from error
    say(_summary(receipt, subject))
    for path in paths:
        say(f"  {path}")
    say("Next, let the site read them:")
    say(f"  {_reload(directory.parent.parent)}")


def _redeem(token: Token, name: str, subject: str, source: str) -> Receipt:
    try:
        answer = ask(
            outbound.post_code(
                token.url,
                code=token.code.encode(),
                ca_pem=token.ca_pem.encode(),
                name=name,
                subject=subject,
            )
        )
    except Unavailable as error:
        if outbound.was_not_sent(error):
            raise Unavailable(f"{error}; the code was not sent") from error
        again = paste("token", "inspect", source)
        raise Unavailable(
            f"{error}; if only the answer was lost, `{again}` shows the redemption"
        ) from error
    answers.check(answer)
    try:
        return read_receipt(answer.body, name=name, cost=token.cost)
    except Invalid as error:
        # Not the fault of whoever typed the command, so it is no wrong usage.
        raise click.ClickException(
            f"the server's answer cannot be used: {error.why}; {_COUNTED}"
        ) from error


def _checked_name(name: str) -> str:
    if not name:
        raise Invalid("name", "the token has none: give one with --name")
    if not is_object_name(name):
        raise Invalid(
            "name", f'"{one_line(name[:80])}" can be no name of a Secret: give another with --name'
        )
    return name


def _checked_subject(subject: str) -> str:
    try:
        common_name(subject)
    except Refused as error:
        raise Invalid("subject", "expected 1 to 253 printable characters") from error
    return subject


def _host_name() -> str:
    """Make a subject of this host's short name; it is a hint to people, nothing depends on it."""
    short = socket.gethostname().partition(".")[0].lower()
    return re.sub(r"[^a-z0-9-]+", "-", short).strip("-")[:_LONGEST_SUBJECT] or "site"


def _summary(receipt: Receipt, subject: str) -> str:
    links = len(receipt.resources) - 1
    text = f"Redeemed as {subject}: a Secret and {'a Link' if links == 1 else f'{links} Links'}"
    with contextlib.suppress(Invalid):  # only told to people: routers judge the certificate
        made = facts(receipt.certificate_pem)
        text += f"; the certificate is {made.subject}, signed by {made.issuer}"
        text += f", good until {rfc3339(made.not_after)}"
    return f"{one_line(text)}."


def _reload(namespace: Path) -> str:
    directory = namespace.absolute()
    option = f" -n {directory.name}" if directory.parent.name == _NAMESPACES else ""
    return f"skupper system reload{option}"
