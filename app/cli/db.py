"""`grantserver db`: the database upgraded, checked, backed up, pruned."""

from pathlib import Path
from typing import Final

import click

from app import ambient
from app.cli.commands import Noun
from app.cli.opening import opened, settings
from app.cli.output import paste, say
from app.errors import Misconfigured, Missing, Unavailable
from app.metrics import Pruned
from app.services import housekeeping, maintenance
from app.store.engine import Database

_KINDS: Final = {
    Pruned.ANSWERS: "answers kept for retries",
    Pruned.GRANTS: "grants",
    Pruned.REDEMPTIONS: "redemptions",
    Pruned.AUDIT: "entries of the audit log",
    Pruned.DELIVERIES: "events that no webhook took",
    Pruned.AUTHORITIES: "authorities of issuer Secrets",
}


@click.group(cls=Noun, name="db")
def command() -> None:
    """The database: upgraded, checked, backed up, pruned."""


@command.command("upgrade", examples=["grantserver db upgrade"])
def _upgrade() -> None:
    """Bring the database to what this release needs; stop the server and back it up before."""
    try:
        database = _existing()
    except Missing:
        home = opened()
        say(f"A new database is made: {home.database.name}, revision {home.database.revision()}.")
        return
    before = database.revision()
    database.upgrade()
    database.check_revision()
    after = database.revision()
    if before == after:
        say(f"The database is at revision {after} already; nothing was changed.")
    else:
        say(f"The database was brought from revision {before or 'none'} to {after}.")


@command.command("check", examples=["grantserver db check"])
def _check() -> None:
    """Read the whole database and tell whether it is sound, and opens with the sealing keys.

    What is read: every page and index, every reference, each grant's counter against the
    redemptions that are written down, the revision, and every sealed key.
    """
    database = _existing()
    database.check_in_place()
    try:
        problems = maintenance.examine(database, ambient.utc_now()).problems
    except (Misconfigured, Unavailable) as error:  # too damaged even for the examination
        problems = (str(error),)
    if problems:
        lines = "\n".join(problems)
        raise click.ClickException(
            f"{database.name} is damaged: stop the server and restore a backup\n{lines}"
        )
    database.check_revision()
    key_file = settings().sealing.key_file
    shut = maintenance.sealed_problems(database, key_file, ambient.random_bytes)
    if shut:
        lines = "\n".join(shut)
        raise click.ClickException(f"{database.name} is sound, and cannot be opened\n{lines}")
    say(f"{database.name} is sound, and at the revision that this release needs.")
    say(f"All keys that are sealed in it open with {key_file}.")


@command.command("backup", examples=["grantserver db backup grantserver-backup.db"])
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def _backup(target: Path) -> None:
    """Copy the database to FILE while the server goes on; the copy is checked, mode 0600."""
    database = _existing()
    found = maintenance.back_up(database, target, ambient.utc_now())
    say(f"The database is copied to {target}: revision {found.revision}, checked, sound.")
    say(
        f"Keep {settings().sealing.key_file} too, in another place: "
        "without it the keys in the copy cannot be opened."
    )
    say("To restore it, stop the server, put the copy in the place of")
    say(f"  {database.name}")
    say("remove the files of that name that end with -wal and -shm, and run:")
    say(f"  {paste('doctor')}")


@command.command("prune", examples=["grantserver db prune --dry-run", "grantserver db prune"])
@click.option("--dry-run", "dry", is_flag=True, help="Count what would be deleted, and keep it.")
def _prune(dry: bool) -> None:
    """Delete now what need not be kept any longer, as the server does once a minute.

    How long is settings: answers that are kept for retries, grants with their redemptions, and
    entries of the audit log. Authorities of issuer Secrets that nothing leads to any more go too.
    """
    database = _existing()
    database.check_revision()
    wanted = settings().housekeeping
    pruned = housekeeping.prune(
        database,
        opened().audit_chain,
        housekeeping.Keep(
            grants_seconds=wanted.grants_kept_seconds, audit_seconds=wanted.audit_kept_seconds
        ),
        clock=ambient.utc_now,
        monotonic=ambient.monotonic,
        dry=dry,
    )
    say("Would be deleted:" if dry else "Deleted:")
    for kind, what in _KINDS.items():
        say(f"  {pruned[kind]:>9} {what}")


def _existing() -> Database:
    database = maintenance.existing(settings().database.url)
    click.get_current_context().find_root().call_on_close(database.close)
    return database
