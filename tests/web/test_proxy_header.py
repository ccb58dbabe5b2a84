import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Invalid
from app.web.proxy_header import MOST_BYTES, SIGNATURE, Header, parse, plain

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def binary(
    rest: bytes, *, version: int = 2, command: int = 1, kind: int = 0x11, length: int | None = None
) -> bytes:
    """Make a header of version 2; `kind` is family and transport, `rest` what follows."""
    length = len(rest) if length is None else length
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, kind, length) + rest


def four(source: str, port: int, more: bytes = b"") -> bytes:
    return binary(
        IPv4Address(source).packed
        + IPv4Address("10.0.0.9").packed
        + struct.pack("!HH", port, 9090)
        + more
    )


def six(source: str, port: int, more: bytes = b"") -> bytes:
    return binary(
        IPv6Address(source).packed
        + IPv6Address("fd00::9").packed
        + struct.pack("!HH", port, 9090)
        + more,
        kind=0x21,
    )


EXAMPLES: list[tuple[bytes, tuple[str, int] | None]] = [
    (b"PROXY TCP4 192.0.2.7 10.0.0.9 56324 9090\r\n", ("192.0.2.7", 56324)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ("255.255.255.255", 65535)),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ("0.0.0.0", 0)),
    (b"PROXY TCP6 2001:DB8:0:0::7 fd00::9 1 9090\r\n", ("2001:db8::7", 1)),
    (b"PROXY TCP6 :: :: 1 2\r\n", ("::", 1)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.9 1 2\r\n", ("192.0.2.7", 1)),
    (b"PROXY TCP6 ::FFFF:C000:0207 ::ffff:a00:9 1 2\r\n", ("192.0.2.7", 1)),
    (
        b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n",
        (":".join(["ffff"] * 8), 65535),
    ),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN \r\n", None),
    (b"PROXY UNKNOWN 192.0.2.7 10.0.0.9 1 2\r\n", None),
    (b"PROXY UNKNOWN \xff\0\r \n\x1b\r\n", None),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
    (four("192.0.2.7", 56324), ("192.0.2.7", 56324)),
    (four("255.255.255.255", 65535), ("255.255.255.255", 65535)),
    (four("192.0.2.7", 1, b"\x04\x00\x02ab\xea\x00\x01x"), ("192.0.2.7", 1)),
    (four("192.0.2.7", 1, b"no TLV"), ("192.0.2.7", 1)),
    (four("192.0.2.7", 1, bytes(MOST_BYTES - 28)), ("192.0.2.7", 1)),
    (six("2001:db8::7", 56324), ("2001:db8::7", 56324)),
    (six("::ffff:192.0.2.7", 1, b"\x04\x00\x00"), ("192.0.2.7", 1)),
    # What is the load balancer's own: a check of health, for instance.
    (binary(b"", command=0, kind=0x00), None),
    (binary(b"\x04\x00\x00", command=0, kind=0x00), None),
    (binary(bytes(12), command=0, kind=0x11), None),
    (binary(b"short", command=0, kind=0x11), None),
    (binary(b"x", command=0, kind=0xFF), None),
    # What has no address that we could use: unspecified, UDP, UNIX.
    *((binary(bytes(216), kind=kind), None) for kind in (0x00, 0x01, 0x10, 0x20, 0x12, 0x22)),
    *((binary(bytes(216), kind=kind), None) for kind in (0x30, 0x31, 0x32)),
    (binary(b"", kind=0x00), None),
]


@pytest.mark.parametrize(("header", "source"), EXAMPLES)
def test_a_header_tells_who_connects_and_where_it_ends(
    header: bytes, source: tuple[str, int] | None
) -> None:
    assert parse(header) == Header(len(header), source)
    assert parse(header + HELLO) == Header(len(header), source)
    assert parse(header + header) == Header(len(header), source)


@pytest.mark.parametrize(("header", "source"), EXAMPLES)
def test_no_part_of_a_header_is_taken_for_the_whole(
    header: bytes, source: tuple[str, int] | None
) -> None:
    del source
    assert all(parse(header[:size]) is None for size in range(len(header)))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (HELLO, "something else"),
        (b"GET / HTTP/1.1\r\n", "something else"),
        (b"proxy TCP4 192.0.2.7 10.0.0.9 1 2\r\n", "something else"),
        (b" PROXY TCP4 192.0.2.7 10.0.0.9 1 2\r\n", "something else"),
        (b"PROXY\tTCP4 192.0.2.7 10.0.0.9 1 2\r\n", "something else"),
        (b"PROXY\r\n", "something else"),
        (b"\r\n\r\nQ", "something else"),
        (SIGNATURE[:-1] + b"\r", "something else"),
        (b"PROXY \r\n", "family"),
        (b"PROXY  TCP4 192.0.2.7 10.0.0.9 1 2\r\n", "family"),
        (b"PROXY TCP5 192.0.2.7 10.0.0.9 1 2\r\n", "family"),
        (b"PROXY UDP4 192.0.2.7 10.0.0.9 1 2\r\n", "family"),
        (b"PROXY UNKNOWNX\r\n", "family"),
        (b"PROXY TCP4\r\n", "two addresses"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 1\r\n", "two addresses"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 1 2 \r\n", "two addresses"),
        (b"PROXY TCP4 192.0.2.7  10.0.0.9 1 2\r\n", "two addresses"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 1 2 3\r\n", "two addresses"),
        (b"PROXY TCP4 192.0.2.7 10.0.0 1 2\r\n", "an address"),
        (b"PROXY TCP4 192.0.2.256 10.0.0.9 1 2\r\n", "an address"),
        (b"PROXY TCP4 192.0.02.7 10.0.0.9 1 2\r\n", "an address"),
        (b"PROXY TCP4 192.0.2.\xd9\xa3 10.0.0.9 1 2\r\n", "an address"),
        (b"PROXY TCP4 example 10.0.0.9 1 2\r\n", "an address"),
        (b"PROXY TCP4 fd00::1 fd00::2 1 2\r\n", "an address"),
        (b"PROXY TCP6 192.0.2.7 10.0.0.9 1 2\r\n", "an address"),
        (b"PROXY TCP6 [fd00::1] fd00::2 1 2\r\n", "an address"),
        (b"PROXY TCP6 fd00::1::2 fd00::2 1 2\r\n", "an address"),
        (b"PROXY TCP6 fe80::1%eth0 fd00::2 1 2\r\n", "an address with a zone"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 65536 2\r\n", "a port"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 1 65536\r\n", "a port"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 01 2\r\n", "a port"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 00 2\r\n", "a port"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 -1 2\r\n", "a port"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 +1 2\r\n", "a port"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 1_0 2\r\n", "a port"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 1 2\r\r\n", "a port"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 1 2\n\r\n", "a port"),
        (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "107 bytes"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 1 2\n" + b"x" * 80, "107 bytes"),
        (binary(bytes(12), version=1), "another version"),
        (binary(bytes(12), version=3), "another version"),
        (binary(bytes(12), command=2), "a command"),
        (binary(bytes(12), command=15), "a command"),
        (binary(bytes(216), kind=0x41), "a family or a transport"),
        (binary(bytes(216), kind=0x13), "a family or a transport"),
        (binary(bytes(11)), "too short"),
        (binary(bytes(35), kind=0x21), "too short"),
        (binary(b"", length=MOST_BYTES - 15), "4096 bytes"),
        (binary(b"", length=0xFFFF, command=0), "4096 bytes"),
    ],
)
def test_what_is_no_header_is_refused_with_what_is_wrong(data: bytes, why: str) -> None:
    with pytest.raises(Invalid, match=why) as caught:
        parse(data)
    assert caught.value.field == "PROXY header"
    with pytest.raises(Invalid):
        parse(data + HELLO * 100)


def test_the_longest_line_is_the_longest_that_the_protocol_knows() -> None:
    wide = b":".join([b"ffff"] * 8)
    line = b"PROXY UNKNOWN %b %b 65535 65535\r\n" % (wide, wide)
    assert len(line) == 107
    assert parse(line) == Header(107, None)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:c000:207", "192.0.2.7"),
        ("2001:DB8::0007", "2001:db8::7"),
    ],
)
def test_an_address_has_one_form(text: str, found: str, packed: bool) -> None:
    assert str(plain(ip_address(text).packed if packed else text)) == found


ports = st.integers(0, 65535)
tails = st.binary(max_size=300)
lines = st.one_of(
    st.builds("TCP4 {} {} {} {}".format, *[st.ip_addresses(v=4)] * 2, ports, ports),
    st.builds("TCP6 {} {} {} {}".format, *[st.ip_addresses(v=6)] * 2, ports, ports),
    st.just("UNKNOWN"),
).map(lambda text: f"PROXY {text}\r\n".encode())
headers = st.one_of(
    lines,
    st.builds(lambda ip, port, tail: four(str(ip), port, tail), st.ip_addresses(v=4), ports, tails),
    st.builds(lambda ip, port, tail: six(str(ip), port, tail), st.ip_addresses(v=6), ports, tails),
    st.builds(lambda kind, tail: binary(tail, command=0, kind=kind), st.integers(0, 255), tails),
)


def read_in_pieces(stream: bytes, cuts: list[int]) -> tuple[Header | None, bytes]:
    """Read what has come so far at each cut, and at the end."""
    for arrived in [*sorted(cuts), len(stream)]:
        header = parse(stream[:arrived])
        if header is not None:
            return header, stream[header.length :]
    return None, stream


@given(header=headers, after=st.binary(max_size=40), cuts=st.lists(st.integers(0, 500), max_size=9))
def test_however_a_stream_is_split_its_header_is_the_same(
    header: bytes, after: bytes, cuts: list[int]
) -> None:
    found = parse(header)
    assert found is not None
    assert found.length == len(header)
    assert read_in_pieces(header + after, cuts) == (found, after)


@given(header=headers, cut=st.integers(0, 400))
def test_less_than_a_header_is_never_one(header: bytes, cut: int) -> None:
    assert parse(header[: min(cut, len(header) - 1)]) is None


@given(ip=st.ip_addresses(), port=ports)
def test_both_versions_tell_the_same_address(ip: IPv4Address | IPv6Address, port: int) -> None:
    line = parse(f"PROXY TCP{ip.version} {ip} {ip} {port} 1\r\n".encode())
    binary_form = parse((four if ip.version == 4 else six)(str(ip), port))
    assert line is not None
    assert binary_form is not None
    assert line.source == binary_form.source == (str(plain(ip)), port)


def judged(data: bytes) -> Header | str | None:
    try:
        return parse(data)
    except Invalid as refusal:
        return refusal.why


garbage = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda data: SIGNATURE + data),
    st.binary(max_size=200).map(lambda data: SIGNATURE + b"\x21\x11\x00" + data),
    st.binary(max_size=200).map(lambda data: b"PROXY " + data),
    st.text("TCP46UNKNOW %:.0123456789af\r\n", max_size=120).map(
        lambda text: f"PROXY TCP4 {text}\r\n".encode()
    ),
    st.builds(
        lambda header, at, byte: header[:at] + byte + header[at + 1 :],
        headers,
        st.integers(0, 120),
        st.binary(min_size=1, max_size=1),
    ),
)


@given(data=garbage, more=st.binary(max_size=50))
def test_garbage_is_refused_and_nothing_else(data: bytes, more: bytes) -> None:
    verdict = judged(data)
    if verdict is None:
        assert len(data) < MOST_BYTES
    else:
        # Once there is a verdict, nothing that comes later changes it.
        assert judged(data + more) == verdict
    if isinstance(verdict, Header):
        assert 0 < verdict.length <= len(data)


@given(data=garbage, byte=st.binary(min_size=1, max_size=1))
def test_nothing_is_waited_for_any_longer_than_a_header_may_be(data: bytes, byte: bytes) -> None:
    assert judged(data.ljust(MOST_BYTES, byte)) is not None
