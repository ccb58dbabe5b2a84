"""`grantserver token`: the files that are handed over from a listening to a connecting site."""

from typing import Final

import click

from app.cli.commands import Late, Noun

# Each on its own: redeeming needs no database, and issuing needs no network.
_VERBS: Final = {
    "issue": Late("app.cli.token_issue", "Make a grant and write its token file, in one."),
    "redeem": Late("app.cli.token_redeem", "Turn tokens into the Secrets and Links of links."),
    "inspect": Late("app.cli.token_inspect", "Ask what is left of a token, without using it."),
}


@click.group(cls=Noun, name="token", late=_VERBS)
def command() -> None:
    """The files that are handed over: issued, redeemed, inspected."""
