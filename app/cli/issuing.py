"""What `grant create` and `token issue` share: the options of a grant, and writing its token."""

import ipaddress
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from app.cli.administration import Administration, NewGrant
from app.cli.files import STANDARD, new_file
from app.cli.output import hint, paste, say, warn
from app.domain.certificates import KeyType
from app.domain.durations import format_seconds, parse_window
from app.domain.grants import SHORT_WINDOW, Grant
from app.domain.policies import Policy, read_lifetime
from app.domain.times import parse_rfc3339, rfc3339
from app.errors import Invalid
from app.services.grants import Wish

_Command = TypeVar("_Command", bound=Callable[..., Any])
_OPTIONS: Final = (
    click.option("--site", help="Site that the grant leads to; not needed when there is only one."),
    click.option(
        "--redemptions",
        type=int,
        default=1,
        show_default=True,
        help="How many times it can be redeemed.",
    ),
    click.option(
        "--window",
        default="15m",
        show_default=True,
        metavar="DURATION",
        help="How long it can be redeemed, from now on: 90s, 25m, 1h30m, 1.5h.",
    ),
    click.option(
        "--cost",
        type=int,
        default=1,
        show_default=True,
        help="Cost of the link: traffic goes the cheapest way.",
    ),
    click.option(
        "--issuer",
        metavar="AUTHORITY",
        help="Authority that signs instead of the site's own.",
    ),
    click.option(
        "--subject",
        "subjects",
        multiple=True,
        metavar="PATTERN",
        help="Only this subject may redeem it; * stands for any characters, ? for one. Give it "
        "several times for several.",
    ),
    click.option(
        "--from",
        "networks",
        multiple=True,
        metavar="NETWORK",
        help="It is redeemed from this network (10.1.0.0/16) or address alone. Give it several "
        "times for several.",
    ),
    click.option(
        "--per-subject",
        type=int,
        metavar="N",
        help="How many times one subject may redeem it.",
    ),
    click.option("--name-prefix", metavar="TEXT", help="Names of links have to begin with this."),
    click.option(
        "--lifetime",
        metavar="DURATION",
        help="How long certificates are valid, where that is less than usual: 720h.",
    ),
    click.option(
        "--key-type",
        type=click.Choice([one.value for one in KeyType]),
        help="Kind of the certificates' keys, where that is another than usual.",
    ),
    click.option(
        "--not-before",
        metavar="TIME",
        help="Nobody can redeem it earlier: a time such as 2027-03-01T08:00:00Z.",
    ),
    click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="KEY=VALUE",
        help="Label, by which grants are found again. Give it several times for several.",
    ),
    click.option("--description", default="", metavar="TEXT", help="What it is for, to people."),
    click.option("--force", is_flag=True, help="Replace the token file if it is there already."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The options of a grant as they were typed."""

    site: str | None
    redemptions: int
    window: str
    cost: int
    issuer: str | None
    force: bool
    subjects: tuple[str, ...]
    networks: tuple[str, ...]
    per_subject: int | None
    name_prefix: str | None
    lifetime: str | None
    key_type: str | None
    not_before: str | None
    labels: tuple[str, ...]
    description: str

    def wish(self, name: str, *, code: str | None = None) -> Wish:
        """Read them. Raises Invalid for what cannot be read."""
        seconds = parse_window(self.window)
        if seconds < SHORT_WINDOW:
            warn(f"a window of {self.window} is short: the token may end before it gets across")
        return Wish(
            name=name,
            site=self.site,
            redemptions=self.redemptions,
            window_seconds=seconds,
            cost=self.cost,
            code=code,
            issuer=self.issuer,
            policy=Policy(
                subjects=self.subjects,
                networks=self.networks,
                lifetime_seconds=None if self.lifetime is None else read_lifetime(self.lifetime),
                key_type=None if self.key_type is None else KeyType(self.key_type),
                per_subject=self.per_subject,
                name_prefix=self.name_prefix,
            ),
            not_before=None if self.not_before is None else moment("not_before", self.not_before),
            labels=read_labels(self.labels),
            description=self.description,
        )


def moment(field: str, text: str) -> int:
    """Read a time as UTC seconds. Raises Invalid naming the field."""
    found = parse_rfc3339(text)
    if found is None:
        raise Invalid(field, "expected a time such as 2027-03-01T08:00:00Z")
    return found


def read_labels(texts: Sequence[str]) -> dict[str, str]:
    """Read labels that were typed as KEY=VALUE. Raises Invalid."""
    labels = dict[str, str]()
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key in labels:
            raise Invalid("label", f'"{text[:80]}" is not KEY=VALUE, or comes twice')
        labels[key] = value
    return labels


def grant_options(command: _Command) -> _Command:
    """Add the options of a grant to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def create_with_token(there: Administration, wish: Wish, target: str, *, force: bool) -> Grant:
    """Create a grant and write its token to a file, or to standard output for `-`.

    Either both are there at the end or neither. Raises what creating and writing raise.
    """
    there.reach()  # raises while a token could not say where to go
    made: NewGrant | None = None
    try:
        if target == STANDARD:
            made = there.create_grant(wish)
            sys.stdout.write(made.token)
            sys.stdout.flush()
        else:
            with new_file(Path(target), force=force) as file:
                made = there.create_grant(wish)
                file.write(made.token.encode())
    except BaseException:
        if made is not None:
            there.withdraw_grant(made.grant)
        raise
    return made.grant


def tell_of_token(there: Administration, grant: Grant, target: str) -> None:
    """Say what the token is good for and what to type next; warn when nobody can reach us."""
    tell = hint if target == STANDARD else say
    tell(f"Grant {grant.name}: {terms(grant)}.")
    if target != STANDARD:
        tell(f"The token is in {target}; whoever holds it can link, so hand it over safely.")
        tell("Next, on the connecting side, one of:")
        tell(f"  {paste('token', 'redeem', target)}")
        tell(f"  kubectl apply -f {shlex.quote(target)}")
    tell("How often it has been redeemed shows:")
    tell(f"  {paste('grant', 'show', grant.name, '--site', grant.site)}")
    warn_if_local(there)


def warn_if_local(there: Administration) -> None:
    """Warn when tokens lead to this very machine."""
    reach = there.reach()
    if is_local(reach.host):
        warn(
            f"the token leads to {reach.url}, which works on this machine only: "
            "set GRANTSERVER_REACH_URL to an address that other sites can reach"
        )


def is_local(host: str) -> bool:
    """Tell whether a host means the machine that asks for it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def terms(grant: Grant) -> str:
    """Say in words how often, where to and until when a grant is good."""
    times = "once" if grant.allowed == 1 else f"{grant.allowed} times"
    window = format_seconds(grant.expires_at - grant.created_at)
    return (
        f"links to site {grant.site} {times}, until {rfc3339(grant.expires_at)} ({window}), "
        f"cost {grant.cost}"
    )
