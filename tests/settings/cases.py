"""Every setting with its default and another value, for what must hold of each of them."""

import operator
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from app.domain.callers import Entry, read_rights
from app.domain.certificates import KeyType
from app.domain.exposure import TrafficPolicy, Way
from app.errors import Misconfigured
from app.logs import Format, Level
from app.settings import Address, ProxyProtocol, Settings, load


class Case(NamedTuple):
    """One setting: its name, where it is read, its default, another value in both forms.

    The group of one that belongs to none is "".
    """

    group: str
    name: str
    attribute: str
    default: object
    text: str
    toml: str
    value: object

    @property
    def variable(self) -> str:
        return "_".join(filter(None, ("GRANTSERVER", self.group, self.name))).upper()

    @property
    def flag(self) -> str:
        return f"{self.group}.{self.name}".removeprefix(".")

    @property
    def table(self) -> str:
        return f"[{self.group}]" if self.group else ""

    def read(self, found: Settings) -> object:
        return operator.attrgetter(f"{self.group}.{self.attribute}".removeprefix("."))(found)


DATA = Path("grantserver-data")
LEDGER = "sqlite:///grantserver-data/grantserver.db"
WEST = "https://West.Example:8443/"
NETWORKS = (ip_network("10.1.0.0/16"), ip_network("fd00::7/128"))
PAIRS = (("app", "gs"), ("tier", "front"))
NOTES = (("c", "d=e"), ("example.com/nets", "a,b"))
ENTRIES = (
    Entry("portal@shop", read_rights(["read", "create"], ["west"])),
    Entry("Ops Team", read_rights(["*"], ["*"])),
)
ENTRIES_TOML = '["portal@shop=read+create@west", "Ops Team=*@*"]'
HOSTS = ("a.example", "10.0.0.1", "fd00::1")
ROWS: Final[tuple[tuple[Any, ...], ...]] = (
    ("", "workers", "workers", 1, "4", "4", 4),
    ("data", "dir", "dir", DATA, "/srv/gs", '"/srv/gs"', Path("/srv/gs")),
    ("database", "url", "url", LEDGER, "sqlite:////x.db", '"sqlite:////x.db"', "sqlite:////x.db"),
    ("database", "connections", "connections", 5, "9", "9", 9),
    (
        *("listen", "redemption", "redemption", Address("0.0.0.0", 9090)),
        *("[::]:443", '"[::]:443"', Address("::", 443)),
    ),
    (
        *("listen", "ops", "ops", Address("0.0.0.0", 9091)),
        *("localhost:0", '"localhost:0"', Address("localhost", 0)),
    ),
    (
        *("listen", "admin", "admin", None),
        *("127.0.0.1:9443", '"127.0.0.1:9443"', Address("127.0.0.1", 9443)),
    ),
    (
        *("listen", "proxy_protocol", "proxy_protocol", ProxyProtocol.OFF),
        *("required", '"required"', ProxyProtocol.REQUIRED),
    ),
    (
        *("listen", "proxy_sources", "proxy_sources", ()),
        *("10.1.0.0/16, fd00::7", '["10.1.0.0/16", "fd00::7"]', NETWORKS),
    ),
    (
        *("reach", "url", "url", ""),
        *(WEST, f'"{WEST}"', "https://west.example:8443"),
    ),
    (
        *("reach", "hosts", "hosts", ()),
        *("a.example, 10.0.0.1,[fd00::1]", '["a.example", "10.0.0.1", "fd00::1"]', HOSTS),
    ),
    ("tls", "certificate_file", "certificate_file", None, "/run/c", '"/run/c"', Path("/run/c")),
    ("tls", "key_file", "key_file", None, "/run/k", '"/run/k"', Path("/run/k")),
    ("tls", "ca_file", "ca_file", None, "/run/a", '"/run/a"', Path("/run/a")),
    ("tls", "secret", "secret", "", "ops/gs", '"ops/gs"', "ops/gs"),
    ("tls", "issued_secret", "issued_secret", "grantserver-tls", "", '""', ""),
    ("admin", "client_ca_file", "client_ca_file", None, "/ca.pem", '"/ca.pem"', Path("/ca.pem")),
    (
        *("admin", "certificates", "certificates", ()),
        *("portal@shop=read+create@west, Ops Team=*@*", ENTRIES_TOML, ENTRIES),
    ),
    ("admin", "accounts", "accounts", False, "true", "true", True),
    ("grants", "redemption_by_key", "redemption_by_key", False, "true", "true", True),
    ("grants", "retry_window", "retry_window_seconds", 600, "1h", '"1h"', 3600),
    ("grants", "revoke_on_theft", "revoke_on_theft", False, "true", "true", True),
    ("ceilings", "window", "window_seconds", 0, "24h", '"24h"', 86_400),
    ("ceilings", "redemptions", "redemptions", 0, "10", "10", 10),
    ("certificates", "lifetime", "lifetime_seconds", 31_536_000, "1h30m", '"1h30m"', 5400),
    (
        *("certificates", "key_type", "key_type", KeyType.P256),
        *("rsa-2048", '"rsa-2048"', KeyType.RSA_2048),
    ),
    ("certificates", "rotation_wait", "rotation_wait_seconds", 86_400, "0s", '"0s"', 0),
    ("certificates", "overlap", "overlap_seconds", 3600, "0s", '"0s"', 0),
    (
        "sealing",
        "key_file",
        "key_file",
        DATA / "sealing.keys",
        "/run/x",
        '"/run/x"',
        Path("/run/x"),
    ),
    ("logs", "format", "format", Format.TEXT, "json", '"json"', Format.JSON),
    ("logs", "level", "level", Level.INFO, "debug", '"debug"', Level.DEBUG),
    (
        *("traces", "endpoint", "endpoint", ""),
        *("HTTP://Otel.Example:4318", '"http://otel.example:4318/"'),
        "http://otel.example:4318/v1/traces",
    ),
    ("limits", "connections", "connections", 1000, "16", "16", 16),
    ("limits", "handshake", "handshake_seconds", 5.0, "250ms", '"250ms"', 0.25),
    ("limits", "request", "request_seconds", 10.0, "1m", '"1m"', 60.0),
    ("limits", "peer_failures", "peer_failures", 20, "0", "0", 0),
    ("limits", "peer_recovery", "peer_recovery_seconds", 3.0, "250ms", '"250ms"', 0.25),
    ("limits", "grant_failures", "grant_failures", 100, "7", "7", 7),
    ("limits", "grant_recovery", "grant_recovery_seconds", 60.0, "1h", '"1h"', 3600.0),
    ("ledger", "spacing", "spacing_seconds", 0.01, "0s", '"0s"', 0.0),
    ("housekeeping", "interval", "interval_seconds", 60.0, "1500ms", '"1500ms"', 1.5),
    ("housekeeping", "grants_kept", "grants_kept_seconds", 7_776_000, "0s", '"0s"', 0),
    ("housekeeping", "audit_kept", "audit_kept_seconds", 31_536_000, "24h", '"24h"', 86_400),
    ("events", "expiring", "expiring_seconds", 604_800, "0s", '"0s"', 0),
    (
        *("kubernetes", "namespaces", "namespaces", ()),
        *("west, east", '["west", "east"]', ("west", "east")),
    ),
    (
        *("kubernetes", "token_namespaces", "token_namespaces", ()),
        *("east, north", '["east", "north"]', ("east", "north")),
    ),
    ("kubernetes", "kubeconfig", "kubeconfig", None, "/run/k", '"/run/k"', Path("/run/k")),
    (
        *("kubernetes", "api", "api", Address("kubernetes.default.svc", 443)),
        *("[fd00::1]:6443", '"[fd00::1]:6443"', Address("fd00::1", 6443)),
    ),
    ("kubernetes", "lease", "lease", "grantserver", "ops/gs", '"ops/gs"', "ops/gs"),
    ("exposure", "type", "way", Way.AUTO, "nodeport", '"nodeport"', Way.NODE_PORT),
    ("exposure", "name", "objects", "grantserver-public", "ops/gs", '"ops/gs"', "ops/gs"),
    ("exposure", "deployment", "deployment", "grantserver", "", '""', ""),
    (
        *("exposure", "selector", "selector", (("app.kubernetes.io/name", "grantserver"),)),
        *("app=gs, tier=front", '{ app = "gs", tier = "front" }', PAIRS),
    ),
    (
        *("exposure", "annotations", "annotations", ()),
        *("example.com/nets=a,b, c=d=e", '{ "example.com/nets" = "a,b", c = "d=e" }', NOTES),
    ),
    (
        *("exposure", "labels", "labels", ()),
        *("app=gs, tier=front", '{ app = "gs", tier = "front" }', PAIRS),
    ),
    ("exposure", "class", "class_name", "", "a.b/c", '"a.b/c"', "a.b/c"),
    ("exposure", "load_balancer_ip", "load_balancer_ip", "", "FD00::1", '"FD00::1"', "fd00::1"),
    ("exposure", "host", "host", "", "West.Example", '"West.Example"', "west.example"),
    ("exposure", "domain", "domain", "", ".Apps.example", '".Apps.example"', "apps.example"),
    ("exposure", "port", "port", 0, "8443", "8443", 8443),
    ("exposure", "gateway", "gateway", "", "infra/shared", '"infra/shared"', "infra/shared"),
    (
        *("exposure", "traffic_policy", "traffic_policy", TrafficPolicy.LOCAL),
        *("Cluster", '"Cluster"', TrafficPolicy.CLUSTER),
    ),
)
CASES: Final = tuple(Case(*row) for row in ROWS)
each_setting = pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.variable))


def problems_of(environ: dict[str, str], **more: Any) -> tuple[str, ...]:
    with pytest.raises(Misconfigured) as caught:
        load(environ, **more)
    return caught.value.problems
