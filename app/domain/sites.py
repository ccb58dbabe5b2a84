"""Listening sites: where their routers are reached, and the Links that follow from it."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.domain.names import check_claimed_name, check_name
from app.errors import Invalid, Lack, Unready

DEFAULT_GROUP: Final = "skupper-router"  # what Skupper calls the endpoints of a site's one router
MOST_ENDPOINTS: Final = 256
"""Of a site: an answer holds all of them, some 200 bytes each. A router has two."""
HIGHEST_PORT: Final = 65535
HIGHEST_COST: Final = 2**31 - 1  # the router keeps a cost in 32 bits
_LONGEST_HOST: Final = 253
_HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[-A-Za-z0-9_]*[A-Za-z0-9_])?")
_LONGEST_HOST_LABEL: Final = 63
_PORT = re.compile(r"[0-9]{1,5}")  # ASCII digits, and few enough to be a number of any use


class Role(StrEnum):
    """What connects at an endpoint: another interior router, or an edge router."""

    INTER_ROUTER = "inter-router"
    EDGE = "edge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of a site's router; `host` carries no brackets, `group` names its router."""

    role: Role
    host: str
    port: int
    group: str = DEFAULT_GROUP


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A listening site; `issuer` names the authority that signs for it.

    `revision` grows with every change, so that what was read once can be kept while it holds.
    `origin` is "kubernetes" where it stands for a namespace, and nobody but the cluster changes it.
    """

    id: int
    name: str
    issuer: str
    endpoints: tuple[Endpoint, ...]
    revision: int
    created_at: int
    origin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a connecting site needs to dial one router of the listening site."""

    name: str
    endpoints: tuple[Endpoint, ...]
    cost: int


def parse_endpoint(text: str, group: str = DEFAULT_GROUP) -> Endpoint:
    """Read `inter-router=HOST:PORT` or `edge=HOST:PORT`; an IPv6 host stands in brackets.

    Raises Invalid("endpoint", …), saying what is wrong with which part.
    """
    shown = text[:300].encode("unicode_escape").decode("ascii")
    role, separator, address = text.partition("=")
    if not separator or role not in set(Role):
        raise Invalid("endpoint", f'"{shown}" should read inter-router=HOST:PORT or edge=HOST:PORT')
    host, separator, port = address.rpartition(":")
    if not separator:
        raise Invalid("endpoint", f'"{shown}" has no port; write {role}=HOST:PORT')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise Invalid("endpoint", f'"{shown}": brackets are for IPv6 addresses only')
    elif ":" in host:
        raise Invalid(
            "endpoint", f'"{shown}": write an IPv6 address in brackets, {role}=[HOST]:PORT'
        )
    if _PORT.fullmatch(port) is None or not 1 <= int(port) <= HIGHEST_PORT:
        raise Invalid(
            "endpoint", f'"{shown}": the port should be a number from 1 to {HIGHEST_PORT}'
        )
    check_host("endpoint", host)
    check_name("group", group)
    return Endpoint(role=Role(role), host=host, port=int(port), group=group)


def check_host(field: str, host: str) -> None:
    """Raise Invalid(field, …) unless `host` is a host name or an IP address without brackets."""
    if ":" in host or host.replace(".", "").isdigit():
        try:
            ipaddress.ip_address(host)
        except ValueError as error:
            shown = host[:80].encode("unicode_escape").decode("ascii")
            raise Invalid(field, f'"{shown}" is not an IP address') from error
        if "%" not in host:
            return
    labels = host.removesuffix(".").split(".")
    if len(host) > _LONGEST_HOST or not all(
        len(label) <= _LONGEST_HOST_LABEL and _HOST_LABEL.fullmatch(label) for label in labels
    ):
        shown = host[:80].encode("unicode_escape").decode("ascii")
        raise Invalid(field, f'"{shown}" is neither a host name nor an IP address')


def check_cost(cost: int) -> None:
    """Raise Invalid("cost", …) unless a Link may have this cost."""
    if not 1 <= cost <= HIGHEST_COST:
        raise Invalid("cost", f"{cost} is not a link cost: expected 1 to {HIGHEST_COST}")


def in_stable_order(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Order by group, then as given within a group; what is written twice stays once.

    Skupper numbers the groups in random order; with ours two redemptions of one site agree.
    A client takes the first endpoint of its role, so the order within a group is the operator's.
    """
    return tuple(sorted(dict.fromkeys(endpoints), key=lambda endpoint: endpoint.group))


def links(name: str, endpoints: Sequence[Endpoint], cost: int) -> tuple[Link, ...]:
    """Group endpoints into Links: one per group, `name` for one, `name-1`, `name-2`… for several.

    `endpoints` are in stable order. Raises Unready(ENDPOINTS) when there are none, and
    Refused(NAME) when a numbered name is too long to be stored.
    """
    if not endpoints:
        raise Unready(Lack.ENDPOINTS, "the site has no endpoints")
    groups: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        groups.setdefault(endpoint.group, []).append(endpoint)
    if len(groups) == 1:
        return (Link(name=name, endpoints=tuple(endpoints), cost=cost),)
    check_claimed_name(f"{name}-{len(groups)}")
    return tuple(
        Link(name=f"{name}-{number}", endpoints=tuple(members), cost=cost)
        for number, members in enumerate(groups.values(), start=1)
    )
