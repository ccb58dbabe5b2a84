"""An executor that makes every attempt over a TLS 1.3 connection of its own, in its own process.

Its client (that of `bench/`) does a whole handshake, but trusts anyone: what is proved here is
what the server does.
"""

import heapq
import itertools
import select
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Final

from bench.load import Connection
from prove.jobs import Job, Outcome, pause, to_be_repeated
from prove.plan import Order

PATIENCE: Final = 15.0
"""Seconds after which a connection without an answer is given up; real clients wait for 10."""
_LOOK_ROUND: Final = 0.5
_ENDED: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


@dataclass(frozen=True, slots=True)
class _Try:
    """A connection under way; `which` is the number of its server."""

    connection: Connection
    order: Order
    number: int
    which: int
    until: float


class OverTls:
    """Makes the attempts of a job against several servers in turn."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._poll = select.epoll()
        self._waiting: dict[int, _Try] = {}
        self._later: list[tuple[float, int, Order, int]] = []
        self._count = itertools.count()

    def run(self, job: Job) -> Outcome:
        """Make all attempts, and return when each has its answer or was given up."""
        outcome = Outcome()
        fresh = iter(job.orders)
        look_round = time.monotonic() + _LOOK_ROUND
        while True:
            while len(self._waiting) < job.width and self._begin_next(job, fresh):
                pass
            if not self._waiting and not self._later:
                return outcome
            for file, events in self._poll.poll(0.01 if self._later else 0.2):
                self._step(job, outcome, self._waiting[file], events)
            if (now := time.monotonic()) > look_round:
                look_round = now + _LOOK_ROUND
                for one in [one for one in self._waiting.values() if one.until < now]:
                    self._end(job, outcome, one, None)

    def _begin_next(self, job: Job, fresh: Iterator[Order]) -> bool:
        if self._later and self._later[0][0] <= time.monotonic():
            _, _, waiting, number = heapq.heappop(self._later)
            self._begin(job, waiting, number)
            return True
        if (order := next(fresh, None)) is None:
            return False
        self._begin(job, order, 1)
        return True

    def _begin(self, job: Job, order: Order, number: int) -> None:
        which = next(self._count) % len(self._ports)
        port = self._ports[which]
        connection = Connection(port, _request(job, order, port), source=order.peer)
        one = _Try(connection, order, number, which, time.monotonic() + PATIENCE)
        self._waiting[connection.socket.fileno()] = one
        self._poll.register(
            connection.socket,
            select.EPOLLIN | select.EPOLLOUT | select.EPOLLET | select.EPOLLRDHUP,
        )

    def _step(self, job: Job, outcome: Outcome, one: _Try, events: int) -> None:
        connection = one.connection
        connection.step()
        while events & _ENDED and connection.status is None:
            connection.step()  # what it has sent is all here, and so is its end
        if connection.status is not None:
            status = int(connection.status) if connection.status.isdigit() else None
            self._end(job, outcome, one, status)

    def _end(self, job: Job, outcome: Outcome, one: _Try, status: int | None) -> None:
        connection = one.connection
        del self._waiting[connection.socket.fileno()]
        connection.socket.close()
        again = True  # who was never asked has done nothing
        if connection.asked is not None:
            answer = outcome.note(
                one.order,
                began=connection.asked,
                ended=time.monotonic(),
                status=status,
                body=b"" if status is None else connection.body(),
                where=f"tls {'ab'[one.which]}",
            )
            again = job.insist and to_be_repeated(answer)
        if again and one.number < job.tries:
            due = time.monotonic() + pause(one.number)
            heapq.heappush(self._later, (due, next(self._count), one.order, one.number + 1))


def _request(job: Job, order: Order, port: int) -> bytes:
    target, claim = job.targets[order.grant], job.claims[order.grant][order.claim]
    code = target.presented(right=order.right)
    head = (
        f"POST /{target.id} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "User-Agent: Go-http-client/1.1\r\n"
        f"Content-Length: {len(code)}\r\nName: {claim.name}\r\nSubject: {claim.subject}\r\n"
        "Accept-Encoding: gzip\r\n\r\n"
    )
    return head.encode() + code


def serve(pipe: Pipe, ports: Sequence[int]) -> None:
    """Do jobs from `pipe` until there is a None; runs as a process of its own."""
    executor = OverTls(ports)
    while (job := pipe.recv()) is not None:
        pipe.send(executor.run(job))
