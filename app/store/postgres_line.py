"""A connection to PostgreSQL that a ledger keeps: bounded in time, replaced when it is lost."""

import asyncio
import contextlib
import select
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from app.errors import Unavailable
from app.store.postgresql import CONNECT_SECONDS, DURABLE, cut

_SECONDS: Final = 2.5  # more than what the server itself grants a statement


class Line:
    """One connection, used by one statement at a time, on one event loop.

    It is opened by the first statement, and by the first one after it was lost.
    """

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._parameters = parameters
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._free = asyncio.Lock()
        self._closed = False

    async def ask(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Run a statement that changes nothing, once more if the connection turns out lost."""
        async with self._free:
            fresh = await self._open()
            try:
                return await self._run(statement, parameters)
            except psycopg.OperationalError:
                if fresh or self._connection is not None:
                    raise
            await self._open()
            return await self._run(statement, parameters)

    async def tell(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Run a statement in a transaction of its own; when this returns, it is on the disk.

        Raises psycopg.Error; when the connection was lost, nobody knows what became of it.
        """
        async with self._free:
            await self._open()
            return await self._run(statement, parameters)

    async def close(self) -> None:
        """Let go of it, for good."""
        async with self._free:
            self._closed = True
            await self._drop()

    async def _open(self) -> bool:
        """See that there is a connection; tells whether it is a new one."""
        if self._closed:
            raise Unavailable("database: the ledger is closed")
        if self._connection is not None and not _silent(self._connection):
            await self._drop()
        if self._connection is not None:
            return False
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await psycopg.AsyncConnection.connect(
                    make_conninfo(**self._parameters), autocommit=True
                )
        except TimeoutError as error:
            raise Unavailable("database: it does not answer") from error
        self._connection = connection
        await self._run(DURABLE, {})
        return True

    async def _run(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        connection = self._connection
        if connection is None:
            raise Unavailable("database: not connected")
        overdue = asyncio.get_running_loop().call_later(_SECONDS, cut, connection)
        try:
            cursor = connection.cursor(binary=True)
            await cursor.execute(statement, parameters, prepare=True)
            return await cursor.fetchall() if cursor.description else ()
        except BaseException:
            if connection.closed or connection.pgconn.transaction_status != _IDLE:
                await self._drop()
            raise
        finally:
            overdue.cancel()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()


_IDLE: Final = psycopg.pq.TransactionStatus.IDLE


def _silent(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Tell whether nothing has come since the last answer: what comes then is a farewell."""
    if connection.closed:
        return False
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return not waiting.poll(0)
