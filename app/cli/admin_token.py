"""`grantserver admin-token`: the tokens of those who use the admin API."""

import sys
from pathlib import Path

import click

from app.cli.administration import Administration, SeenToken
from app.cli.commands import Noun
from app.cli.files import STANDARD, new_file
from app.cli.output import Document, Form, form_option, hint, paste, say, show_list, show_one, warn
from app.cli.servers import administration
from app.domain.admin_tokens import AdminToken
from app.domain.callers import Rights, Verb, read_rights, written_sites, written_verbs
from app.domain.durations import parse_window
from app.domain.times import rfc3339
from app.services.admin_tokens import Made


@click.group(cls=Noun, name="admin-token")
def command() -> None:
    """Tokens of those who use the admin API."""


@command.command(
    "create",
    examples=[
        "grantserver admin-token create ci --verb read --verb create --site west --out ci.token",
        "grantserver admin-token create portal --verb read --site west --window 720h",
        "grantserver admin-token create boss --verb '*' --site '*'",
    ],
)
@click.argument("name")
@click.option(
    "--verb",
    "verbs",
    multiple=True,
    required=True,
    metavar="VERB",
    help=f"What may be done with it: {', '.join(Verb)}, or * for all. Give it several times for "
    "several.",
)
@click.option(
    "--site",
    "sites",
    multiple=True,
    required=True,
    metavar="SITE",
    help="At which site; * is every site, those to come too. Give it several times for several.",
)
@click.option(
    "--window",
    metavar="DURATION",
    help="How long it is good, from now on: 720h is thirty days. Without it, until it is revoked.",
)
@click.option(
    "--out",
    "target",
    metavar="FILE",
    help="Write the token to this file (- for standard output) instead of printing it.",
)
@click.option("--force", is_flag=True, help="Replace the file if it is there already.")
def _create(
    name: str,
    verbs: tuple[str, ...],
    sites: tuple[str, ...],
    window: str | None,
    target: str | None,
    *,
    force: bool,
) -> None:
    """Make a token and print it, once.

    FILE is made with mode 0600, and the token is not printed then.
    """
    rights = read_rights(verbs, sites)
    seconds = None if window is None else parse_window(window)
    there, tell = administration(), hint if target == STANDARD else say
    if target is None:
        made = there.create_admin_token(name, rights, seconds)
    else:
        made = _delivered(there, name, rights, seconds, target, force=force)
    tell(f"Admin token {name} is made: {_terms(made.token)}.")
    if target is None:
        say(f"  {made.secret}")
        say("It is shown this once and kept nowhere.")
    elif target != STANDARD:
        say(f"It is in {target}; whoever holds it may do that, so hand it over safely.")
    tell("When and from where it was used last shows:")
    tell(f"  {paste('admin-token', 'show', name)}")
    if made.token.expires_at is None:
        warn("it is good until somebody revokes it: --window bounds that")


@command.command("list", examples=["grantserver admin-token list"])
@form_option
def _list(form: Form) -> None:
    """List all tokens, those that are revoked or expired too; never what they are."""
    found = administration().admin_tokens()
    show_list(
        form,
        ("name", "state", "verbs", "sites", "expires", "last used"),
        [
            (
                one.token.name,
                one.state,
                ", ".join(written_verbs(one.token.rights)),
                ", ".join(written_sites(one.token.rights)),
                _time(one.token.expires_at),
                _time(one.token.last_used_at),
            )
            for one in found
        ],
        [_document(one) for one in found],
        empty="There are no admin tokens. Make one:\n  "
        + paste("admin-token", "create", "NAME", "--verb", "read", "--site", "SITE"),
    )


@command.command("show", examples=["grantserver admin-token show ci"])
@click.argument("name")
@form_option
def _show(name: str, form: Form) -> None:
    """Show what is known of a token: its rights, its last use; never what it is."""
    seen = administration().admin_token(name)
    token = seen.token
    facts: list[tuple[str, object]] = [
        ("Name", token.name),
        ("Id", token.id),
        ("State", seen.state),
        ("Verbs", ", ".join(written_verbs(token.rights))),
        ("Sites", ", ".join(written_sites(token.rights))),
        ("Created", f"{rfc3339(token.created_at)} by {token.created_by}"),
        ("Expires", _time(token.expires_at) or "never"),
        ("Revoked", _time(token.revoked_at)),
        ("Last used", _time(token.last_used_at)),
        ("From", token.last_used_from),
    ]
    show_one(form, facts, _document(seen))


@command.command("revoke", examples=["grantserver admin-token revoke ci"])
@click.argument("name")
def _revoke(name: str) -> None:
    """Make a token good for nothing, at once and for ever."""
    administration().revoke_admin_token(name)
    say(f"Admin token {name} is revoked: whoever shows it is nobody from now on.")


def _delivered(
    there: Administration,
    name: str,
    rights: Rights,
    window_seconds: int | None,
    target: str,
    *,
    force: bool,
) -> Made:
    """Make a token and write it to a file, or to standard output; none is left that nobody has."""
    made: Made | None = None
    try:
        if target == STANDARD:
            made = there.create_admin_token(name, rights, window_seconds)
            sys.stdout.write(f"{made.secret}\n")
            sys.stdout.flush()
        else:
            with new_file(Path(target), force=force) as file:
                made = there.create_admin_token(name, rights, window_seconds)
                file.write(f"{made.secret}\n".encode())
    except BaseException:
        if made is not None:
            there.revoke_admin_token(name)
        raise
    return made


def _terms(token: AdminToken) -> str:
    """Say in words what it is good for, and until when."""
    verbs = "everything" if token.rights.verbs == frozenset(Verb) else None
    done = verbs or ", ".join(written_verbs(token.rights))
    where = "every site" if token.rights.sites is None else ", ".join(sorted(token.rights.sites))
    until = "it is revoked" if token.expires_at is None else rfc3339(token.expires_at)
    return f"{done} at {where}, until {until}"


def _time(moment: int | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def _document(seen: SeenToken) -> Document:
    token = seen.token
    return {
        "name": token.name,
        "id": token.id,
        "state": seen.state,
        "verbs": written_verbs(token.rights),
        "sites": written_sites(token.rights),
        "creationTime": rfc3339(token.created_at),
        "createdBy": token.created_by,
        "expirationTime": _time(token.expires_at),
        "revocationTime": _time(token.revoked_at),
        "lastUsedTime": _time(token.last_used_at),
        "lastUsedFrom": token.last_used_from,
    }
