"""`grantserver audit`: the record of everything that was changed, and whether it is as it was."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from app import ambient
from app.cli.administration import Wanted
from app.cli.commands import Noun
from app.cli.files import STANDARD, new_file
from app.cli.opening import opened
from app.cli.output import Document, Form, form_option, hint, say, show_list
from app.cli.servers import administration
from app.crypto.audit_heads import HeadKeys
from app.domain.audit import Entry
from app.domain.times import parse_moment, rfc3339
from app.errors import Invalid
from app.services import audit_export
from app.services.audit_chain import Verdict

_TIMES: Final = re.compile(r"not_(?:before|after)|\w+_at")
_MOST: Final = 1_000_000
_HEAD: Final = re.compile(r"([1-9][0-9]{0,18}):([0-9a-f]{64})")


@click.group(cls=Noun, name="audit")
def command() -> None:
    """The record of everything that was changed, and whether it is as it was."""


@command.command(
    "list",
    examples=[
        "grantserver audit list -n 5 --target site/west",
        "grantserver audit list --act grant.refused --since 24h",
        "grantserver audit list --actor cli: --since 2026-11-01T00:00:00Z -o json",
    ],
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
@click.option("--act", help="Only these: grant.redeemed, or grant for all acts on grants.")
@click.option("--actor", help="Only what this one did: cli:root, or cli: for all of its kind.")
@click.option("--since", metavar="TIME", help="Not before: 2026-11-22T08:00:00Z, or 2h ago.")
@click.option("--until", metavar="TIME", help="Not after.")
@form_option
def _list(
    limit: int,
    target: str | None,
    act: str | None,
    actor: str | None,
    since: str | None,
    until: str | None,
    form: Form,
) -> None:
    """List the newest entries, the newest of them last; with several options, what passes all."""
    now = ambient.utc_now()
    found = administration().entries(
        Wanted(
            limit=limit,
            target=target,
            act=act,
            actor=actor,
            since=None if since is None else parse_moment(since, now=now, field="since"),
            until=None if until is None else parse_moment(until, now=now, field="until"),
        )
    )
    show_list(
        form,
        ("time", "act", "actor", "target", "details"),
        [
            (rfc3339(one.at), one.act, one.actor, one.target, _written(_details(one)))
            for one in found
        ],
        [_document(one) for one in found],
        empty=_none(target, narrowed=any((act, actor, since, until))),
    )


def _none(target: str | None, *, narrowed: bool) -> str:
    if narrowed:
        return "There are no such entries."
    return "There are no entries" + (f" about {target}: is it kind/name?" if target else ".")


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


@command.command(
    "verify",
    examples=[
        "grantserver audit verify",
        "grantserver audit verify audit.jsonl --public-keys audit-keys.json",
    ],
)
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--public-keys",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With FILE: the keys that its heads are signed by, as `audit keys` prints them; without "
    "it, those of this server.",
)
@click.option(
    "--head",
    "heads",
    metavar="POSITION:HASH",
    multiple=True,
    help="A head that was kept elsewhere, as the server logs it; may be given several times.",
)
def _verify(file: Path | None, public_keys: Path | None, heads: Sequence[str]) -> None:
    """Walk the whole log, or what was exported to FILE, and name the first entry that is wrong.

    Any change of an entry that was sealed is found, any that is missing, or in another place.
    """
    expected = [_head(one) for one in heads]
    if file is None:
        if public_keys is not None:
            raise click.UsageError("--public-keys goes with FILE")
        verdict = opened().audit_chain.verify(expected)
    else:
        keys = opened().audit_chain.keys if public_keys is None else _keys(public_keys)
        verdict = audit_export.verify(_lines(file), keys, expected)
    _tell(verdict)


@command.command("export", examples=["grantserver audit export audit.jsonl"])
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def _export(target: Path) -> None:
    """Write all that is sealed to FILE, as JSON lines; - is standard output."""
    chain = opened().audit_chain
    chain.seal()
    if str(target) == STANDARD:
        for line in audit_export.export(chain):
            click.echo(line)
        return
    count = 0
    with new_file(target, force=False) as file:
        for line in audit_export.export(chain):
            file.write(f"{line}\n".encode())
            count += 1
    say(f"{count} lines are in {target}.")


@command.command("keys", examples=["grantserver audit keys"])
def _show_keys() -> None:
    """Print the public keys by which heads are signed; keep them where the server cannot write."""
    say(json.dumps(opened().audit_chain.keys.written(), indent=2))


def _tell(verdict: Verdict) -> None:
    """Say what came of a walk; raises ClickException for a fault."""
    fault = verdict.fault
    if fault is not None:
        row = f" (row {fault.audit_id})" if fault.audit_id else ""
        raise click.ClickException(f"entry {fault.position}{row}: {fault.why}")
    if verdict.last:
        say(f"Entries {verdict.first} to {verdict.last} are as they were sealed.")
    else:
        say("There is nothing that was sealed.")
    if verdict.head is not None:
        say("The newest head, to be kept elsewhere:")
        say(f"  {verdict.head.position}:{verdict.head.hash.hex()}")
    if verdict.waiting:
        hint(f"{verdict.waiting} entries are not sealed yet: a running server does it each second")


def _head(text: str) -> tuple[int, bytes]:
    found = _HEAD.fullmatch(text)
    if found is None:
        raise Invalid("head", "expected POSITION:HASH, with 64 hexadecimal digits")
    return int(found[1]), bytes.fromhex(found[2])


def _keys(path: Path) -> HeadKeys:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Invalid("public-keys", f"{path} cannot be read: {error}") from error
    if not isinstance(read, dict):
        raise Invalid("public-keys", f"{path} holds no JSON object")
    return HeadKeys.read({str(key_id): str(key) for key_id, key in read.items()})


def _lines(path: Path) -> Callable[[], Iterable[str]]:
    def read() -> Iterable[str]:
        try:
            with path.open(encoding="utf-8") as file:
                yield from file
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid("file", f"{path} cannot be read: {error}") from error

    return read
