"""Starting, watching and ending the servers under load; every one is a child pinned to a core."""

import contextlib
import http.client
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0
STOP_SECONDS = 15.0
LOOK_AGAIN_SECONDS = 0.005
PORTS = range(20_000, 32_768)
"""Below those that Linux gives to outgoing connections unless it is told otherwise."""
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class NotReadyError(Exception):
    """A server ended, or did not answer, before it was ready."""


class Server:
    """A running server and what it has used so far, its child processes included."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, started_in: float) -> None:
        self.pid = process.pid
        self.port = port
        self.started_in = started_in
        """Seconds from the start of the process to the first ready answer."""

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its threads and processes, in steps of 1/100 s."""
        ticks = 0
        for pid in self._family():
            # The name of the process may hold blanks; what follows it cannot.
            values = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
            ticks += int(values[11]) + int(values[12])
        return ticks / TICKS_PER_SECOND

    def peak_rss_mb(self) -> float:
        """Return the largest resident set it ever had, in MB (10^6 bytes)."""
        kib = 0
        for pid in self._family():
            for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    kib += int(line.split()[1])
        return kib * 1024 / 1e6

    def _family(self) -> list[int]:
        family, unseen = [], [self.pid]
        while unseen:
            pid = unseen.pop()
            family.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                unseen += map(int, children.read_text("ascii").split())
        return family


@contextlib.contextmanager
def running(
    arguments: Sequence[str],
    *,
    port: int,
    ready: Callable[[], bool],
    core: int | set[int],
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run `python <arguments>` pinned to `core`, or to several, until the block ends.

    `ready` is asked until it says yes; `log` takes what the server prints. Raises
    `NotReadyError` with the end of that log when it does not come up within a minute.
    """
    began = time.monotonic()
    with log.open("ab") as output, pinned({core} if isinstance(core, int) else core):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**clean_environment(), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        while not ready():
            if process.poll() is not None or time.monotonic() > began + START_SECONDS:
                tail = log.read_text("utf-8", "replace")[-2000:]
                raise NotReadyError(f"{' '.join(arguments)} did not get ready:\n{tail}")
            time.sleep(LOOK_AGAIN_SECONDS)
        yield Server(process, port, time.monotonic() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Start processes on `cores`: they inherit them, and with them all that they start."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def clean_environment() -> dict[str, str]:
    """Return our environment without settings of GrantServer: what is measured is the default."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GRANTSERVER_")}


def free_port() -> int:
    """Return a loopback port that nobody listens on at the moment.

    It is none of those that outgoing connections get, thousands a second while there is load: one
    of them would have it before a server does, or while a server is being started again.
    """
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise NotReadyError(f"no port in {PORTS} is free")


def shakes_hands(port: int) -> bool:
    """Tell whether a TLS server answers on `port`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=1) as plain,
            context.wrap_socket(plain),
        ):
            return True
    except OSError:
        return False


def says_ready(ops_port: int) -> bool:
    """Tell whether GET /readyz on the ops listener is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", ops_port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
