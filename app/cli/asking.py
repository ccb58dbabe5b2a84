"""Asking a server one question from a command that is not asynchronous itself."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

_Told = TypeVar("_Told")


class _Loop(asyncio.SelectorEventLoop):
    """A loop that knows the connections it has made."""

    def __init__(self) -> None:
        super().__init__()
        self.transports: list[asyncio.Transport] = []

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        transport, protocol = await super().create_connection(*args, **options)
        self.transports.append(transport)
        return transport, protocol


def ask(question: Coroutine[Any, Any, _Told]) -> _Told:
    """Wait for the answer to a question that `app.outbound` puts; raises what it raises.

    A TLS connection says goodbye for longer than this lasts, and the answer is whole already:
    what is still open at the end is cut.
    """
    with asyncio.Runner(loop_factory=_Loop) as runner:
        try:
            return runner.run(question)
        finally:
            loop = runner.get_loop()
            if isinstance(loop, _Loop):
                for transport in loop.transports:
                    # Python 3.11.2 stumbles over a TLS connection that is gone already.
                    with contextlib.suppress(AttributeError):
                        transport.abort()
