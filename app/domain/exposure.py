"""How a server inside a cluster is reached from outside: the ways in by name, and addresses.

What each way takes of a cluster, and where the address of it is told, is the cluster's affair.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from app.domain.names import is_host_name
from app.domain.sites import HIGHEST_PORT, check_host
from app.errors import Invalid


class Way(StrEnum):
    """A way in; AUTO stands for the one that the cluster offers."""

    AUTO = "auto"
    ROUTE = "route"
    LOAD_BALANCER = "loadbalancer"
    NODE_PORT = "nodeport"
    INGRESS = "ingress"
    GATEWAY = "gateway"
    CLUSTER_IP = "clusterip"
    URL = "url"


class TrafficPolicy(StrEnum):
    """Where a node sends what comes to a Service from outside.

    LOCAL keeps the address of the client, and works on nodes that have a pod; CLUSTER does neither.
    """

    LOCAL = "Local"
    CLUSTER = "Cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A host name or an IP address without brackets, and a port."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL of grants there, an IPv6 address in brackets."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{shown}:{self.port}"


def read_host(text: object) -> str | None:
    """Read a host that somebody else wrote, in the one form that we use; None if it is none.

    An address that leads nowhere from elsewhere is none: 0.0.0.0, ::, and link-local ones.
    """
    if not isinstance(text, str) or not text.isascii() or "%" in text:
        return None  # a zone means something on one machine only
    try:
        check_host("host", text)
    except Invalid:
        return None
    host = text.removesuffix(".").lower()
    try:
        ip = ip_address(host)
    except ValueError:
        return host if is_host_name(host) else None
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return None if ip.is_unspecified or ip.is_link_local else ip.compressed


def read_port(found: object) -> int | None:
    """Read a port that somebody else wrote; None if it is none."""
    if not isinstance(found, int) or isinstance(found, bool):
        return None
    return found if 1 <= found <= HIGHEST_PORT else None


def in_order(hosts: Iterable[str]) -> tuple[str, ...]:
    """Order hosts, each once: names, IPv4, IPv6; the same for any order that they came in.

    Names come first because what is behind one may change without anybody's doing.
    """
    return tuple(sorted(set(hosts), key=lambda host: (_rank(host), host)))


def stable_choice(addresses: Iterable[Address], before: str) -> Address | None:
    """Choose the address that tokens carry: the one whose URL is `before`, else the first.

    So an address that comes to others does not change what tokens say. None when there is none.
    """
    known = tuple(addresses)
    return next((one for one in known if one.url == before), next(iter(known), None))


def _rank(host: str) -> int:
    try:
        return ip_address(host).version
    except ValueError:
        return 0
