"""`grantserver site`: the listening sites that others link to."""

from collections.abc import Iterable
from typing import Final

import click

from app.cli.commands import Noun
from app.cli.output import (
    ENDPOINTS,
    Document,
    Form,
    form_option,
    hint,
    kind,
    paste,
    say,
    show_list,
    show_one,
    warn,
)
from app.cli.servers import administration
from app.domain.sites import DEFAULT_GROUP, Endpoint, Role, Site, parse_endpoint
from app.domain.times import rfc3339
from app.errors import Invalid, Missing

_HOW: Final = (
    "a site needs at least one: --endpoint inter-router=HOST:PORT and --endpoint edge=HOST:PORT"
)


@click.group(cls=Noun, name="site")
def command() -> None:
    """The listening sites that others link to."""


@command.command(
    "set",
    examples=[
        "grantserver site set west --endpoint inter-router=west.example.com:55671",
        "grantserver site set west --endpoint inter-router=[::1]:55671 --endpoint edge=[::1]:45671",
    ],
)
@click.argument("name")
@click.option(
    "--endpoint",
    "texts",
    multiple=True,
    metavar="[GROUP/]ROLE=HOST:PORT",
    help="Where a router of the site listens; ROLE is inter-router or edge, an IPv6 address "
    "stands in brackets. Give it as often as needed.",
)
@click.option(
    "--group",
    default=DEFAULT_GROUP,
    show_default=True,
    help="Router that endpoints without a GROUP belong to; each group becomes a Link of its own.",
)
@click.option(
    "--issuer",
    metavar="AUTHORITY",
    help="Authority that signs for this site; without it, the one that the site has, or site-ca.",
)
def _set(name: str, texts: tuple[str, ...], group: str, issuer: str | None) -> None:
    """Make a site, or replace its endpoints.

    The endpoints that are given replace all that the site had; without any, it keeps them.
    """
    endpoints = [_endpoint(text, group) for text in texts]
    there = administration()
    try:
        site = there.set_site(name, endpoints, issuer)
    except Missing as error:
        if error.kind in {"site", "endpoint"}:
            raise Invalid("endpoint", _HOW) from error
        raise
    _warn_of_gaps(site)
    say(f"Site {site.name} is set; its certificates are signed by {site.issuer}.")
    say("Next, issue a token for it:")
    say(f"  {paste('token', 'issue', f'{site.name}-token.yaml', '--site', site.name)}")


@command.command("list", examples=["grantserver site list", "grantserver site list -o json"])
@form_option
def _list(form: Form) -> None:
    """List all sites."""
    found = administration().sites()
    show_list(
        form,
        ("name", "kind", "issuer", "endpoints"),
        [
            (site.name, kind(site.origin), site.issuer, ", ".join(_written(site.endpoints)))
            for site in found
        ],
        [_document(site) for site in found],
        empty="There are no sites yet. Make one:\n  " + paste("site", "set", "NAME", *ENDPOINTS),
    )


@command.command("show", examples=["grantserver site show west"])
@click.argument("name")
@form_option
def _show(name: str, form: Form) -> None:
    """Show one site."""
    site = administration().site(name)
    facts: list[tuple[str, object]] = [
        ("Name", site.name),
        ("Kind", kind(site.origin)),
        ("Issuer", site.issuer),
        ("Created", rfc3339(site.created_at)),
        *(("Endpoint", written) for written in _written(site.endpoints)),
    ]
    show_one(form, facts, _document(site))


@command.command("remove", examples=["grantserver site remove west"])
@click.argument("name")
def _remove(name: str) -> None:
    """Remove a site that no grant leads to any more."""
    administration().remove_site(name)
    say(f"Site {name} is removed; links that were made with it stay as they are.")


def _endpoint(text: str, group: str) -> Endpoint:
    own_group, slash, rest = text.partition("/")
    if slash and "=" not in own_group:
        return parse_endpoint(rest, own_group)
    return parse_endpoint(text, group)


def _warn_of_gaps(site: Site) -> None:
    roles: dict[str, set[Role]] = {}
    for endpoint in site.endpoints:
        roles.setdefault(endpoint.group, set()).add(endpoint.role)
    for group, present in roles.items():
        where = f"group {group} of site {site.name}"
        if Role.INTER_ROUTER not in present:
            warn(f"{where} has no inter-router endpoint: only edge sites can link to it")
        if Role.EDGE not in present:
            hint(f"note: {where} has no edge endpoint: edge sites cannot link to it")


def _written(endpoints: Iterable[Endpoint]) -> list[str]:
    """Write endpoints as `--endpoint` takes them; the group only where it is not the usual one."""
    return [
        ("" if one.group == DEFAULT_GROUP else f"{one.group}/")
        + f"{one.role}="
        + (f"[{one.host}]" if ":" in one.host else one.host)
        + f":{one.port}"
        for one in endpoints
    ]


def _document(site: Site) -> Document:
    return {
        "name": site.name,
        "kind": kind(site.origin),
        "issuer": site.issuer,
        "creationTime": rfc3339(site.created_at),
        "endpoints": [
            {"role": one.role.value, "host": one.host, "port": one.port, "group": one.group}
            for one in site.endpoints
        ],
    }
