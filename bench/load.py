"""A closed-loop load generator: every redemption on a TLS 1.3 connection of its own.

Its job ends with one JSON line of figures; what is started, compared and judged is decided
in `run.py`. It reads its plan from standard input, so that no code stands in a process list:

    echo '{"port": 9090, "seconds": 3, "targets": [["<uid>", "<code>"]]}' | python bench/load.py

One thread, one epoll, and a TLS client of our own (`handshake.py`), because a client that
verifies costs more than the server it is to keep busy.
"""

import contextlib
import gc
import json
import math
import os
import re
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.handshake import ClientSession, HandshakeError

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
READ_BYTES = 65_536
_BIND_ADDRESS_NO_PORT = 24  # <linux/in.h>: the port is chosen at connect, per destination
DRAIN_SECONDS = 15.0
"""How long answers may take to come in once no new connection is begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do: whom to ask, for how long, with what."""

    port: int
    seconds: float
    targets: Sequence[Sequence[str]] = field(repr=False)
    """Pairs of grant uid and code. One pair is used again and again; of several, each once."""
    concurrency: int = 32
    first: int = 0
    """Number of the first request; it goes into name and subject, so that no two are alike."""
    core: int | None = None
    """The core the generator pins itself to."""
    server_core: int | None = None
    """The core to watch in /proc/stat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What came of it. Rates count every answer, from the first connect to the last byte."""

    answers: int
    statuses: dict[str, int]
    """Answers by status; `cut`, `error` and `unfinished` are not answers."""
    elapsed: float
    rate: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    worst_ms: float
    generator_cpu_us: float
    """CPU time of the generator, for each answer."""
    generator_busy: float
    """Share of the elapsed time the generator was on a core."""
    server_core_busy: float | None
    """Share of the elapsed time the server's core did anything; None where not watched."""


class Connection:
    """One request from connect to close; `status` is set once it is over.

    `asked` is when the request was sent, None until then: the server cannot have known of it
    before. `source` is the loopback address that it comes from.
    """

    __slots__ = ("_began", "_request", "_session", "_unsent", "asked", "latency", "socket",
                 "status")  # fmt: skip

    def __init__(self, port: int, request: bytes, *, source: str | None = None) -> None:
        self._request = request
        self.status: str | None = None
        self.latency = math.nan
        self._session = ClientSession()
        self._unsent = self._session.hello()
        self.asked: float | None = None
        self._began = time.monotonic()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source is not None:
            self.socket.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            self.socket.bind((source, 0))
        # Usually 'in progress'; the first wake-up says that bytes may be sent.
        self.socket.connect_ex(("127.0.0.1", port))

    def body(self) -> bytes:
        """Return what was received after the head."""
        return self._session.received.partition(b"\r\n\r\n")[2]

    def step(self) -> None:
        """Send and read what can be sent and read now."""
        try:
            if self._unsent:
                self._send(b"")
            self._take(self.socket.recv(READ_BYTES))
        except BlockingIOError:
            return
        except (OSError, HandshakeError):
            self.status = "error"

    def _send(self, data: bytes) -> None:
        data = self._unsent + data
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        self._unsent = data[sent:]

    def _take(self, data: bytes) -> None:
        session = self._session
        if data:
            before = len(session.received)
            answer = session.feed(data)
            if len(session.received) > before:
                self.latency = time.monotonic() - self._began
            if answer:
                # Two writes, as the real clients do it: the handshake's end, then the request.
                self._send(answer)
                self.asked = time.monotonic()
                self._send(session.seal(self._request))
        if session.closed or not data:
            self.status = self._judge()
            if session.closed:
                with contextlib.suppress(OSError):
                    self.socket.send(session.goodbye())

    def _judge(self) -> str:
        head, _, body = self._session.received.partition(b"\r\n\r\n")
        length = LENGTH.search(head + b"\r\n")
        if not head.startswith(b"HTTP/1.1 ") or length is None or int(length[1]) != len(body):
            return "cut"
        return head[9:12].decode("ascii", "replace")


def drive(plan: Plan) -> Figures:
    """Keep `plan.concurrency` redemptions in flight for `plan.seconds`, then let them finish."""
    numbers = iter(range(plan.first, plan.first + 10**9))
    targets = iter(plan.targets) if len(plan.targets) > 1 else iter(lambda: plan.targets[0], None)
    statuses: Counter[str] = Counter()
    latencies: list[float] = []
    waiting: dict[int, Connection] = {}
    poll = select.epoll()
    # Nothing here is cyclic, and a collection in the middle would be read as latency.
    gc.disable()
    core_before, cpu_before = _core_ticks(plan.server_core), time.process_time()
    began = last = time.monotonic()
    until = began + plan.seconds

    def open_one() -> bool:
        target = next(targets, None)
        if target is None:
            return False
        uid, code = target
        connection = Connection(plan.port, _request(plan.port, uid, code, next(numbers)))
        waiting[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        return True

    for _ in range(plan.concurrency):
        open_one()
    while waiting and last < until + DRAIN_SECONDS:
        for number, _ in poll.poll(1.0):
            connection = waiting[number]
            connection.step()
            if connection.status is None:
                continue
            del waiting[number]
            connection.socket.close()
            statuses[connection.status] += 1
            if connection.status.isdigit():
                latencies.append(connection.latency)
            if time.monotonic() < until:
                open_one()
        last = time.monotonic()
    elapsed = last - began
    cpu = time.process_time() - cpu_before
    core_after = _core_ticks(plan.server_core)
    if waiting:
        statuses["unfinished"] = len(waiting)
    return _figures(latencies, statuses, elapsed, cpu, _busy(core_before, core_after))


def _request(port: int, uid: str, code: str, number: int) -> bytes:
    body = code.encode()
    head = (
        f"POST /{uid} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: Go-http-client/1.1\r\n"
        f"Content-Length: {len(body)}\r\nName: link-{number}\r\n"
        f"Subject: 00000000-0000-4000-8000-{number:012x}\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    return head.encode() + body


def _figures(
    latencies: list[float],
    statuses: Counter[str],
    elapsed: float,
    cpu: float,
    busy: float | None,
) -> Figures:
    latencies.sort()
    count = len(latencies)

    def percentile(share: float) -> float:
        return 1000 * latencies[max(0, math.ceil(share * count) - 1)] if count else math.nan

    return Figures(
        answers=count,
        statuses=dict(sorted(statuses.items())),
        elapsed=elapsed,
        rate=count / elapsed,
        p50_ms=percentile(0.50),
        p90_ms=percentile(0.90),
        p99_ms=percentile(0.99),
        worst_ms=percentile(1.0),
        generator_cpu_us=1e6 * cpu / max(1, count),
        generator_busy=cpu / elapsed,
        server_core_busy=busy,
    )


def _core_ticks(core: int | None) -> tuple[int, int] | None:
    """Ticks that `core` worked and ticks in all since the machine started, or None."""
    if core is None:
        return None
    for line in Path("/proc/stat").read_text("ascii").splitlines():
        name, *rest = line.split()
        if name == f"cpu{core}":
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, rest[:8])
            busy = user + nice + system + irq + softirq + steal
            return busy, busy + idle + iowait
    return None


def _busy(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if before is None or after is None or after[1] == before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])


def main() -> None:
    """Read a plan as JSON from standard input, do it, print the figures as JSON."""
    plan = Plan(**json.load(sys.stdin))
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    print(json.dumps(asdict(drive(plan))))


if __name__ == "__main__":
    main()
