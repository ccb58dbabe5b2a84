"""Link cost, worked out: the cheapest ways, the order of failover, how open connections spread.

The rules are the router's: a way costs what its links cost together, and nothing within a site; a
new connection goes where cost plus connections that are open already is least, to the cheaper one
of two that are equal. So a cost is the number of connections by which another server has to be
ahead before this one gets any. What a router counts is its own connections alone, and links may
come and go: what is worked out here is what one client site sees while nothing changes.
"""

import heapq
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from app.domain.names import check_name
from app.domain.sites import HIGHEST_COST
from app.domain.yaml_documents import read_all
from app.errors import Invalid

MOST_CONNECTIONS: Final = 1_000_000
_MOST_LINKS: Final = 2_000
_MOST_SERVERS: Final = 1_000
_KEYS: Final = frozenset({"sites", "links", "from", "to", "connections"})
_LINK_KEYS: Final = frozenset({"from", "to", "cost"})
_HOW: Final = "see `grantserver link plan --help`"


class NetworkLink(NamedTuple):
    """A link between two sites; connections go both ways over it, at the same cost."""

    one: str
    other: str
    cost: int

    def __str__(self) -> str:
        return f"{self.one} - {self.other}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A network, and a service in it: its clients' site, and the sites where it is served."""

    links: tuple[NetworkLink, ...]
    client: str
    servers: tuple[str, ...]
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The cheapest way to a server: `path` begins with the client's site.

    `first_at` is the number of the connection that is the first to be sent there, when none ends;
    `connections` are those that it has of all that were asked for.
    """

    server: str
    cost: int
    path: tuple[str, ...]
    first_at: int
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What becomes of new connections when one link is lost; no `path` where nobody is reached."""

    link: NetworkLink
    cost: int | None
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkPlan:
    """The answer: routes in the order of failover, servers without one, links that count.

    When a server is lost, the next route's takes its place, whatever that costs.
    """

    routes: tuple[Route, ...]
    unreachable: tuple[str, ...]
    losses: tuple[Loss, ...]


def read_question(text: str) -> Question:
    """Read a plan's file: `links` (each `from`, `to`, `cost`), `from`, `to`, `connections`.

    A cost that is absent or 0 is 1, as for a router. Raises Invalid naming the field.
    """
    documents = read_all("file", text)
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise Invalid("file", f"it should hold one YAML mapping with links, from and to; {_HOW}")
    document: dict[Any, Any] = documents[0]
    _check_keys("file", document, _KEYS)
    entries = document.get("links")
    if not isinstance(entries, list) or not entries:
        raise Invalid("links", "expected a list of links, each with from, to and cost")
    if len(entries) > _MOST_LINKS:
        raise Invalid("links", f"expected {_MOST_LINKS} at most")
    links = tuple(_link(f"links[{place}]", entry) for place, entry in enumerate(entries))
    servers = document.get("to", [])
    if isinstance(servers, str):
        servers = [servers]
    if not isinstance(servers, list) or len(servers) > _MOST_SERVERS:
        raise Invalid("to", "expected the sites where the service runs, a list of names")
    sites = document.get("sites")
    if sites is not None:
        _check_sites(sites, links)
    return Question(
        links=links,
        client=_site("from", document["from"]) if "from" in document else "",
        servers=tuple(dict.fromkeys(_site("to", one) for one in servers)),
        connections=check_connections(document.get("connections", 0)),
    )


def check_connections(connections: object) -> int:
    """Return how many connections are to be spread. Raises Invalid("connections", …)."""
    if type(connections) is not int or not 0 <= connections <= MOST_CONNECTIONS:
        raise Invalid("connections", f"expected a whole number, 0 to {MOST_CONNECTIONS}")
    return connections


def plan(question: Question) -> LinkPlan:
    """Work it out. Raises Invalid("from" | "to", …) when a site is missing or unknown."""
    known = {end for link in question.links for end in (link.one, link.other)}
    if not question.client:
        raise Invalid("from", "say at which site the clients are")
    if not question.servers:
        raise Invalid("to", "say at which sites the service runs")
    for field, site in (("from", question.client), *(("to", one) for one in question.servers)):
        if site not in known:
            raise Invalid(field, f'no link leads to site "{site}"')
    costs = _between(question.links)
    neighbours = _neighbours(costs)
    found = _cheapest(neighbours, question.client, question.servers)
    reached = _in_order(found, question.servers)
    spread = _spread([cost for cost, _ in reached], question.connections)
    routes = []
    for place, ((cost, path), connections) in enumerate(zip(reached, spread, strict=True)):
        ahead = sum(cost - before + 1 for before, _ in reached[:place])
        routes.append(
            Route(
                server=path[-1],
                cost=cost,
                path=path,
                first_at=ahead + 1,
                connections=connections,
            )
        )
    return LinkPlan(
        routes=tuple(routes),
        unreachable=tuple(site for site in question.servers if site not in found),
        losses=tuple(_losses(question, routes, costs, neighbours)),
    )


_Ways = Mapping[str, tuple[int, tuple[str, ...]]]
"""Cost and path to each site that was asked for and is reached."""

_Costs = Mapping[frozenset[str], list[int]]
"""What the links between two sites cost, the cheapest first."""


def _between(links: Iterable[NetworkLink]) -> dict[frozenset[str], list[int]]:
    costs: dict[frozenset[str], list[int]] = {}
    for link in links:
        costs.setdefault(frozenset({link.one, link.other}), []).append(link.cost)
    for between in costs.values():
        between.sort()
    return costs


def _neighbours(costs: _Costs) -> dict[str, dict[str, int]]:
    neighbours: dict[str, dict[str, int]] = {}
    for (one, other), (cost, *_) in costs.items():
        neighbours.setdefault(one, {})[other] = cost
        neighbours.setdefault(other, {})[one] = cost
    return neighbours


def _cheapest(
    neighbours: Mapping[str, Mapping[str, int]],
    client: str,
    sites: Collection[str],
    *,
    nearest: bool = False,
) -> _Ways:
    """Find the cheapest way to each of the sites (Dijkstra), no further than the last of them.

    With `nearest` it goes no further than the first, and those that are as near. Of equal ones it
    is the shortest, then the one whose last site but one comes first by name.
    """
    missing = set(sites)
    costs: dict[str, int] = {}
    before: dict[str, str] = {}
    found = 0, 0  # cost and length of the way to the last of them
    ways: list[tuple[int, int, str, str]] = [(0, 1, "", client)]
    while ways and missing:
        cost, length, previous, site = heapq.heappop(ways)
        if nearest and costs and (cost, length) > found:
            break
        if site in before:
            continue
        before[site] = previous
        if site in missing:
            missing.remove(site)
            costs[site] = cost
            found = cost, length
        for other, further in neighbours.get(site, {}).items():
            if other not in before:
                heapq.heappush(ways, (cost + further, length + 1, site, other))
    return {site: (cost, _path(before, site)) for site, cost in costs.items()}


def _path(before: Mapping[str, str], site: str) -> tuple[str, ...]:
    path = [site]
    while previous := before[path[-1]]:
        path.append(previous)
    return tuple(reversed(path))


def _in_order(found: _Ways, servers: Sequence[str]) -> list[tuple[int, tuple[str, ...]]]:
    reached = [found[site] for site in servers if site in found]
    return sorted(reached, key=lambda way: (way[0], len(way[1]), way[1]))


def _spread(costs: Sequence[int], connections: int) -> list[int]:
    """Send each connection where cost and open ones together are least; `costs` ascend."""
    opened = [0] * len(costs)
    waiting = [(cost, place) for place, cost in enumerate(costs)]
    for _ in range(connections if waiting else 0):
        weight, place = waiting[0]
        opened[place] += 1
        heapq.heapreplace(waiting, (weight + 1, place))
    return opened


def _losses(
    question: Question,
    routes: Sequence[Route],
    costs: _Costs,
    neighbours: Mapping[str, dict[str, int]],
) -> Iterable[Loss]:
    """Take each link away that the cheapest route needs, one at a time, and put it back."""
    if not routes:
        return
    for one, other in itertools.pairwise(routes[0].path):
        lost, *others = costs[frozenset({one, other})]
        for site, end in ((one, other), (other, one)):
            if others:
                neighbours[site][end] = others[0]
            else:
                del neighbours[site][end]
        found = _cheapest(neighbours, question.client, question.servers, nearest=True)
        ways = _in_order(found, question.servers)
        cost, detour = ways[0] if ways else (None, ())
        for site, end in ((one, other), (other, one)):
            neighbours[site][end] = lost
        yield Loss(link=_link_of(question, one, other, lost), cost=cost, path=detour)


def _link_of(question: Question, one: str, other: str, cost: int) -> NetworkLink:
    ends = {one, other}
    return next(
        link for link in question.links if {link.one, link.other} == ends and link.cost == cost
    )


def _link(field: str, entry: Any) -> NetworkLink:
    if not isinstance(entry, dict):
        raise Invalid(field, "expected from, to and cost")
    _check_keys(field, entry, _LINK_KEYS)
    one, other = (_site(f"{field}.{end}", entry.get(end)) for end in ("from", "to"))
    if one == other:
        raise Invalid(field, f'it links "{one}" to itself')
    cost = entry.get("cost", 1)
    if type(cost) is not int or not 0 <= cost <= HIGHEST_COST:
        raise Invalid(f"{field}.cost", f"expected a whole number, 1 to {HIGHEST_COST}")
    return NetworkLink(one, other, max(1, cost))


def _site(field: str, name: Any) -> str:
    if not isinstance(name, str):
        raise Invalid(field, "expected the name of a site")
    check_name(field, name)
    return name


def _check_sites(sites: Any, links: Iterable[NetworkLink]) -> None:
    """Find names that were mistyped, where all of them were written down."""
    if not isinstance(sites, list):
        raise Invalid("sites", "expected a list of names")
    names = {_site("sites", name) for name in sites}
    for link in links:
        for end in (link.one, link.other):
            if end not in names:
                raise Invalid("links", f'site "{end}" is not among the sites')


def _check_keys(field: str, entry: Mapping[Any, Any], known: frozenset[str]) -> None:
    for key in entry:
        if key not in known:
            shown = str(key)[:40].encode("unicode_escape").decode("ascii")
            raise Invalid(field, f'"{shown}" is none of {", ".join(sorted(known))}')
