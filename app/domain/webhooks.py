"""Webhooks: who is told of which events, how a message is signed, and when it is tried again.

The form of a message is that of Standard Webhooks (https://www.standardwebhooks.com), for which
receivers have libraries in most languages.
"""

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import SplitResult, urlsplit

from app.domain.events import Event, EventType
from app.domain.names import check_name
from app.errors import Invalid

MOST_WEBHOOKS: Final = 50
MOST_SITES: Final = 64
MOST_ATTEMPTS: Final = 20
"""After so many a delivery is dead: somebody has to look."""
SECRET_BYTES: Final = 32

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the form of one, and none itself
_FIRST_SECONDS: Final = 10
_LONGEST_SECONDS: Final = 3600
_SPREAD: Final = 0.25  # so that what failed together does not come again together
_LONGEST_URL: Final = 2048
_LONGEST_CA: Final = 64 * 1024


class Failure(StrEnum):
    """Why an attempt to deliver failed. Stored: values are never changed."""

    STATUS = "status"  # an answer that is no success
    TIMEOUT = "timeout"
    ADDRESS = "address"  # the name of the host is not known
    CONNECTION = "connection"
    CERTIFICATE = "certificate"  # one that is not trusted
    TLS = "tls"
    PROTOCOL = "protocol"  # no HTTP
    SECRET = "secret"  # noqa: S105 - that of the webhook cannot be opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Who is told: a URL, the events and sites it is told of, and how far it was told.

    `sites` is None for every site; `ca_pem` None where the system's CAs are trusted. `position` is
    the place in the chain of the audit log up to which events were handed out for it. A URL may
    hold a secret of the receiver, so no log shows it.
    """

    id: str
    name: str
    url: str = field(repr=False)
    events: frozenset[EventType]
    sites: frozenset[str] | None
    sealed_secret: bytes = field(repr=False)
    ca_pem: str | None = field(repr=False)
    enabled: bool
    created_at: int
    position: int

    def wants(self, event: Event) -> bool:
        """Tell whether it is to be told of an event."""
        return event.type in self.events and (self.sites is None or event.site in self.sites)

    @property
    def origin(self) -> str:
        """Scheme, host and port of the URL: what may be shown of it."""
        split = urlsplit(self.url)
        return f"{split.scheme}://{split.netloc}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An event on its way to a webhook, or given up at `dead_at` (UTC seconds).

    `attempts` counts those that were begun; the next one is due at `next_at`. `status` and
    `failure` are of the last that failed.
    """

    webhook_id: str
    position: int
    event_id: str
    body: str
    attempts: int
    next_at: int
    status: int | None = None
    failure: Failure | None = None
    dead_at: int | None = None


def check_url(url: str) -> None:
    """Raise Invalid("url", …) unless events may be sent there.

    HTTPS only: a message without it could be read and held back on its way. To this machine
    itself it may be HTTP.
    """
    split = _split(url)
    if split.scheme not in {"https", "http"}:
        raise Invalid("url", "it has to begin with https://")
    if split.scheme == "http" and not _is_loopback(split.hostname or ""):
        raise Invalid("url", "http is only for this machine (localhost): use https")
    if split.username is not None or split.password is not None:
        raise Invalid("url", "it must not carry a user name or password")
    if split.fragment or url.endswith("#"):
        raise Invalid("url", "it must not carry a fragment (#…)")


def check_ca(ca_pem: str) -> None:
    """Raise Invalid("ca", …) for what is too long; whether it is one, TLS knows."""
    if len(ca_pem) > _LONGEST_CA:
        raise Invalid("ca", f"it is longer than {_LONGEST_CA} bytes")


def read_events(names: Iterable[str]) -> frozenset[EventType]:
    """Read names of events. Raises Invalid("events", …) for one that is unknown, and for none."""
    given = frozenset(names)
    known = {one.value: one for one in EventType}
    unknown = sorted(given - known.keys())
    if unknown or not given:
        what = f'there is no "{unknown[0][:40]}"' if unknown else "give at least one"
        raise Invalid("events", f"{what}: choose from {', '.join(known)}")
    return frozenset(known[name] for name in given)


def read_sites(names: Iterable[str]) -> frozenset[str] | None:
    """Read names of sites; none at all stand for every site. Raises Invalid("sites", …)."""
    given = frozenset(names)
    if len(given) > MOST_SITES:
        raise Invalid("sites", f"{MOST_SITES} are the most; leave them out for every site")
    for name in given:
        check_name("sites", name)
    return given or None


def write_secret(secret: bytes) -> str:
    """Write a secret in the form that receivers are given."""
    return _SECRET_PREFIX + base64.b64encode(secret).decode()


def headers(secret: bytes, *, event_id: str, body: bytes, now: int) -> Mapping[str, str]:
    """Sign a message: the headers that go with `body`, at `now` (UTC seconds).

    The signature is of id, time and body together: none of them can be exchanged.
    """
    signed = f"{event_id}.{now}.".encode() + body
    signature = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,{signature}",
    }


def wait_seconds(attempts: int, random: bytes) -> int:
    """How long to wait after `attempts` that failed, 1 or more: doubled each time, up to an hour.

    `random` are two bytes, which shorten it by up to a quarter.
    """
    whole = min(_FIRST_SECONDS << min(attempts - 1, 16), _LONGEST_SECONDS)
    share = int.from_bytes(random[:2]) / 0x10000
    return max(1, round(whole * (1 - _SPREAD * share)))


def _split(url: str) -> SplitResult:
    bad = Invalid("url", f"it is not a URL of at most {_LONGEST_URL} letters, https://HOST/PATH")
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise bad
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError:
        raise bad from None
    if split.scheme in {"https", "http"} and (not split.hostname or port == 0):
        raise bad
    return split


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
