"""Servers on asyncio's streams that leave no connection behind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(
    handle: Handler, host: str = "127.0.0.1", *, context: SSLContext | None = None
) -> AsyncIterator[int]:
    """Have `handle` serve whoever connects; gives the port. At the end all are cut off.

    Python 3.11 does not wait for connections when a server is closed, and closing TLS waits for
    the other side. What the loop leaves open so, a later test is told of.
    """
    writers: list[asyncio.StreamWriter] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        await handle(reader, writer)

    server = await asyncio.start_server(serve, host, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        if tasks:
            await asyncio.wait(tasks)
        for writer in writers:
            with suppress(OSError):
                await writer.wait_closed()
