"""The program's own client of an API server, for tests: connected, quick, and in short words."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from kubernetes.aio.client.configuration import Configuration

from app import logs
from app.kube.backoff import Backoff
from app.kube.client import Kube
from app.kube.connection import Connection, Source, kubeconfig
from app.kube.resources import Object, Resource
from tests.kube import api_server

T = TypeVar("T")

PATIENCE: Final = 20.0
LOG: Final = logs.get_logger("kube")
QUICK: Final = Backoff(base_seconds=0.005, most_seconds=0.05)
CONFIG_MAPS: Final = Resource(group="", version="v1", plural="configmaps", kind="ConfigMap")

GRANTS: Final[Object] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "accessgrants.skupper.io"},
    "spec": {
        "group": "skupper.io",
        "scope": "Namespaced",
        "names": {"plural": "accessgrants", "singular": "accessgrant", "kind": "AccessGrant"},
        "versions": [
            {
                "name": "v2alpha1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            part: {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                            for part in ("spec", "status")
                        },
                    }
                },
            }
        ],
    },
}


def config_file(directory: Path, token: str | None) -> Path:
    """Where a client with a token finds its kubeconfig."""
    return directory / f"kubeconfig-{(token or 'admin')[-20:]}"


@asynccontextmanager
async def connected(
    server: api_server.Kube,
    directory: Path,
    *,
    token: str | None = None,
    seconds: float = 10.0,
) -> AsyncIterator[Kube]:
    """A client of a server, as the administrator or with a token."""
    config = server.kubeconfig(config_file(directory, token), token)
    kube = Kube(await Connection.open(kubeconfig(config)), seconds=seconds)
    try:
        yield kube
    finally:
        await kube.close()


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """Something that goes on beside the test and is cancelled at its end."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, and no connection is left behind.

    One that was given up says goodbye to the server in its own time, as TLS wants it; one whose
    server does not answer to that is dropped. Left behind, it would fail whichever test comes next.
    """

    async def everything() -> T:
        try:
            return await main
        finally:
            loop: Any = asyncio.get_running_loop()

            def left() -> list[Any]:
                return [one for one in loop._transports.values() if one._sock]

            with suppress(TimeoutError):
                await until(lambda: not left(), 5.0)
            for one in left():
                one.abort()
            await until(lambda: not left())

    return asyncio.run(everything())


async def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110 - whatever it is, it does not tell
            await asyncio.sleep(0.002)


def config_map(name: str, namespace: str = "default", **data: str) -> Object:
    """An object of a kind that needs no definition."""
    metadata: Object = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def no_chance(count: int) -> bytes:
    """Where chance shall have no part."""
    return bytes(count)


class Scripted:
    """A server on plain HTTP that says, to each request in turn, exactly what is written down.

    An answer is a list of pieces; after them the connection is closed, unless the last one is None:
    then it stays open and silent. The last answer is given again and again.
    """

    def __init__(self, *answers: list[bytes | None]) -> None:
        self._answers = list(answers)
        self.asked: list[bytes] = []
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.asked.append(await reader.read(65536))
        pieces = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        for piece in pieces:
            if piece is None:
                return
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    @asynccontextmanager
    async def client(self, *, seconds: float = 10.0) -> AsyncIterator[Kube]:
        """A client of it."""
        kube = Kube(await Connection.open(self.source()), seconds=seconds)
        try:
            yield kube
        finally:
            await kube.close()

    def source(self) -> Source:
        """How it is reached."""

        async def read() -> Configuration:
            return Configuration(host=self.url)

        return read


def answer(status: str, body: bytes | str = b"{}", *headers: str) -> list[bytes | None]:
    """An answer of known length."""
    sent = body if isinstance(body, bytes) else body.encode()
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(sent)}", "Connection: close", *headers]
    return ["\r\n".join([*head, "", ""]).encode() + sent]


def stream(*pieces: bytes | None) -> list[bytes | None]:
    """The answer to a watch, in pieces as they are sent; it ends in good order if they do."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    body = [one and b"%x\r\n%b\r\n" % (len(one), one) for one in pieces]
    return [head, *body] if body and body[-1] is None else [head, *body, b"0\r\n\r\n"]


def broken_off(pieces: list[bytes | None]) -> list[bytes | None]:
    """The same without its end."""
    return pieces[:-1]
