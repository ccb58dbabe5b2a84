"""`grantserver token issue`: a grant and its token file in one."""

from typing import Any, Final

import click

from app import ambient
from app.cli.administration import Administration
from app.cli.commands import Verb
from app.cli.issuing import Choice, create_with_token, grant_options, tell_of_token
from app.cli.servers import administration

_LONGEST_NAME: Final = 63
_RANDOM_BYTES: Final = 4


@click.command(
    "issue",
    cls=Verb,
    examples=[
        "grantserver token issue west-token.yaml",
        "grantserver token issue west-token.yaml --site west --redemptions 2 --window 25m --cost 2",
    ],
)
@click.argument("target", metavar="FILE")
@click.option("--name", help="Name of the grant; without it, the site's name and a random part.")
@grant_options
def command(target: str, name: str | None, **options: Any) -> None:
    """Make a grant and write its token file, in one.

    FILE is made with mode 0600; - writes the token to standard output. It applies to a cluster
    with Skupper as it stands, and to system sites.
    """
    choice = Choice(**options)
    there = administration()
    wish = choice.wish(name or _default_name(there, choice.site))
    grant = create_with_token(there, wish, target, force=choice.force)
    tell_of_token(there, grant, target)


def _default_name(there: Administration, site: str | None) -> str:
    if site is None:
        known = there.sites()
        site = known[0].name if len(known) == 1 else "token"  # if not one, creating says so
    random = ambient.random_bytes(_RANDOM_BYTES).hex()
    return f"{site[: _LONGEST_NAME - len(random) - 1].rstrip('-')}-{random}"
