"""Several processes that are one server: started with the same sockets, watched, ended together.

What each of them does is the matter of `app.serve`, and with one worker there is nothing here
but a call of it. The parent serves nobody: it binds the sockets, makes what a first start makes,
and keeps every place filled.
"""

import asyncio
import contextlib
import pickle
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from app import ambient, logs, serve
from app.errors import Broken, GrantServerError, Unavailable
from app.metrics import WORKERS_DIR
from app.serve import Addresses, Sockets, Worker
from app.services.serving import Served
from app.settings import Settings, tell_library
from app.web import listeners

GRACE_SECONDS: Final = serve.GRACE_SECONDS + 4.0
"""A worker that has been told to stop has so long; it cuts its clients some seconds before."""

LEAST_PAUSE_SECONDS: Final = 0.1
MOST_PAUSE_SECONDS: Final = 30.0
"""Between the death of a worker and its replacement: twice as long each time, up to this."""

SETTLED_SECONDS: Final = 60.0
"""A worker that lived for so long did not die of its start, and the pauses begin anew."""

_PROGRAM: Final = """\
import sys
sys.path[:] = sys.argv[2:]
from app.workers import work
work(int(sys.argv[1]))
"""
_NOT_YET: Final = frozenset({signal.SIGINT, signal.SIGHUP})
_LENGTH: Final = struct.Struct("!I")

_log = logs.get_logger("grantserver")


def run(settings: Settings) -> None:
    """Serve with as many processes as the settings want, until SIGTERM or SIGINT.

    Raises Misconfigured, Unavailable or Unready when the server cannot start, in whichever
    process that shows; all others are ended then.
    """
    if settings.workers == 1:
        serve.run(settings)
        return
    serve.set_up(settings)
    sockets = serve.bind(settings)
    with sockets.redemption, sockets.ops:
        served = serve.prepare(settings)
        with _directory() as counts, sockets.admin or contextlib.nullcontext():
            asyncio.run(_Crew(settings, sockets, served, counts).serve())


@contextlib.contextmanager
def _directory() -> Iterator[str]:
    """A directory for what the workers count, for as long as the server runs."""
    try:
        made = tempfile.TemporaryDirectory(
            prefix="grantserver-workers-", ignore_cleanup_errors=True
        )
    except OSError as error:
        raise Unavailable(f"no directory for temporary files: {error.strerror}") from error
    with made as path:
        yield path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Orders:
    """What a worker is told: the listening sockets by their descriptors, which it inherits."""

    settings: Settings
    number: int
    counts: str
    redemption: int
    ops: int
    admin: int | None


# The parent


class _Crew:
    """The workers of one server, each in a place of its own that is never empty for long."""

    def __init__(self, settings: Settings, sockets: Sockets, served: Served, counts: str) -> None:
        self._settings = settings
        self._sockets = sockets
        self._served = served
        self._counts = counts
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._stop = asyncio.Event()

    async def serve(self) -> None:
        """Start all, keep their places filled, and end all when told to, or when one cannot."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        first: list[asyncio.Future[None]] = [
            loop.create_future() for _ in range(self._settings.workers)
        ]
        places = [
            asyncio.create_task(self._keep(number, ready)) for number, ready in enumerate(first)
        ]
        told = asyncio.create_task(self._stop.wait())
        try:
            everybody = asyncio.gather(*first)
            await _any_of(everybody, told, *places)
            if everybody.done():
                await everybody
                self._tell_ready()
                await _any_of(told, *places)
                _log.info("stopping")
            else:
                everybody.cancel()
        finally:
            self._stop.set()
            self._sockets.redemption.close()
            self._sockets.ops.close()
            if self._sockets.admin is not None:
                self._sockets.admin.close()
            await self._end(places)
        await asyncio.gather(*places)
        _log.info("stopped")

    def _pass_on(self, number: signal.Signals) -> None:
        for process in self._alive:
            process.send_signal(number)

    def _tell_ready(self) -> None:
        redemption, ops = (
            one.getsockname()[:2] for one in (self._sockets.redemption, self._sockets.ops)
        )
        serve.tell_ready(
            self._settings,
            Addresses(
                redemption=redemption,
                ops=ops,
                admin=None
                if self._sockets.admin is None
                else self._sockets.admin.getsockname()[:2],
            ),
            self._served,
            workers=self._settings.workers,
        )

    async def _keep(self, number: int, ready: asyncio.Future[None]) -> None:
        """Keep one place filled until the server stops; `ready` tells of the first worker there.

        Where that one cannot start, nothing is tried again.
        """
        pause = LEAST_PAUSE_SECONDS
        while not self._stop.is_set():
            began = ambient.monotonic()
            try:
                why = await self._fill(number, ready)
            except GrantServerError as error:
                if not ready.done():
                    ready.set_exception(error)
                    return
                why = str(error)
            if self._stop.is_set():
                return
            if ambient.monotonic() - began > SETTLED_SECONDS:
                pause = LEAST_PAUSE_SECONDS
            _log.error("a worker died and is replaced", worker=number, why=why, seconds=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
            pause = min(2 * pause, MOST_PAUSE_SECONDS)

    async def _fill(self, number: int, ready: asyncio.Future[None]) -> str:
        """Start a worker and wait for its end; say how that was.

        Raises what kept it from starting.
        """
        process, line = self._start(number)
        self._alive.add(process)
        was_ready = False
        try:
            reader, writer = await asyncio.open_connection(sock=line)
            with contextlib.closing(writer), contextlib.suppress(OSError):
                writer.write(pickle.dumps(self._orders(number)))
                was_ready = await _is_ready(reader)
                if was_ready and not ready.done():
                    ready.set_result(None)
                elif was_ready:
                    _log.info("a worker is ready", worker=number, pid=process.pid)
                await reader.read()
        finally:
            status = await asyncio.to_thread(process.wait)
            self._alive.discard(process)
        if not was_ready:
            raise Unavailable(f"worker {number} ended before it was ready: {_ending(status)}")
        return _ending(status)

    def _start(self, number: int) -> tuple["subprocess.Popen[bytes]", socket.socket]:
        """Start a process that knows nothing yet, and give our end of the line to it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        inherited = (theirs.fileno(), *self._descriptors())
        with theirs:
            # Ctrl-C goes to every process of the terminal, and SIGHUP is passed on to all: those
            # must not know of either until they can ignore it.
            signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_YET)
            try:
                process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                    [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *sys.path],
                    stdin=subprocess.DEVNULL,
                    pass_fds=inherited,
                )
            except OSError as error:
                ours.close()
                raise Unavailable(f"worker {number} cannot be started: {error.strerror}") from error
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOT_YET)
        return process, ours

    def _orders(self, number: int) -> _Orders:
        redemption, ops, *admin = self._descriptors()
        return _Orders(
            settings=self._settings,
            number=number,
            counts=self._counts,
            redemption=redemption,
            ops=ops,
            admin=admin[0] if admin else None,
        )

    def _descriptors(self) -> tuple[int, ...]:
        sockets = self._sockets
        every = (sockets.redemption, sockets.ops, sockets.admin)
        return tuple(one.fileno() for one in every if one is not None)

    async def _end(self, places: list["asyncio.Task[None]"]) -> None:
        """End every worker: gracefully, and by force those that take too long."""
        for process in self._alive:
            process.terminate()
        _, late = await asyncio.wait(places, timeout=GRACE_SECONDS)
        if late:
            _log.warning("workers were killed at the end", workers=len(self._alive))
            for process in self._alive:
                process.kill()
            await asyncio.wait(late)


async def _any_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _is_ready(reader: asyncio.StreamReader) -> bool:
    """Wait for a worker's first word; False when it ended without one. Raises its error."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        said = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return False
    failure: _Failure | None = pickle.loads(said)  # noqa: S301 - our own child wrote it
    if failure is not None:
        raise failure.error()
    return True


def _ending(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit code {status}"


# The worker


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """An error on its way to the parent: pickle would call its class with the finished text."""

    kind: type[GrantServerError]
    arguments: tuple[object, ...]
    facts: dict[str, Any]

    @classmethod
    def of(cls, error: GrantServerError) -> "_Failure":
        return cls(kind=type(error), arguments=error.args, facts=vars(error))

    def error(self) -> GrantServerError:
        error = self.kind.__new__(self.kind, *self.arguments)
        vars(error).update(self.facts)
        return error


def work(descriptor: int) -> NoReturn:
    """Be a worker until told to stop, or until the parent is gone: the line to it ends then.

    `descriptor` is that line. The parent tells there what to do, and hears the error of a
    start that failed, or that all is ready.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is nothing yet that could be looked at
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOT_YET)
    line = _Line(descriptor)
    try:
        orders = line.orders()
    except EOFError:
        sys.exit(1)
    serve.set_up(orders.settings)
    tell_library(WORKERS_DIR, orders.counts)
    try:
        listeners.run(lambda: _serve(orders, line))
    except GrantServerError as error:
        line.fail(error)
    except Exception as error:  # noqa: BLE001 - it ends here, and the parent is told
        _log.debug("a worker failed", exc_info=True)
        line.fail(
            Broken(
                f"a worker met what was not foreseen ({type(error).__name__}): "
                "GRANTSERVER_LOGS_LEVEL=debug shows where"
            )
        )
    else:
        if line.ended:
            shutil.rmtree(orders.counts, ignore_errors=True)  # nobody else will
        sys.exit(0)
    sys.exit(1)


async def _serve(orders: _Orders, line: "_Line") -> None:
    loop, stop, look = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGHUP, look.set)
    line.watch(stop)
    await serve.serve(
        orders.settings,
        stop=stop,
        look=look,
        started=lambda _: line.say_ready(),
        worker=Worker(
            number=orders.number,
            of=orders.settings.workers,
            sockets=Sockets(
                redemption=_socket(orders.redemption),
                ops=_socket(orders.ops),
                admin=None if orders.admin is None else _socket(orders.admin),
            ),
        ),
    )


def _socket(descriptor: int) -> socket.socket:
    inherited = socket.socket(fileno=descriptor)
    inherited.set_inheritable(False)
    inherited.setblocking(False)
    return inherited


class _Line:
    """A worker's end of the line to its parent."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        self._ready = False
        self.ended = False

    def orders(self) -> _Orders:
        """Wait for what the parent tells. Raises EOFError when it is gone."""
        with self._socket.makefile("rb") as stream:
            orders: _Orders = pickle.load(stream)  # noqa: S301 - our own parent wrote it
        return orders

    def watch(self, stop: asyncio.Event) -> None:
        """Set `stop` once the parent is gone."""
        loop = asyncio.get_running_loop()

        def readable() -> None:  # the parent says nothing more: this is the end of it
            loop.remove_reader(self._socket)
            self.ended = True
            _log.warning("the parent is gone: stopping")
            serve.leave_at_last()
            stop.set()

        loop.add_reader(self._socket, readable)

    def say_ready(self) -> None:
        """Tell that this worker accepts."""
        self._ready = True
        self._send(None)

    def fail(self, error: GrantServerError) -> None:
        """Tell what kept this worker from starting; later, only the log is left for it."""
        if self._ready:
            _log.error("a worker failed", why=str(error))
        else:
            self._send(_Failure.of(error))

    def _send(self, what: _Failure | None) -> None:
        content = pickle.dumps(what)
        with contextlib.suppress(OSError):  # then there is nobody to be told
            self._socket.sendall(_LENGTH.pack(len(content)) + content)
