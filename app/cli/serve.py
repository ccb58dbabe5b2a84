"""`grantserver serve`: runs the server until it is told to stop."""

import click

from app.cli.commands import Verb
from app.cli.opening import settings


@click.command(
    "serve",
    cls=Verb,
    examples=["grantserver serve", "grantserver --config /etc/grantserver.toml serve --workers 4"],
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Server processes that share the work; one for each core is enough.",
)
def command(workers: int | None) -> None:
    """Run the server.

    It runs until it is stopped: Ctrl-C, or SIGTERM.

    Settings come from GRANTSERVER_… variables and from --config, so that commands that issue
    tokens see the same ones.
    """
    from app.workers import run  # noqa: PLC0415 - the whole web stack, for this command alone

    run(settings(workers=workers))
