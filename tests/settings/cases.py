"""Every setting with its default and another value, for what must hold of each of them."""

import operator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from app.domain.certificates import KeyType
from app.errors import Misconfigured
from app.logs import Format, Level
from app.settings import Address, Settings, load


class Case(NamedTuple):
    """One setting: its name, where it is read, its default, another value in both forms."""

    group: str
    name: str
    attribute: str
    default: object
    text: str
    toml: str
    value: object

    @property
    def variable(self) -> str:
        return f"GRANTSERVER_{self.group}_{self.name}".upper()

    def read(self, found: Settings) -> object:
        return operator.attrgetter(f"{self.group}.{self.attribute}")(found)


DATA = Path("grantserver-data")
LEDGER = "sqlite:///grantserver-data/grantserver.db"
WEST = "https://West.Example:8443/"
HOSTS = ("a.example", "10.0.0.1", "fd00::1")
ROWS: Final[tuple[tuple[Any, ...], ...]] = (
    ("data", "dir", "dir", DATA, "/srv/gs", '"/srv/gs"', Path("/srv/gs")),
    ("database", "url", "url", LEDGER, "sqlite:////x.db", '"sqlite:////x.db"', "sqlite:////x.db"),
    (
        *("listen", "redemption", "redemption", Address("0.0.0.0", 9090)),
        *("[::]:443", '"[::]:443"', Address("::", 443)),
    ),
    (
        *("listen", "ops", "ops", Address("0.0.0.0", 9091)),
        *("localhost:0", '"localhost:0"', Address("localhost", 0)),
    ),
    (
        *("reach", "url", "url", "https://localhost:9090"),
        *(WEST, f'"{WEST}"', "https://west.example:8443"),
    ),
    (
        *("reach", "hosts", "hosts", ()),
        *("a.example, 10.0.0.1,[fd00::1]", '["a.example", "10.0.0.1", "fd00::1"]', HOSTS),
    ),
    ("grants", "redemption_by_key", "redemption_by_key", False, "true", "true", True),
    ("grants", "retry_window", "retry_window_seconds", 600, "1h", '"1h"', 3600),
    ("certificates", "lifetime", "lifetime_seconds", 31_536_000, "1h30m", '"1h30m"', 5400),
    (
        *("certificates", "key_type", "key_type", KeyType.P256),
        *("rsa-2048", '"rsa-2048"', KeyType.RSA_2048),
    ),
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
    ("limits", "connections", "connections", 1000, "16", "16", 16),
    ("limits", "handshake", "handshake_seconds", 5.0, "250ms", '"250ms"', 0.25),
    ("limits", "request", "request_seconds", 10.0, "1m", '"1m"', 60.0),
    ("ledger", "spacing", "spacing_seconds", 0.01, "0s", '"0s"', 0.0),
)
CASES: Final = tuple(Case(*row) for row in ROWS)
each_setting = pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.variable))


def problems_of(environ: dict[str, str], **more: Any) -> tuple[str, ...]:
    with pytest.raises(Misconfigured) as caught:
        load(environ, **more)
    return caught.value.problems
