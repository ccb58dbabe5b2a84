"""A listener in a process of its own, for tests that count its memory or starve it.

Started as `python -m tests.web.served MAX_CONNECTIONS DESCRIPTORS`, it prints where it is and
its certificate as JSON, then serves until its standard input ends. DESCRIPTORS is its limit of
open files, or 0.
"""

import asyncio
import json
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.types import Receive, Scope, Send

from app.web.listeners import Limits, Listener, bind, run
from app.web.tls import server_context
from tests.web.serving import IDENTITY, answer, connect, read_all

MOST_BODY_BYTES = 4096


async def bounded(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as soon as the body is whole, or too large."""
    size = 0
    while size <= MOST_BODY_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        if not message["more_body"]:
            await answer(send, 200, b"ok\n")
            return
    await answer(send, 400, b"too large\n")


async def main() -> None:
    listener = Listener(
        bounded,
        bind("127.0.0.1:0"),
        context=server_context(IDENTITY.certificate, IDENTITY.key),
        limits=Limits(
            max_connections=int(sys.argv[1]), handshake_seconds=60.0, request_seconds=60.0
        ),
    )
    await listener.start()
    print(  # noqa: T201
        json.dumps({"port": listener.address[1], "certificate": IDENTITY.certificate.decode()}),
        flush=True,
    )
    await asyncio.to_thread(sys.stdin.read)
    await listener.stop(0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The process as a test sees it."""

    port: int
    pid: int
    trusting: ssl.SSLContext
    log: Path

    def connect(self) -> socket.socket:
        return connect("127.0.0.1", self.port)

    def shake(self) -> ssl.SSLSocket:
        connection = self.connect()
        try:
            return self.trusting.wrap_socket(connection, server_hostname="localhost")
        except BaseException:
            connection.close()
            raise

    def ask(self, request: bytes) -> bytes:
        with self.shake() as connection:
            connection.sendall(request)
            return read_all(connection)

    def status(self, field: str) -> int:
        """Read a line of /proc/<pid>/status that is given in kB; the answer is in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise LookupError(field)

    def cpu_seconds(self) -> float:
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9


@contextmanager
def served(log: Path, *, max_connections: int, descriptors: int = 0) -> Iterator[Process]:
    """Run the process until the block ends; what it writes to standard error goes to `log`."""
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "tests.web.served", str(max_connections), str(descriptors)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=Path(__file__).parents[2],
        ) as process,
    ):
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield Process(
                port=told["port"],
                pid=process.pid,
                trusting=ssl.create_default_context(cadata=told["certificate"]),
                log=log,
            )
        finally:
            process.kill()


if __name__ == "__main__":
    if int(sys.argv[2]):
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
    run(main)
