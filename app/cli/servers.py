"""Which installation a command administers: the one beside it, or that of --server."""

import click

from app import ambient
from app.cli import afar
from app.cli.administration import Administration
from app.cli.local import Local
from app.cli.opening import opened
from app.cli.remote import Remote
from app.client.client import Client


def administration() -> Administration:
    """Open what this command works on; it is closed when the command ends.

    Raises as `open_home` does, or Invalid, whose field is `server`, `token-file`, `ca` or `token`.
    """
    chosen = afar.chosen()
    if chosen is None:
        return Local(opened())
    client = Client(
        chosen.url,
        ca_pem=chosen.ca_pem(),
        token=chosen.token(),
        monotonic=ambient.monotonic,
        random_bytes=ambient.random_bytes,
    )
    click.get_current_context().find_root().call_on_close(client.close)
    return Remote(client)
