"""A server in a process of its own, and the command line beside it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from app.ambient import monotonic
from tests.running import environment

PATIENCE = 30.0


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Installation:
    """A server in a process of its own, and the command line beside it."""

    def __init__(self, directory: Path, **further: str) -> None:
        self.port, self.ops = free_ports(2)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("GRANTSERVER_")}  # noqa: TID251
        self.directory = directory
        self.log = directory / "server.log"
        self.environment = inherited | environment(
            directory,
            GRANTSERVER_LISTEN_REDEMPTION=f"127.0.0.1:{self.port}",
            GRANTSERVER_LISTEN_OPS=f"127.0.0.1:{self.ops}",
            GRANTSERVER_REACH_URL=f"https://127.0.0.1:{self.port}",
            **further,
        )
        self.said = ""

    def type(self, *words: str) -> str:
        """Run a command; what it says on standard error is kept for reading."""
        done = subprocess.run(
            [sys.executable, "-m", "app", *words],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.said += done.stderr
        return done.stdout

    @contextlib.contextmanager
    def serving(self) -> Iterator[int]:
        """Run the server until the block ends, which gets its process id."""
        with self.log.open("a") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve"],
                cwd=self.directory,
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        try:
            self._wait(process)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        give_up = monotonic() + PATIENCE
        while monotonic() < give_up and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.ops}/readyz", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
        raise AssertionError(self.log.read_text())
