"""A wire between the ledger and PostgreSQL that can be cut at the moment that matters."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import Enum, auto

from tests.postgresql import Cluster


class Fault(Enum):
    """What happens to the next answer of the server."""

    NONE = auto()
    LOST = auto()  # the connection breaks before any of it has passed
    LOST_ONCE = auto()  # the same, and the next connection fares better
    CUT_BEFORE_READY = auto()  # all of it passes but its last message: that the commit is done
    SILENCE = auto()  # nothing passes any more, and nothing breaks


class Wire:
    """Connections on a port of its own are passed on to the server, message by message."""

    def __init__(self, cluster: Cluster) -> None:
        self.fault = Fault.NONE
        self._cluster = cluster
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, name: str) -> str:
        port = self._server.sockets[0].getsockname()[1]
        url = self._cluster.url(name).replace(f":{self._cluster.port}/", f":{port}/")
        return f"{url}?sslmode=disable&gssencmode=disable"

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator["Wire"]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            for writer in self._writers:
                writer.close()
            await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        back, forth = await asyncio.open_connection("127.0.0.1", self._cluster.port)
        self._writers += [writer, forth]
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await asyncio.gather(self._forth(reader, forth), self._back(back, writer))
        writer.close()
        forth.close()

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
            match self.fault:
                case Fault.LOST:
                    break
                case Fault.LOST_ONCE:
                    self.fault = Fault.NONE
                    break
                case Fault.CUT_BEFORE_READY if head[:1] == b"Z":
                    break
                case Fault.SILENCE:
                    continue
                case _:
                    writer.write(head + body)
        await writer.drain()
        writer.close()
