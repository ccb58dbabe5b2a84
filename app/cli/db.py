"""`grantserver db`: the database upgraded, checked, backed up."""

from pathlib import Path

import click

from app.cli.commands import Noun
from app.cli.opening import opened, settings
from app.cli.output import paste, say
from app.errors import Misconfigured, Missing, Unavailable
from app.services import maintenance
from app.store.engine import Database


@click.group(cls=Noun, name="db")
def command() -> None:
    """The database: upgraded, checked, backed up."""


@command.command("upgrade", examples=["grantserver db upgrade"])
def _upgrade() -> None:
    """Bring the database to what this release needs; stop the server and back it up before."""
    try:
        database = _existing()
    except Missing:
        home = opened()
        say(f"A new database is made: {home.database.path}, revision {home.database.revision()}.")
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
    """Read the whole database and tell whether it is sound."""
    database = _existing()
    try:
        problems = maintenance.examine(database).problems
    except (Misconfigured, Unavailable) as error:  # too damaged even for the examination
        problems = (str(error),)
    if problems:
        lines = "\n".join(problems)
        raise click.ClickException(
            f"{database.path} is damaged: stop the server and restore a backup\n{lines}"
        )
    database.check_revision()
    say(f"{database.path} is sound, and at the revision that this release needs.")


@command.command("backup", examples=["grantserver db backup grantserver-backup.db"])
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def _backup(target: Path) -> None:
    """Copy the database to FILE while the server goes on; the copy is checked, mode 0600."""
    database = _existing()
    found = maintenance.back_up(database, target)
    say(f"The database is copied to {target}: revision {found.revision}, checked, sound.")
    say(
        f"Keep {settings().sealing.key_file} too, in another place: "
        "without it the keys in the copy cannot be opened."
    )
    say("To restore it, stop the server, put the copy in the place of")
    say(f"  {database.path}")
    say("remove the files of that name that end with -wal and -shm, and run:")
    say(f"  {paste('doctor')}")


def _existing() -> Database:
    database = maintenance.existing(settings().database.url)
    click.get_current_context().find_root().call_on_close(database.close)
    return database
