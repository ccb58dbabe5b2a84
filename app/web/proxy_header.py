"""The header that a load balancer puts before a connection: whose connection it is (pure).

Versions 1 and 2 of HAProxy's "The PROXY protocol", chapter 2; sections named here are of that
text. Who may send one, and how it is read from a socket, is no matter of this module.
"""

import struct
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from app.errors import Invalid

MOST_BYTES: Final = 4096
"""No header is longer: a version 1 line has at most 107 bytes, and of version 2 we take so many.

Without extensions it has 52; load balancers add some hundred, for what they know of the client.
"""

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"

_LINE_BYTES: Final = 107
_KEYWORD: Final = b"PROXY "
_FAMILIES: Final[dict[bytes, type[IPv4Address | IPv6Address]]] = {
    b"TCP4": IPv4Address,
    b"TCP6": IPv6Address,
}
_HIGHEST_PORT: Final = 65535
_PORT_DIGITS: Final = 5

_FIXED: Final = struct.Struct("!12sBBH")
_VERSION: Final = 2
_LOCAL, _PROXY = 0, 1
_HIGHEST_FAMILY, _HIGHEST_TRANSPORT = 3, 2
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESSES: Final = {_TCP4: struct.Struct("!4s4sHH"), _TCP6: struct.Struct("!16s16sHH")}

Peer = tuple[str, int]


class Header(NamedTuple):
    """A whole header: how many bytes it has, and from where the client connected.

    `source` is an IP address in its one form (IPv4 that is written as IPv6 is IPv4), and a port;
    None says that the connection is the load balancer's own, or of a kind without such an address.
    """

    length: int
    source: Peer | None


def parse(data: bytes) -> Header | None:
    """Read the header that `data` begins with; None as long as it is not whole.

    Of what is not whole every byte belongs to the header. Raises Invalid for what is no header,
    at the latest when it is longer than any may be.
    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _parse_binary(data)
    if data[: len(_KEYWORD)] == _KEYWORD[: len(data)]:
        return _parse_line(data)
    raise _invalid("it begins with something else")


def plain(address: str | bytes | IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Read an IP address, as text or packed; IPv4 that is written as IPv6 is IPv4."""
    read = ip_address(address)
    return getattr(read, "ipv4_mapped", None) or read


def _parse_line(data: bytes) -> Header | None:
    """Read version 1 (section 2.1)."""
    end = data.find(b"\r\n", 0, _LINE_BYTES)
    if end < 0:
        if len(data) < _LINE_BYTES:
            return None
        raise _invalid(f"no end of line within {_LINE_BYTES} bytes")
    _, family, *rest = data[:end].split(b" ")
    if family == b"UNKNOWN":
        return Header(end + 2, None)
    if family not in _FAMILIES:
        raise _invalid("a family other than TCP4, TCP6 and UNKNOWN")
    try:
        source, destination, source_port, destination_port = rest
    except ValueError:
        raise _invalid("not two addresses and two ports") from None
    _read_port(destination_port)
    _read_address(family, destination)
    return Header(end + 2, (_read_address(family, source), _read_port(source_port)))


def _read_address(family: bytes, text: bytes) -> str:
    try:
        if b"%" in text:  # Python takes a zone, the protocol has none
            raise _invalid("an address with a zone")
        return str(plain(_FAMILIES[family](text.decode("ascii"))))
    except (AddressValueError, UnicodeDecodeError):
        raise _invalid("an address that is none of its family") from None


def _read_port(text: bytes) -> int:
    if text.isdigit() and len(text) <= _PORT_DIGITS and (text == b"0" or text[:1] != b"0"):
        port = int(text)
        if port <= _HIGHEST_PORT:
            return port
    raise _invalid("a port that is none")


def _parse_binary(data: bytes) -> Header | None:
    """Read version 2 (section 2.2); what follows the addresses is passed over."""
    if len(data) < _FIXED.size:
        return None
    _, version_command, family_transport, length = _FIXED.unpack_from(data)
    version, command = divmod(version_command, 16)
    if version != _VERSION or command > _PROXY:
        raise _invalid("another version than 2, or a command that is neither LOCAL nor PROXY")
    family, transport = divmod(family_transport, 16)
    if command == _PROXY and (family > _HIGHEST_FAMILY or transport > _HIGHEST_TRANSPORT):
        raise _invalid("a family or a transport that is not specified")
    addresses = None if command == _LOCAL else _ADDRESSES.get(family_transport)
    if addresses is not None and length < addresses.size:
        raise _invalid("too short for its addresses")
    whole = _FIXED.size + length
    if whole > MOST_BYTES:
        raise _invalid(f"more than {MOST_BYTES} bytes")
    if len(data) < whole:
        return None
    if addresses is None:
        return Header(whole, None)
    source, _, port, _ = addresses.unpack_from(data, _FIXED.size)
    return Header(whole, (str(plain(source)), port))


def _invalid(why: str) -> Invalid:
    return Invalid("PROXY header", why)
