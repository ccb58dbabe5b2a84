"""`grantserver token redeem`: a full client, which turns tokens into the resources of links."""

import asyncio
import contextlib
import re
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from app.cli import resources
from app.cli.asking import ask
from app.cli.commands import Verb
from app.cli.destinations import Destination, InNamespace, Printed, SystemSite
from app.cli.exits import Exit, code, one_line, problems
from app.cli.files import STANDARD, read_input
from app.cli.output import hint, say
from app.cli.redeeming import Attempts, Errand, redeem
from app.crypto.facts import facts
from app.domain.durations import parse_window
from app.domain.names import common_name, is_object_name
from app.domain.receipts import Receipt
from app.domain.times import rfc3339
from app.domain.tokens import Token, read_token
from app.errors import GrantServerError, Invalid, Refused, Unavailable

_LONGEST_SUBJECT: Final = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    subject: str | None
    name: str | None
    own_key: bool
    key_file: Path | None
    namespace_directory: Path | None
    apply: bool
    namespace: str | None
    kubeconfig: Path | None
    wait: str | None
    force: bool


@click.command(
    "redeem",
    cls=Verb,
    examples=[
        "grantserver token redeem west-token.yaml | kubectl apply -f -",
        "grantserver token redeem west-token.yaml --out ~/.local/share/skupper/namespaces/default",
        "grantserver token redeem west-token.yaml south-token.yaml --apply -n shop --wait 5m",
    ],
)
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--subject",
    help="Who is linking: it becomes the name in the certificate. Without it, this host's name, "
    "and with --apply the UID of the Site.",
)
@click.option("--name", help="Name of the Secret and the Link; without it, the token's.")
@click.option(
    "--csr/--no-csr",
    "own_key",
    default=True,
    show_default=True,
    help="Make the private key here and send a certificate request, where the server takes one.",
)
@click.option(
    "--key",
    "key_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep that private key in this file, which is made if it is missing: with it, the same "
    "command asks for the same certificate again.",
)
@click.option(
    "--out",
    "namespace_directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Store the resources for a Skupper system site: DIR is the directory of its namespace.",
)
@click.option(
    "--apply", is_flag=True, help="Store the resources in a namespace of a Kubernetes cluster."
)
@click.option(
    "-n",
    "--namespace",
    help="With --apply: the namespace; without it, the kubeconfig's or the pod's own, or default.",
)
@click.option(
    "--kubeconfig",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --apply: how to reach the cluster, if not as ~/.kube/config or a pod's service "
    "account say.",
)
@click.option(
    "--wait",
    metavar="DURATION",
    help="Try again for so long what may succeed later: 90s, 25m, 1h30m.",
)
@click.option("--force", is_flag=True, help="With --out: replace a link of the same name.")
def command(sources: Sequence[str], **options: Any) -> int:
    """Turn tokens into the Secrets and Links of links.

    Each FILE is a token file, or - for standard input. Secret and Links are printed as YAML, with
    the private key of the link in them, or stored with --out or --apply. One redemption of each
    token is used.
    """
    given = _Options(apply=options.pop("apply"), **options)
    _check(sources, given)
    wait_seconds = 0 if given.wait is None else parse_window(given.wait, field="wait")
    tokens = [(source, read_token(read_input(source, what="token"))) for source in sources]
    if given.subject is not None:
        _checked_subject(given.subject)
    if given.namespace_directory is not None:
        with resources.removed_if_empty(given.namespace_directory):
            return ask(_locally(tokens, given, wait_seconds))
    if given.apply:
        return ask(_in_namespace(tokens, given, wait_seconds))
    return ask(_locally(tokens, given, wait_seconds))


def _check(sources: Sequence[str], given: _Options) -> None:
    """Raise UsageError for options that say nothing together."""
    several = len(sources) > 1
    stored = given.apply or given.namespace_directory is not None
    for wrong, why in (
        (several and given.name is not None, "--name is for one token only"),
        (several and given.key_file is not None, "--key is for one token only"),
        (sources.count(STANDARD) > 1, "standard input can be read once only"),
        (given.apply and given.namespace_directory is not None, "choose --out or --apply"),
        (stored and given.key_file is not None, "--key is for standard output: the key is stored"),
        (not given.own_key and given.key_file is not None, "--key does not go with --no-csr"),
        (not given.apply and given.namespace is not None, "--namespace goes with --apply"),
        (not given.apply and given.kubeconfig is not None, "--kubeconfig goes with --apply"),
    ):
        if wrong:
            raise click.UsageError(why)


async def _locally(tokens: Sequence[tuple[str, Token]], given: _Options, wait_seconds: int) -> int:
    """Redeem for standard output or a system site."""
    subject = _checked_subject(_host_name() if given.subject is None else given.subject)
    errands: list[tuple[Errand, Destination]] = []
    for errand in _errands(tokens, given, subject):
        if given.namespace_directory is None:
            destination: Destination = Printed(own_key=given.own_key, key_file=given.key_file)
        else:
            destination = SystemSite(
                namespace=given.namespace_directory,
                name=errand.name,
                token_url=errand.token.url,
                own_key=given.own_key,
                force=given.force,
            )
        errands.append((errand, destination))
    ended = await _redeem_all(errands, wait_seconds)
    if given.namespace_directory is not None and ended.stored:
        say("Next, let the site read them:")
        say(f"  {resources.reload_command(given.namespace_directory)}")
    return ended.status


async def _in_namespace(
    tokens: Sequence[tuple[str, Token]], given: _Options, wait_seconds: int
) -> int:
    """Redeem for a namespace of a cluster, as the Site that is there."""
    from app.cli.clusters import opened_cluster  # noqa: PLC0415 - only where it is asked for
    from app.kube.links import Place, mark_of, site_in  # noqa: PLC0415

    async with opened_cluster(given.kubeconfig, given.namespace) as (kube, namespace):
        site = await site_in(kube, namespace)
        if site is None:
            raise click.ClickException(
                f"there is no Site in namespace {namespace}: it has to own what is made"
            )
        subject = given.subject or _checked_subject(str(site["metadata"]["uid"]))
        urls = {source: token.url for source, token in tokens}
        errands: list[tuple[Errand, Destination]] = [
            (
                errand,
                InNamespace(
                    place=Place(
                        kube=kube,
                        namespace=namespace,
                        site=site,
                        mark=mark_of(urls[errand.source]),
                    ),
                    name=errand.name,
                    own_key=given.own_key,
                ),
            )
            for errand in _errands(tokens, given, subject)
        ]
        return (await _redeem_all(errands, wait_seconds)).status


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    stored: int
    status: int


async def _redeem_all(errands: Sequence[tuple[Errand, Destination]], wait_seconds: int) -> _Ended:
    """Redeem all tokens beside each other, once all that is stored can be stored.

    Raises what went wrong where there is one token; of several, each error is told.
    """
    ready: list[tuple[Errand, Destination, Attempts]] = []
    try:
        for errand, destination in errands:
            key_pem = await destination.ready()
            attempts = Attempts(key_pem=key_pem, wait_seconds=wait_seconds)
            ready.append((errand, destination, attempts))
    except BaseException:
        for _, destination, _ in ready:
            await destination.undo()
        raise
    results = await asyncio.gather(*(_redeem(*one) for one in ready), return_exceptions=True)
    errors = [result for result in results if result is not None]
    if len(errands) == 1 and errors:
        raise errors[0]
    failures = [
        _tell(errand, result)
        for (errand, _), result in zip(errands, results, strict=True)
        if result is not None
    ]
    status = Exit.DONE
    if failures:
        only_later = all(one is Exit.NOT_YET for one in failures)
        status = Exit.NOT_YET if only_later else Exit.FAILED
    return _Ended(stored=len(ready) - len(failures), status=status)


def _tell(errand: Errand, error: BaseException) -> Exit:
    """Say what went wrong with one of several tokens, and how a command of its own would end."""
    match error:
        case GrantServerError():
            status, lines = code(error), problems(error)
        case click.ClickException():
            status, lines = Exit.FAILED, [one_line(error.format_message())]
        case _:
            raise error
    for line in lines:
        hint(f"error: {one_line(errand.source)}: {line}")
    return status


async def _redeem(errand: Errand, destination: Destination, attempts: Attempts) -> None:
    try:
        receipt = await redeem(errand, attempts)
    except Unavailable:
        # The key is kept for the next run where an answer to it may have been lost.
        await destination.give_up(final=not attempts.lost)
        raise
    except GrantServerError:
        await destination.give_up(final=True)
        raise
    except click.ClickException:
        # It was answered, in a way that is of no use: the same key gets the same answer again.
        await destination.give_up(final=False)
        raise
    await destination.store(receipt, _summary(receipt, errand, asked=bool(attempts.key_pem)))


def _errands(
    tokens: Sequence[tuple[str, Token]], given: _Options, subject: str
) -> Sequence[Errand]:
    errands = [
        Errand(
            source=source,
            token=token,
            name=_checked_name(given.name or token.name),
            subject=subject,
        )
        for source, token in tokens
    ]
    for name, times in Counter(errand.name for errand in errands).items():
        if times > 1:
            raise Invalid("name", f'{times} tokens have the name "{name}": redeem them one by one')
    return errands


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


def _summary(receipt: Receipt, errand: Errand, *, asked: bool) -> str:
    links = len(receipt.resources) - 1
    text = f"Redeemed {errand.name} as {errand.subject}: a Secret and "
    text += "a Link" if links == 1 else f"{links} Links"
    with contextlib.suppress(Invalid):  # only told to people: routers judge the certificate
        made = facts(receipt.certificate_pem)
        text += f"; the certificate is {made.subject}, signed by {made.issuer}"
        text += f", good until {rfc3339(made.not_after)}"
    if receipt.own_key:
        text += "; its private key was made here and was not sent"
    elif asked:
        text += "; its private key was made by the server, which takes no certificate requests"
    return f"{one_line(text)}."
