"""What a command works on: the settings, the opened installation, and who is asking."""

import os
import pwd

import click

from app.cli import afar
from app.home import Home, open_home
from app.settings import Settings, from_environment


def settings(**flags: object) -> Settings:
    """Read the settings as --config and the environment have them, and flags of a command.

    A flag that is None was not given. Raises Misconfigured, and UsageError for a command that was
    given --server and has no form for it.
    """
    if afar.chosen() is not None:
        raise click.UsageError(
            "this works on the installation beside it only: run it where the server is, "
            f"without --server and {afar.SERVER}"
        )
    config = click.get_current_context().find_root().obj
    return from_environment(config=config, overrides=flags)


def opened() -> Home:
    """Open the installation for this command; it is closed when the command ends.

    Raises as `open_home` does.
    """
    home = open_home(settings())
    click.get_current_context().find_root().call_on_close(home.database.close)
    return home


def actor() -> str:
    """Name who is asking, for the audit log: the user of this process."""
    user = os.getuid()
    try:
        return f"cli:{pwd.getpwuid(user).pw_name}"
    except KeyError:  # containers run under numbers that no file knows
        return f"cli:{user}"
