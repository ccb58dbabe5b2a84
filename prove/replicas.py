"""Server processes of one installation: started, killed, started again; ended by their pid."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.servers import ROOT, free_port, says_ready
from prove.points import Point
from prove.stand import Stand

PATIENCE: Final = 120.0
_LOOK_AGAIN: Final = 0.01


class ServerFailed(Exception):
    """A server did not start, ended by itself, or did not end when told to."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one server of an installation listens and writes its log."""

    name: str
    port: int
    ops: int
    log: Path
    environment: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, stand: Stand, name: str) -> "Place":
        """Find ports for a server of `stand`."""
        port, ops = free_port(), free_port()
        return cls(
            name,
            port,
            ops,
            stand.directory / f"server-{name}.log",
            stand.environment(
                GRANTSERVER_LISTEN_REDEMPTION=f"127.0.0.1:{port}",
                GRANTSERVER_LISTEN_OPS=f"127.0.0.1:{ops}",
            ),
        )

    def start(self, arguments: Sequence[str], *, piped: bool = False) -> "subprocess.Popen[bytes]":
        """Start a Python process in this place."""
        pipe = subprocess.PIPE if piped else subprocess.DEVNULL
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=dict(self.environment),
                stdin=pipe,
                stdout=pipe,
                stderr=output,
            )

    def failed(self, what: str) -> ServerFailed:
        """Make an error with the end of the log."""
        tail = self.log.read_bytes()[-2000:].decode("utf-8", "replace")
        return ServerFailed(f"server {self.name} {what}:\n{tail}")


class Installed:
    """`grantserver serve`, as it is installed; with a bug in it where `wrapper` plants one."""

    def __init__(self, stand: Stand, name: str, *, wrapper: str | None = None) -> None:
        self._place = Place.of(stand, name)
        self.port = self._place.port
        program = ["-m", "prove.server", "--with", wrapper] if wrapper else ["-m", "app", "serve"]
        self._process = self._place.start(program)

    def wait_ready(self) -> None:
        """Wait until it serves. Raises ServerFailed."""
        give_up = time.monotonic() + PATIENCE
        while not says_ready(self._place.ops):
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise self._place.failed("did not start")
            time.sleep(_LOOK_AGAIN)

    def stop(self) -> None:
        """End it as an operator would. Raises ServerFailed when it ends otherwise."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.wait()
            raise self._place.failed("had to be killed at the end") from error
        if status:
            raise self._place.failed(f"ended with {status}")


class Mortal:
    """A server that is killed and started again, often.

    Its process is forked from one that has imported the program already (`prove.nest`): a start
    takes a tenth of the time, and nothing else differs.
    """

    def __init__(self, stand: Stand, name: str, *, fused: bool, wrapper: str | None = None) -> None:
        self._place = Place.of(stand, name)
        self.port = self._place.port
        arguments = ["-m", "prove.nest", *(["--fused"] if fused else [])]
        if wrapper:
            arguments += ["--with", wrapper]
        self._nest = self._place.start(arguments, piped=True)
        self._pid = 0

    def start(self) -> None:
        """Start the process; `wait_ready` says when it serves."""
        self._pid = int(self._tell("start"))

    def wait_ready(self) -> None:
        """Wait until it serves. Raises ServerFailed."""
        give_up = time.monotonic() + PATIENCE
        while not says_ready(self._place.ops):
            if self.is_dead(_LOOK_AGAIN) or time.monotonic() > give_up:
                raise self._place.failed("did not start")

    def arm(self, point: Point, passes: int) -> None:
        """Have it kill itself at the `passes`-th passing of `point` from now on."""
        if self._tell(f"arm {point.value} {passes}") != "armed":
            raise self._place.failed("was not armed")

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        os.kill(self._pid, signal.SIGKILL)
        self.bury()

    def is_dead(self, within: float) -> bool:
        """Tell whether it has ended, after waiting for that as long as that."""
        return self._tell(f"wait {within}") != "alive"

    def bury(self) -> None:
        """Take in the end of a server that was killed. Raises ServerFailed if it was not."""
        said = self._tell(f"wait {PATIENCE}")
        if said != f"ended {-signal.SIGKILL}":
            raise self._place.failed(f"was to be killed, and is {said}")

    def stop(self) -> None:
        """End it, and the process that it was forked from."""
        nest = self._nest
        try:
            if nest.poll() is None:
                said = self._tell("stop")
                if said not in {"ended 0", f"ended {-signal.SIGKILL}"}:
                    raise self._place.failed(f"was to stop, and is {said}")
        finally:
            for pipe in (nest.stdin, nest.stdout):
                if pipe is not None:
                    pipe.close()
            nest.wait(PATIENCE)

    def _tell(self, order: str) -> str:
        nest = self._nest
        if nest.stdin is None or nest.stdout is None:
            raise self._place.failed("takes no orders")
        try:
            nest.stdin.write(f"{order}\n".encode())
            nest.stdin.flush()
        except OSError as error:
            raise self._place.failed(f"is gone before `{order}`") from error
        said = nest.stdout.readline().decode().strip()
        if not said:
            raise self._place.failed(f"did not do `{order}`")
        return said
