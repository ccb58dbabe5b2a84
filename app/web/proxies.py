"""The load balancers before a listener: which may connect, and on whose behalf they do.

The header with which they begin is read here, from the bare socket; what is in it is told by
`proxy_header`, and what comes after it is left where it is.
"""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from app.errors import Invalid
from app.logs import get_logger
from app.web.proxy_header import MOST_BYTES, Header, parse, plain

if TYPE_CHECKING:
    from app.web.connection import Connection

QUIET_SECONDS = 60.0
"""No more than one line in so long is logged for each of the reasons for which we cut."""

Network = IPv4Network | IPv6Network

_log = get_logger(__name__)


class Proxies:
    """Who may connect to a listener (`sources`, none is any), and whether they say for whom.

    Where `headers` is set every connection has to begin with one: to take one from whoever
    sends it, and do without from others, would let any client say who it is.
    """

    def __init__(self, *, sources: Sequence[Network] = (), headers: bool = True) -> None:
        self.headers = headers
        self._sources = tuple(sources)
        self._last_told: dict[str, float] = {}

    def may_connect(self, host: str) -> bool:
        """Tell whether the address that a connection comes from is one of the sources."""
        if not self._sources:
            return True
        address = plain(host)
        if any(address in network for network in self._sources):
            return True
        self._tell("connections are cut that come from no load balancer", peer=str(address))
        return False

    async def introduce(
        self, accepted: socket.socket, connection: "Connection", *, seconds: float
    ) -> bool:
        """Read the header of a connection, and let it be the client's who is named there.

        Without a header within `seconds` it is closed and abandoned, and the answer is False.
        """
        header = None
        accepted.setblocking(False)
        try:
            with contextlib.suppress(OSError):  # too late, or gone: as in a handshake
                async with asyncio.timeout(seconds):
                    header = await _read_header(accepted)
        except Invalid as refusal:
            self._tell(
                "connections are cut that begin with no PROXY header",
                peer=connection.client[0] if connection.client else "",
                why=refusal.why,
            )
        finally:
            if header is None:
                accepted.close()
                connection.abandon()
        if header is None:
            return False
        if header.source is not None:
            connection.client = header.source
        return True

    def _tell(self, what: str, **further: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._last_told.get(what, float("-inf")) > QUIET_SECONDS:
            self._last_told[what] = now
            _log.warning(what, **further)


async def _read_header(accepted: socket.socket) -> Header | None:
    """Take the header, and not a byte more, from the socket; None when it ends before that.

    What has come is looked at first, and only then taken as far as it is header. Nothing of a
    part of one stays behind: it would make the loop spin, since the socket stays readable.

    Raises Invalid, and OSError when the connection breaks.
    """
    taken = b""
    while True:
        try:
            ahead = accepted.recv(MOST_BYTES - len(taken), socket.MSG_PEEK)
        except BlockingIOError:
            await _readable(accepted)
            continue
        if not ahead:
            return None
        header = parse(taken + ahead)
        taken += accepted.recv(len(ahead) if header is None else header.length - len(taken))
        if header is not None:
            return header


async def _readable(accepted: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()

    def note() -> None:
        if not readable.done():  # the loop may see it twice before we do
            readable.set_result(None)

    loop.add_reader(accepted, note)
    try:
        await readable
    finally:
        loop.remove_reader(accepted)
