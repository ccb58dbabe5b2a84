"""What must hold of every text that we read or write: durations, YAML in, YAML out."""

import base64
import contextlib
import io
import json
import re
from collections.abc import Callable
from typing import Any, Final

import yaml
from hypothesis import strategies as st
from ruamel.yaml import YAML

from app.domain.certificates import Minted
from app.domain.documents import access_token, bundle, link_documents
from app.domain.durations import HOUR, MICROSECOND, MILLISECOND, MINUTE, SECOND, parse_duration
from app.domain.link_secrets import Server, annotations, read_renewal
from app.domain.names import check_claimed_name, check_name, common_name
from app.domain.receipts import Own, read_receipt
from app.domain.sites import (
    HIGHEST_COST,
    HIGHEST_PORT,
    MOST_ENDPOINTS,
    Endpoint,
    Role,
    check_host,
    links,
)
from app.domain.tokens import read_token
from app.domain.yaml_documents import read_all, write
from app.errors import Invalid, Refused, Unready
from fuzz.mutations import Damaged

# Durations, read once more as Go 1.22 does it in `time.ParseDuration`, step by step.

_GO_UNITS: Final = {
    "ns": 1,
    "us": MICROSECOND,
    "\u00b5s": MICROSECOND,
    "\u03bcs": MICROSECOND,
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_GO_LIMIT: Final = 1 << 63
_LONGEST_DURATION: Final = 256  # ours; Go has none
DURATION_WORDS: Final = tuple(
    word.encode()
    for word in (*_GO_UNITS, *"0123456789.+-_ ", "9223372036854775807", "9223372036854775808")
)
DURATIONS: Final = Damaged(
    originals=[
        *(b"25m", b"1h30m", b"1.5h", b"90s", b"-1.5h1.5m1.5s", b"0", b".5s", b"1us1\xc2\xb5s1ms"),
        *(b"9223372036854775807ns", b"-9223372036854775808ns", b"2562047.788015215h"),
    ],
    words=[*DURATION_WORDS, "\u0661".encode(), "\u00b5".encode(), b"d", b"e3", b"\x00", b"\xff"],
)


def go_duration(text: str) -> tuple[int, int] | None:
    """Read a duration as Go does: nanoseconds, and how many parts it had; None if it would not.

    Go computes fractions in floating point, so each part may be a nanosecond off.
    """
    negative = text[:1] == "-"
    rest = text[1:] if text[:1] in {"+", "-"} else text
    if rest == "0":
        return 0, 0
    total = parts = 0
    while rest:
        whole, fraction, unit, rest = _go_part(rest)
        if unit is None or whole > _GO_LIMIT:
            return None
        value = whole * unit + int(fraction * unit)
        total += value
        parts += 1
        if value > _GO_LIMIT or total > _GO_LIMIT:
            return None
    if not parts or (not negative and total > _GO_LIMIT - 1):
        return None
    return (-total if negative else total), parts


def _go_part(rest: str) -> tuple[int, float, int | None, str]:
    """Read number and unit; the unit is None when there is none, or no number."""
    whole, rest = _go_digits(rest)
    fraction = ""
    if rest[:1] == ".":
        fraction, rest = _go_digits(rest[1:])
    if not whole and not fraction:
        return 0, 0.0, None, ""
    end = 0
    while end < len(rest) and rest[end] not in "0123456789.":
        end += 1
    return int(whole or "0"), float(f"0.{fraction or 0}"), _GO_UNITS.get(rest[:end]), rest[end:]


def _go_digits(text: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and text[end] in "0123456789":
        end += 1
    return text[:end], text[end:]


def check_duration(content: bytes) -> None:
    """We take what Go takes, up to our length, and for the same time; nothing else but Invalid."""
    text = content.decode("utf-8", "surrogateescape")
    expected = go_duration(text)
    try:
        found = parse_duration(text)
    except Invalid as refused:
        assert "\n" not in str(refused)
        near_the_limit = expected is not None and abs(expected[0]) > _GO_LIMIT - 1000
        assert expected is None or len(text) > _LONGEST_DURATION or near_the_limit
        return
    assert expected is not None, f"Go would refuse it, we read {found}"
    nanoseconds, parts = expected
    # A float has 53 bits; of a fraction of hours that is a nanosecond or less.
    assert abs(found - nanoseconds) <= parts, (found, nanoseconds)


# YAML that we write


def read_1_1(text: str) -> list[Any]:
    """Read with PyYAML, which is of YAML 1.1."""
    return list(yaml.safe_load_all(text))


def read_1_2(text: str) -> list[Any]:
    """Read as YAML 1.2."""
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    return list(reader.load_all(io.StringIO(text)))


def same_in_both(text: str) -> list[Any]:
    """Read with both; they must find the same, down to the kinds (1 and True are equal)."""
    old, new = read_1_1(text), read_1_2(text)
    assert repr(old) == repr(new), (old, new)
    return old


# What one version or another takes for something that is no text.
TRAPS: Final = (
    "123", "0123", "0o17", "0x1f", "0b1", "1e3", "1.5", "null", "n", "y", "no", "yes", "on", "off",
    "true", "false", "1.2.3.4", "2026-11-22", "190.20", "::1", "1:20", "fe80::1%1", "1_000", "_",
    "0", "-", "~", "=", "<<", ".inf", ".nan", "e3", "0.e3", "1e", "NULL", "No", "a.", "0x", "x-1",
)  # fmt: skip
_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,20}[a-z0-9])?(?:\.[a-z0-9]{1,20}){0,2}")
_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,20}[a-z0-9])?")
_HOST: Final = re.compile(r"[A-Za-z0-9_.:%-]{1,40}")


def _accepts(check: Callable[..., object], *arguments: object) -> bool:
    try:
        check(*arguments)
    except (Invalid, Refused):
        return False
    return True


def _accepted(
    texts: st.SearchStrategy[str], check: Callable[[str], object]
) -> st.SearchStrategy[str]:
    """Draw what passes our own check, the traps among it."""
    traps = [trap for trap in TRAPS if _accepts(check, trap)]
    return st.sampled_from(traps) | texts.filter(lambda text: _accepts(check, text))


NAMES: Final = _accepted(st.from_regex(_NAME, fullmatch=True), check_claimed_name)
LABELS: Final = _accepted(
    st.from_regex(_LABEL, fullmatch=True), lambda text: check_name("group", text)
)
HOSTS: Final = _accepted(
    st.from_regex(_HOST, fullmatch=True)
    | st.ip_addresses().map(str)
    | st.ip_addresses(v=6).map(lambda address: f"{address}%eth0"),
    lambda text: check_host("host", text),
)
SUBJECTS: Final = _accepted(st.text(max_size=40), common_name)
CODES: Final = st.sampled_from(TRAPS).map(lambda trap: trap * 24) | st.text(
    st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=256
)
COSTS: Final = st.integers(1, HIGHEST_COST)
ENDPOINTS: Final = st.lists(
    st.tuples(st.sampled_from(list(Role)), HOSTS, st.integers(1, HIGHEST_PORT), LABELS),
    min_size=1,
    max_size=5,
)
ANSWERS: Final = st.tuples(NAMES, ENDPOINTS, COSTS)
PEM: Final = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
MINTED: Final = Minted(
    certificate_pem=PEM.encode(),
    key_pem=b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ca_pem=PEM.encode() * 2,
    serial="0a",
    fingerprint="0b",
    not_before=0,
    not_after=1,
)

_Endpoint = tuple[Role, str, int, str]


def check_answer(value: tuple[str, list[_Endpoint], int]) -> None:
    """Both versions of YAML read an answer alike, as what went into it; so do we ourselves."""
    name, endpoints, cost = value
    made = [
        Endpoint(role=role, host=host, port=port, group=group)
        for role, host, port, group in endpoints
    ]
    try:
        grouped = links(name, sorted(made, key=lambda one: one.group), cost)
    except (Refused, Unready):
        return
    body = bundle(name, MINTED, link_documents(grouped, credentials=name))
    secret, *others = same_in_both(body.decode("ascii"))
    assert secret["metadata"] == {"name": name}
    encoded = {"ca.crt": MINTED.ca_pem, "tls.crt": PEM.encode(), "tls.key": MINTED.key_pem}
    assert secret["data"] == {
        entry: base64.b64encode(pem).decode("ascii") for entry, pem in encoded.items()
    }
    assert [one["metadata"]["name"] for one in others] == [link.name for link in grouped]
    for document, link in zip(others, grouped, strict=True):
        assert document["spec"]["cost"] == cost
        assert document["spec"]["tlsCredentials"] == name
        assert document["spec"]["endpoints"] == [
            {"name": str(one.role), "host": one.host, "port": str(one.port), "group": one.group}
            for one in link.endpoints
        ]
    receipt = read_receipt(body, name=name, cost=0)
    written = [same_in_both(resource.text) for resource in receipt.resources]
    assert written == [[secret], *([document] for document in others)]


TOKENS: Final = st.tuples(NAMES, HOSTS, CODES, COSTS)


def check_token(value: tuple[str, str, str, int]) -> None:
    """Both versions of YAML read a token alike, as what went into it; so do we ourselves."""
    name, host, code, cost = value
    url = f"https://{host}:9090/2b3f3a1c-6f0e-4c5e-9f57-0d4c1b7a9e10"
    text = access_token(name=name, url=url, code=code, ca_pem=PEM, cost=cost, remarks=("one", "2"))
    (document,) = same_in_both(text)
    assert document["metadata"] == {"name": name}
    assert document["spec"] == {"url": url, "code": code, "linkCost": cost, "ca": PEM}
    token = read_token(text.encode())
    assert (token.name, token.url, token.code, token.ca_pem, token.cost) == (
        *(name, url, code, PEM),
        cost,
    )


SHOWN: Final = st.tuples(NAMES, SUBJECTS, HOSTS, st.text(max_size=40))


def check_shown(value: tuple[str, str, str, str]) -> None:
    """What commands print as YAML is read alike by both, whatever is in it."""
    name, subject, host, anything = value
    document = {"name": name, "subject": subject, "hosts": [host], anything: {"x": anything}}
    assert same_in_both(write(document)) == [document]


# YAML that strangers write

YAML_WORDS: Final = (
    *(b"!!bool ", b"!!int ", b"!!float ", b"!!null ", b"!!binary ", b"!!timestamp ", b"!!set "),
    *(b"!!omap ", b"!!pairs ", b"!!map ", b"!!seq ", b"!!str ", b"!!merge ", b"!!value ", b"!x "),
    *(b'""', b"&a ", b"*a", b"<<: ", b"? ", b": ", b"- ", b"---\n", b"...\n", b"|\n", b">\n"),
    *(b"%YAML 1.2\n---\n", b"%TAG ! tag:yaml.org,2002:\n---\n", b"# ", b"[", b"]", b"{", b"}"),
    *(b"\\ud800", b"\\x00", b"\\U0010FFFF", b"\\U00110000", b"\xef\xbb\xbf", b"\xff", b"\x00"),
    *(b"1:1", b"1:59.0", b":1" * 60, b"0x", b"f" * 70, b"9" * 5000, b".nan", b".inf", b"1e999"),
    *(b"2026-11-22", b"null", b"~", b"=", b"true", b"\t", b"\r", b"\r\n", b"\n", b"'", b'"'),
    *("\u2028".encode(), "\x85".encode(), "\ufeff".encode(), "\U0001f600".encode(), b"[" * 400),
)
_LINKS: Final = links(
    "lab",
    [
        Endpoint(role=role, host="west.example", port=55671, group=group)
        for group in ("a", "b")
        for role in Role
    ],
    3,
)
_PLAIN_LINK: Final = (
    b"apiVersion: skupper.io/v2alpha1\nkind: Link\nmetadata:\n  name: lab\n  labels: {a: 1}\n"
    b"spec:\n  cost: 1\n  tlsCredentials: lab\n  since: 1:30\n  endpoints:\n"
    b"  - {name: edge, host: 10.0.0.1, port: 45671}\n"
)
ANSWER: Final = bundle("lab", MINTED, link_documents(_LINKS, credentials="lab"))
PLAIN_ANSWER: Final = bundle("lab", MINTED, b"") + b"---\n" + _PLAIN_LINK
TOKEN: Final = access_token(
    name="lab",
    url="https://west.example:9090/2b3f3a1c-6f0e-4c5e-9f57-0d4c1b7a9e10",
    code="Aa0Bb1Cc2Dd3Ee4Ff5Gg6Hh7",
    ca_pem=PEM,
    cost=2,
    remarks=["good for 15m"],
).encode()
FOREIGN_YAML: Final = Damaged(
    originals=[ANSWER, PLAIN_ANSWER, _PLAIN_LINK, TOKEN], words=YAML_WORDS, most=5
)


def check_foreign_yaml(content: bytes) -> None:
    """Whoever reads it gives a whole thing or Invalid; what is given can be written and sent on."""
    with contextlib.suppress(Invalid):
        token = read_token(content)
        shown = (token.name, token.url, token.code, token.ca_pem)
        assert all(isinstance(one, str) for one in shown)
        assert all(one.encode() for one in shown[1:])
    with contextlib.suppress(Invalid):
        receipt = read_receipt(content, name="lab", cost=1)
        for resource in receipt.resources:
            assert read_all("again", resource.text)
            port = re.search(r'port: "?0*(\d+)', resource.text)
            assert port is None or 1 <= int(port[1]) <= HIGHEST_PORT
    with contextlib.suppress(Invalid, UnicodeDecodeError):
        text = content.decode()
        for document in read_all("any", text):
            write(document)
        read_all("any", text, as_text=True)


# What a far server answers to a connecting site, which writes down what it took.

_OWN: Final = Own(
    key_pem=MINTED.key_pem, server=Server(url="https://west.example:9090", ca_pem=PEM)
)
_RENEWAL: Final = json.dumps(
    {
        "certificate": PEM,
        "ca": PEM,
        "notAfter": "2026-11-22T00:00:00Z",
        "supersededAt": "2026-11-22T00:00:00+01:00",
        "server": {"url": "https://west.example:9090", "ca": PEM},
    }
).encode()
_KEPT: Final = re.compile(rb"\n  tls.key: [^\n]*")
FAR_WORDS: Final = (
    *YAML_WORDS,
    *(b"[" * 90, b"- " * 90, b"{a: " * 90, b"---\n" * 300, b"finalizers", b"ownerReferences"),
    *(b"labels", b"annotations", b"immutable", b"stringData", b"tls.key", b"null", b"https://"),
)
FAR_ANSWERS: Final = Damaged(
    originals=[ANSWER, PLAIN_ANSWER, _KEPT.sub(b"", ANSWER), _RENEWAL], words=FAR_WORDS, most=5
)


def check_far_answer(content: bytes) -> None:
    """Whatever it is, it is Invalid, or it is stored with nothing in it that was not asked for."""
    for own in (None, _OWN):
        with contextlib.suppress(Invalid):
            receipt = read_receipt(content, name="lab", cost=0, own=own)
            secret, *made = (read_all("again", one.text)[0] for one in receipt.resources)
            assert secret.keys() == {"apiVersion", "kind", "metadata", "type", "data"}
            assert secret["data"].keys() == {"ca.crt", "tls.crt", "tls.key"}
            noted = secret["metadata"].pop("annotations", {})
            assert noted == (annotations(_OWN.server) if receipt.own_key else {})
            assert secret["metadata"] == {"name": "lab"}
            assert 1 <= len(made) <= MOST_ENDPOINTS
            for link in made:
                assert link.keys() == {"apiVersion", "kind", "metadata", "spec"}
                assert link["metadata"].keys() == {"name"}
                assert link["metadata"]["name"].startswith("lab")
                assert 1 <= len(link["spec"]["endpoints"]) <= MOST_ENDPOINTS
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError):
        return
    with contextlib.suppress(Invalid):
        renewed = read_renewal(asked, key_pem=MINTED.key_pem)
        assert renewed.server.url.strip().lower().startswith("https://")  # sent to nowhere else
        assert renewed.key_pem == MINTED.key_pem
