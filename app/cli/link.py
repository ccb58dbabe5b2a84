"""`grantserver link`: the links of a connecting site, and what their costs come to."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from app.cli import links_in_cluster, links_in_directory
from app.cli.commands import Late, Noun
from app.cli.output import Form, form_option, say, show_list
from app.cli.resources import reload_command
from app.domain.known_links import KnownLink
from app.domain.sites import HIGHEST_COST
from app.errors import Invalid

_Command = TypeVar("_Command", bound=Callable[..., Any])
_COLUMNS: Final = ("name", "cost", "state", "remote site", "message", "endpoints")


def _where_options(command: _Command) -> _Command:
    """Add what tells whose links are meant: a namespace's, or a system site's."""
    for option in (
        click.option(
            "--kubeconfig",
            metavar="FILE",
            type=click.Path(path_type=Path, dir_okay=False),
            help="How to reach the cluster, if not as ~/.kube/config or a pod's service account "
            "say.",
        ),
        click.option(
            "-n",
            "--namespace",
            help="The namespace; without it, the kubeconfig's or the pod's own, or default.",
        ),
        click.option(
            "--dir",
            "directory",
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            help="The directory of a system site's namespace, in place of a cluster.",
        ),
    ):
        command = option(command)
    return command


@click.group(
    cls=Noun,
    name="link",
    late={
        "plan": Late(
            "app.cli.link_plan", "Work out where connections go, given the cost of each link."
        ),
    },
)
def command() -> None:
    """The links of a connecting site, and what their costs come to."""


@command.command(
    "list",
    examples=[
        "grantserver link list -n shop",
        "grantserver link list --dir ~/.local/share/skupper/namespaces/default",
    ],
)
@_where_options
@form_option
def _list(
    directory: Path | None, namespace: str | None, kubeconfig: Path | None, form: Form
) -> None:
    """List the links of a connecting site, with their cost and state.

    The state is what the site's controller says of it; that of a system site is not known.
    """
    _check(directory, namespace, kubeconfig)
    if directory is not None:
        found = links_in_directory.every(directory)
    else:
        found = asyncio.run(links_in_cluster.every(kubeconfig, namespace))
    show_list(
        form,
        _COLUMNS,
        [
            (
                *(one.name, one.cost, one.state, one.remote_site, one.message),
                ", ".join(one.endpoints),
            )
            for one in found
        ],
        [_document(one) for one in found],
        empty="no links here: `grantserver token redeem` makes one of a token",
    )


@command.command(
    "cost",
    examples=[
        "grantserver link cost west 5 -n shop",
        "grantserver link cost west 99999 --dir ~/.local/share/skupper/namespaces/default",
    ],
)
@click.argument("name")
@click.argument("cost", type=click.IntRange(1, HIGHEST_COST))
@_where_options
def _cost(
    name: str, cost: int, directory: Path | None, namespace: str | None, kubeconfig: Path | None
) -> None:
    """Change what a link costs.

    NAME is the Link, COST a whole number, 1 or more. Connections that are open stay where they are.
    """
    _check(directory, namespace, kubeconfig)
    if directory is not None:
        before = links_in_directory.set_cost(directory, name, cost)
    else:
        before = asyncio.run(links_in_cluster.set_cost(kubeconfig, namespace, name, cost))
    if before == cost:
        say(f"Link {name} costs {cost}, as it did before.")
        return
    say(f"Link {name} costs {cost} now; it was {before}.")
    if directory is not None:
        say("Next, let the site read it:")
        say(f"  {reload_command(directory)}")


def _check(directory: Path | None, namespace: str | None, kubeconfig: Path | None) -> None:
    if directory is not None and (namespace is not None or kubeconfig is not None):
        raise Invalid("dir", "give a directory or a namespace of a cluster, not both")


def _document(link: KnownLink) -> dict[str, Any]:
    return {
        "name": link.name,
        "cost": link.cost,
        "state": link.state,
        "remoteSite": link.remote_site,
        "message": link.message,
        "endpoints": list(link.endpoints),
    }
