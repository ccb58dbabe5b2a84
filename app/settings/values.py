"""Readers of single values: what a user wrote becomes a checked value or is refused with a reason.

Which setting takes which of them is said in `app.settings.model`. Every reader raises
PydanticCustomError of the type `REFUSED` for whatever it cannot read, of any type. Its context
holds under "why" what is wrong, or "" where nothing is more precise than what the setting expects.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Interface, IPv6Network, ip_address, ip_interface
from pathlib import Path
from typing import Final, NamedTuple

from pydantic_core import PydanticCustomError

from app.domain.callers import Entry, read_entry
from app.domain.durations import SECOND, parse_duration
from app.domain.names import check_name, is_host_name, is_object_name
from app.domain.sites import HIGHEST_PORT, check_host
from app.errors import Invalid

REFUSED: Final = "refused"
EVERY_NAMESPACE: Final = "*"
_MOST_HOSTS: Final = 32  # a certificate names twice as many, among them those of the cluster
_LABEL_VALUE = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class Address(NamedTuple):
    """Where a listener listens: a host name or an IP address without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write it as HOST:PORT or [v6]:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ProxyProtocol(StrEnum):
    """Whether the connections of a listener begin with a header that tells whose they are."""

    OFF = "off"
    REQUIRED = "required"


Network = IPv4Network | IPv6Network


def _refused(why: str = "") -> PydanticCustomError:
    """Refuse a value, with a reason that is more precise than what the setting expects."""
    return PydanticCustomError(REFUSED, "{why}", {"why": why})


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise _refused()
    return value


def _host(text: str) -> str:
    try:
        check_host("host", text)
    except Invalid:
        raise _refused("expected a DNS name, an IPv4 address or an IPv6 address as host") from None
    return text.removesuffix(".").lower()


def _named_host(text: str) -> str:
    """Read a host that our certificate has to name."""
    host = _host(text)
    if not _is_address(host) and not is_host_name(host):
        raise _refused(
            "expected a host that a certificate can name: without underscores, and the last part "
            "of it not of digits alone"
        )
    return host


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def read_address(value: object) -> Address:
    """Read HOST:PORT or [IPv6]:PORT, port 0 to 65535; the host comes out in lower case."""
    found = re.fullmatch(r"(?:\[(.*:.*)\]|([^:\[\]]+)):([0-9]{1,5})", _text(value))
    if found is None or int(found[3]) > HIGHEST_PORT:
        raise _refused()
    return Address(_host(found[1] or found[2]), int(found[3]))


def read_optional_address(value: object) -> Address | None:
    """Read as `read_address` does; empty is none."""
    return read_address(value) if _text(value) else None


def read_base_url(value: object) -> str:
    """Read the base URL of tokens; what comes out has no slash at its end."""
    scheme, separator, rest = _text(value).partition("://")
    if separator and scheme.lower() != "https":
        raise _refused("expected https: clients refuse every other token")
    if "@" in rest:
        raise _refused("a user name or password has no place in a token's URL")
    if "?" in rest or "#" in rest:
        raise _refused("a query or fragment has no place in a token's URL")
    authority, _, path = rest.partition("/")
    if path:
        raise _refused("a path is not possible: grants are redeemed at /<uid>, nowhere below")
    found = re.fullmatch(r"(?:\[(.*:.*)\]|([^:\[\]]+))(?::0*([1-9][0-9]{0,4}))?", authority)
    if found is None or int(found[3] or 1) > HIGHEST_PORT:
        raise _refused()
    host = _named_host(found[1] or found[2])
    return f"https://{f'[{host}]' if ':' in host else host}" + (f":{found[3]}" if found[3] else "")


def read_optional_base_url(value: object) -> str:
    """Read the base URL of tokens; the empty text is none."""
    return read_base_url(value) if _text(value) else ""


def read_optional_collector(value: object) -> str:
    """Read the URL of a collector of traces, with the path that is meant where it has none.

    The empty text is none.
    """
    text = _text(value)
    if not text:
        return ""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in {"http", "https"}:
        raise _refused()
    if "@" in rest:
        raise _refused("a user name or password has no place there: it would be shown")
    if "?" in rest or "#" in rest or not rest.isascii() or not rest.isprintable() or " " in rest:
        raise _refused()
    authority, _, path = rest.partition("/")
    found = re.fullmatch(r"(?:\[(.*:.*)\]|([^:\[\]]+))(?::0*([1-9][0-9]{0,4}))?", authority)
    if found is None or int(found[3] or 1) > HIGHEST_PORT:
        raise _refused()
    host = _named_host(found[1] or found[2])
    port = f":{found[3]}" if found[3] else ""
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme.lower()}://{shown}{port}/{path or 'v1/traces'}"


def read_hosts(value: object) -> tuple[str, ...]:
    """Read a list of hosts, or one text with commas between them, each once and without brackets.

    The empty text is no host at all.
    """
    items = value
    if isinstance(value, str):
        items = value.split(",") if value else []
    if not isinstance(items, list | tuple):
        raise _refused()
    bare = (re.sub(r"^\[(.*:.*)\]$", r"\1", _text(item).strip()) for item in items)
    hosts = tuple(dict.fromkeys(_named_host(item) for item in bare))
    if len(hosts) > _MOST_HOSTS:
        raise _refused(
            f"expected {_MOST_HOSTS} hosts at most, which one certificate has to name, not "
            f"{len(hosts)}"
        )
    return hosts


def read_networks(value: object) -> tuple[Network, ...]:
    """Read a list of networks and addresses, or one text with commas between them, each once.

    The empty text is no network at all.
    """
    items = value
    if isinstance(value, str):
        items = value.split(",") if value else []
    if not isinstance(items, list | tuple):
        raise _refused()
    return tuple(dict.fromkeys(_network(_text(item).strip()) for item in items))


def _network(text: str) -> Network:
    try:
        found = ip_interface(text)
    except ValueError:
        raise _refused() from None
    if "%" in text:
        raise _refused()
    if isinstance(found, IPv6Interface) and found.ip.ipv4_mapped is not None:
        raise _refused(f"expected {found.ip.ipv4_mapped} without ::ffff:, and its own prefix")
    if found.ip != found.network.network_address:
        raise _refused(f"expected {found.network} for the network in which {found.ip} is")
    return found.network


def read_path(value: object) -> Path:
    """Read the path of a file or directory, which need not be there."""
    text = _text(str(value) if isinstance(value, Path) else value)
    # "?" and "%" mean something in the SQLite URL that is made from the data directory.
    if not text or "?" in text or "%" in text:
        raise _refused()
    return Path(text)


def read_optional_path(value: object) -> Path | None:
    """Read the path of a file, which need not be there; the empty text is none."""
    return None if value == "" or value is None else read_path(value)


def read_namespaces(value: object) -> tuple[str, ...]:
    """Read a list of namespaces, or one text with commas between them, each once.

    `*` stands alone, for all of them; the empty text is no namespace at all.
    """
    items = value
    if isinstance(value, str):
        items = value.split(",") if value else []
    if not isinstance(items, list | tuple):
        raise _refused()
    names = tuple(dict.fromkeys(_text(item).strip() for item in items))
    if EVERY_NAMESPACE in names:
        if len(names) > 1:
            raise _refused("expected * alone: it is all namespaces")
        return names
    for name in names:
        _check_name("namespace", name)
    return names


def read_object_name(value: object) -> str:
    """Read the name of an object of Kubernetes, NAME or NAMESPACE/NAME."""
    namespace, slash, name = _text(value).rpartition("/")
    if slash:
        _check_name("namespace", namespace)
    if not is_object_name(name):
        raise _refused()
    return f"{namespace}{slash}{name}"


def read_optional_object_name(value: object) -> str:
    """Read the name of an object of Kubernetes; the empty text is none."""
    return "" if value == "" else read_object_name(value)


def read_service_name(value: object) -> str:
    """Read NAME or NAMESPACE/NAME, where NAME may be a Service's (RFC 1035, section 2.3.1)."""
    namespace, slash, name = _text(value).rpartition("/")
    if slash:
        _check_name("namespace", namespace)
    _check_name("name", name)
    if not name[0].isalpha():
        raise _refused("name: a Service's name begins with a letter")
    return f"{namespace}{slash}{name}"


def read_optional_plain_name(value: object) -> str:
    """Read the name of an object whose namespace is known; the empty text is none."""
    text = _text(value)
    if text and not is_object_name(text):
        raise _refused()
    return text


def read_optional_host(value: object) -> str:
    """Read a host, an IPv6 address without brackets or in them; the empty text is none."""
    text = re.sub(r"^\[(.*:.*)\]$", r"\1", _text(value))
    return _named_host(text) if text else ""


def read_optional_domain(value: object) -> str:
    """Read the domain below which there are names of ours; the empty text is none."""
    text = _text(value).removeprefix(".").lower()
    if text and not is_object_name(text):
        raise _refused()
    return text


def read_optional_ip(value: object) -> str:
    """Read an IP address; the empty text is none."""
    text = _text(value)
    try:
        return str(ip_address(text)) if text else ""
    except ValueError:
        raise _refused() from None


def read_optional_class(value: object) -> str:
    """Read the name of a class, perhaps below a domain; the empty text is none."""
    text = _text(value)
    if text and not _is_key(text):
        raise _refused()
    return text


def read_labels(value: object) -> tuple[tuple[str, str], ...]:
    """Read labels as `read_annotations` does; their values have the form of names."""
    labels = read_annotations(value)
    for name, text in labels:
        if text and _LABEL_VALUE.fullmatch(text) is None:
            raise _refused(f"the value of {name} is none that a label can have")
    return labels


def read_entries(value: object) -> tuple[Entry, ...]:
    """Read a list of NAME=VERB+VERB@SITE+SITE, or one text with commas between them.

    The empty text is none; a name stands in one of them at most.
    """
    items = value
    if isinstance(value, str):
        items = value.split(",") if value else []
    if not isinstance(items, list | tuple):
        raise _refused()
    entries = tuple(_entry(_text(item).strip()) for item in items)
    if len({entry.name for entry in entries}) < len(entries):
        raise _refused("expected each common name in one entry")
    return entries


def _entry(text: str) -> Entry:
    try:
        return read_entry(text)
    except Invalid as error:
        raise _refused(str(error)) from None


def read_annotations(value: object) -> tuple[tuple[str, str], ...]:
    """Read a table, or one text of KEY=VALUE with commas between them, in the order of the keys.

    A comma in a text that no KEY= follows belongs to the value before it.
    """
    table = value
    if isinstance(value, str):
        items = re.split(r",\s*(?=[^,=\s]+=)", _text(value).strip()) if value.strip() else []
        pairs = [item.partition("=") for item in items]
        if not all(separator for _, separator, _ in pairs):
            raise _refused()
        table = {name.strip(): text.strip() for name, _, text in pairs}
        if len(table) != len(pairs):
            raise _refused("expected each key once")
    if not isinstance(table, dict):
        raise _refused()
    for name, text in table.items():
        if not isinstance(name, str) or not _is_key(name) or not isinstance(text, str):
            raise _refused()
    return tuple(sorted(table.items()))


def _is_key(text: str) -> bool:
    """Tell whether it is a name, or a name below a domain: `example.com/name`."""
    domain, slash, name = text.rpartition("/")
    return _LABEL_VALUE.fullmatch(name) is not None and (not slash or is_object_name(domain))


def _check_name(field: str, name: str) -> None:
    try:
        check_name(field, name)
    except Invalid as error:
        raise _refused(f"{field}: {error.why}") from None


def read_database_url(value: object) -> str:
    """Read sqlite:///PATH, or a URL that libpq reads; it comes out as it is.

    PATH is a file without options. Of postgresql://… no more is looked at than that it names a
    database: what it may say beside that is libpq's affair.
    """
    text = _text(value)
    scheme, separator, rest = text.partition("://")
    if separator and scheme in {"postgresql", "postgres"}:
        _, slash, name = rest.partition("?")[0].rpartition("@")[2].partition("/")
        if not slash or not name or "/" in name:
            raise _refused("expected postgresql://USER:PASSWORD@HOST:PORT/NAME?sslmode=...")
        return text
    path = text.removeprefix("sqlite:///")
    if path in {text, "", ":memory:"} or "?" in path:
        raise _refused()
    return text


def duration_reader(*, least: int = 1, step: int = 1) -> Callable[[object], float]:
    """Make a reader of Go durations that gives seconds.

    The duration is at least `least` nanoseconds long, and a multiple of `step` nanoseconds.
    """

    def read(value: object) -> float:
        try:
            nanoseconds = parse_duration(_text(value))
        except Invalid:
            raise _refused() from None
        if nanoseconds < least or nanoseconds % step:
            raise _refused()
        return nanoseconds / SECOND

    return read
