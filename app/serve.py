"""The composition root: everything is built here, once, and handed to what needs it.

Read it from top to bottom to know what a running server consists of.
"""

import asyncio
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from app import __version__, ambient, logs
from app.domain.grants import State
from app.domain.limits import Allowance
from app.home import Home, open_home, rotation_times
from app.metrics import Certificate, Metrics, Stage
from app.services import rotation, standing
from app.services.attempts import Attempts
from app.services.audit_chain import Sealing
from app.services.courier import Courier
from app.services.expiring import ExpiryNotices
from app.services.housekeeping import Housekeeping, Keep, Sweeper
from app.services.issuance import Issuance, Policy
from app.services.limits import GrantLocks, PeerLimits
from app.services.redemption import Redeemer
from app.services.renewal import Renewer
from app.services.revocation_lists import RevocationLists
from app.services.self_check import SelfCheck, Target
from app.services.serving import Keeper, Served
from app.services.theft import TheftAlarm
from app.settings import Address, Listen, ProxyProtocol, Settings
from app.store.ledgers import open_ledger
from app.traces import Traces, open_traces
from app.web import listeners, ops, tls
from app.web.proxies import Proxies
from app.web.redemption import RedemptionApp, request_ids

if TYPE_CHECKING:
    from app.administered import Administered
    from app.in_cluster import InCluster

GRACE_SECONDS: Final = 15.0
"""What is under way when the server stops has so long: a client gives up after 10 s."""

DATABASE_SECONDS: Final = 10.0
"""What hangs on the database when the server stops has so long: no client waits for it then."""

END_SECONDS: Final = GRACE_SECONDS + 4.0
"""After that a process leaves even what cannot be ended, which is a thread that never returns."""

_NAME: Final = "grantserver"  # of the log
_PRIVATE_UMASK: Final = 0o077
_OPS_LIMITS: Final = listeners.Limits(max_connections=64)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; returns after a clean stop.

    Raises Misconfigured, Unavailable or Unready when the server cannot start.
    """
    set_up(settings)

    async def until_told_to_stop() -> None:
        loop, stop, look = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

        def told() -> None:
            if not stop.is_set():
                leave_at_last()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told)
        loop.add_signal_handler(signal.SIGHUP, look.set)
        await serve(settings, stop=stop, look=look)

    listeners.run(until_told_to_stop)


def set_up(settings: Settings) -> None:
    """Do what is done once in each process of a server, before anything else."""
    os.umask(_PRIVATE_UMASK)
    logs.configure(settings.logs.format, settings.logs.level, sys.stderr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """The listening sockets of a server, bound but not served yet."""

    redemption: socket.socket
    ops: socket.socket
    admin: socket.socket | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What makes a process one of several that are one server: numbers begin with 0."""

    number: int
    of: int
    sockets: Sockets

    def portion(self, whole: int) -> int:
        """Its part of what all of them may have together, at least 1."""
        return max(1, (whole + self.number) // self.of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a server listens, once it does: host and port of each listener."""

    redemption: tuple[str, int]
    ops: tuple[str, int]
    admin: tuple[str, int] | None = None


def bind(settings: Settings) -> Sockets:
    """Open the listening sockets. Raises Misconfigured when one of them cannot be had."""
    return Sockets(
        redemption=listeners.bind(str(settings.listen.redemption)),
        ops=listeners.bind(str(settings.listen.ops)),
        admin=None if (admin := settings.listen.admin) is None else listeners.bind(str(admin)),
    )


def prepare(settings: Settings) -> Served:
    """Make all that a first start makes, so that workers find it. Raises as `run` does."""
    home = open_home(settings)
    try:
        return _keeper(home).current
    finally:
        home.database.close()


def tell_ready(settings: Settings, addresses: Addresses, served: Served, **further: int) -> None:
    """Say in the log that the server accepts, and where."""
    logs.get_logger(_NAME).info(
        "ready",
        version=__version__,
        redemption=str(Address(*addresses.redemption)),
        ops=str(Address(*addresses.ops)),
        **({} if addresses.admin is None else {"admin": str(Address(*addresses.admin))}),
        reach=served.waiting if served.reach is None else served.reach.url,
        data=str(settings.data.dir),
        **further,
    )


async def serve(
    settings: Settings,
    *,
    stop: asyncio.Event,
    started: Callable[[Addresses], None] | None = None,
    worker: Worker | None = None,
    look: asyncio.Event | None = None,
) -> None:
    """Build the server, serve until `stop` is set, and take it down in order.

    `started` is called once, when both listeners accept. A `worker` leaves it to others to say
    in the log when the server comes and goes. Whenever `look` is set, the server looks at its
    certificate and its addresses at once. Raises as `run` does.
    """
    log = logs.get_logger(_NAME)
    sockets = bind(settings) if worker is None else worker.sockets

    home = open_home(settings)
    keeper = _keeper(home, look)

    registry = CollectorRegistry()

    def survey() -> Mapping[State, int]:
        for which, not_after in standing.authorities_end(home.database).items():
            metrics.certificate_ends(which, not_after)
        return standing.count_grants(home.database, ambient.utc_now())

    metrics = Metrics(
        registry,
        version=__version__,
        count_grants=survey,
        worker=None if worker is None else worker.number,
    )
    _tell(metrics, home, keeper)

    traces = open_traces(
        settings.traces.endpoint,
        version=__version__,
        worker=None if worker is None else worker.number,
    )

    ledger = open_ledger(
        home.database,
        spacing_seconds=settings.ledger.spacing_seconds,
        on_batch=metrics.committed,
    )
    locks, thefts, attempts = _watchers(settings, home, metrics)
    issuance = Issuance(
        database=home.database,
        keyring=home.keyring,
        policy=Policy(
            key_type=settings.certificates.key_type,
            lifetime_seconds=settings.certificates.lifetime_seconds,
        ),
        random_bytes=ambient.random_bytes,
    )

    redemption_listener = listeners.Listener(
        RedemptionApp(
            redeemer=Redeemer(
                ledger=ledger,
                locks=locks,
                thefts=thefts,
                attempts=attempts,
                issuance=issuance,
                code_keys=home.code_keys,
                answer_salts=home.answer_salts,
                retry_seconds=settings.grants.retry_window_seconds,
                clock=ambient.utc_now,
                monotonic=ambient.monotonic,
                random_bytes=ambient.random_bytes,
                on_stage=_on_stage(metrics, traces),
            ),
            renewer=Renewer(
                ledger=ledger,
                issuance=issuance,
                overlap_seconds=settings.certificates.overlap_seconds,
                reach=lambda: keeper.current.reach,
                clock=ambient.utc_now,
            ),
            lists=RevocationLists(
                database=home.database,
                keyring=home.keyring,
                clock=ambient.utc_now,
                monotonic=ambient.monotonic,
            ),
            peers=PeerLimits(
                _allowance(settings.limits.peer_failures, settings.limits.peer_recovery_seconds),
                monotonic=ambient.monotonic,
            ),
            metrics=metrics,
            log=logs.get_logger("redemption"),
            by_key=settings.grants.redemption_by_key,
            monotonic=ambient.monotonic,
            request_ids=request_ids(ambient.random_bytes),
            traces=traces,
        ),
        sockets.redemption,
        context=_context(keeper.current),
        limits=listeners.Limits(
            max_connections=_portion(settings.limits.connections, worker),
            handshake_seconds=settings.limits.handshake_seconds,
            request_seconds=settings.limits.request_seconds,
        ),
        proxies=_proxies(settings.listen),
        on_handshake=metrics.shaken_hands,
    )
    ops_listener = listeners.Listener(
        ops.create_app(
            registry=registry,
            checks={
                "database": lambda: standing.check_writable(home.database, ambient.utc_now()),
                "certificate": keeper.check_valid,
            },
            details={"public_address": lambda: metrics.last_look().value},
        ),
        sockets.ops,
        limits=_OPS_LIMITS,
        keep_alive=True,
    )

    housekeeping, sealing = _threads(settings, home, metrics)

    self_check = SelfCheck(
        lambda: _target(keeper.current),
        clock=ambient.utc_now,
        log=logs.get_logger("self-check"),
        on_look=metrics.looked,
    )

    first = worker is None or worker.number == 0  # one of them is enough
    admin = await _administered(home, keeper, metrics, sockets) if first else None

    def serve_with(served: Served) -> None:
        redemption_listener.secure(_context(served))
        _secure(admin, served)
        metrics.certificate_ends(Certificate.SERVER, served.not_after)
        self_check.check_soon()

    keeper.on_change(serve_with)

    cluster = await _cluster(home, keeper, metrics, traces) if first else None

    addresses = await _start(redemption_listener, ops_listener, admin)
    tell = log.info if worker is None else log.debug
    if worker is None:
        tell_ready(settings, addresses, keeper.current)
    if started is not None:
        started(addresses)
    tasks = [asyncio.create_task(keeper.run())]
    if first:
        for thread in (housekeeping, sealing):
            thread.start()
        tasks.append(asyncio.create_task(self_check.run()))
        tasks.append(asyncio.create_task(_courier(home, metrics).run()))
    if cluster is not None:
        tasks.append(asyncio.create_task(cluster.run()))
    await stop.wait()

    tell("stopping")
    hangs = asyncio.get_running_loop().call_later(DATABASE_SECONDS, home.database.abandon)
    await asyncio.gather(
        _end(tasks),
        redemption_listener.stop(GRACE_SECONDS),
        _stop(admin),
    )
    await asyncio.to_thread(housekeeping.stop)
    for one in (ledger, thefts, locks, attempts):
        await one.close()
    await asyncio.gather(asyncio.to_thread(sealing.stop), ops_listener.stop(1.0), _close(traces))
    hangs.cancel()
    home.database.close()
    tell("stopped")


def _watchers(
    settings: Settings, home: Home, metrics: Metrics
) -> tuple[GrantLocks, TheftAlarm, Attempts]:
    """Build what writes down, beside redemptions, who got nothing."""
    locks = GrantLocks(
        _allowance(settings.limits.grant_failures, settings.limits.grant_recovery_seconds),
        database=home.database,
        clock=ambient.utc_now,
        on_lock=metrics.locked,
    )
    thefts = TheftAlarm(
        database=home.database,
        revoke=settings.grants.revoke_on_theft,
        on_suspicion=metrics.suspected_theft,
    )
    attempts = Attempts(database=home.database, clock=ambient.utc_now)
    return locks, thefts, attempts


def _threads(settings: Settings, home: Home, metrics: Metrics) -> tuple[Housekeeping, Sealing]:
    """Build what goes on beside redemptions in threads: one process of a server does it."""
    chain = home.audit_chain
    housekeeping = Housekeeping(
        Sweeper(
            database=home.database,
            chain=chain,
            keep=Keep(
                grants_seconds=settings.housekeeping.grants_kept_seconds,
                audit_seconds=settings.housekeeping.audit_kept_seconds,
            ),
            clock=ambient.utc_now,
        ),
        every_seconds=settings.housekeeping.interval_seconds,
        advance=lambda: rotation.keep_up(
            home.database,
            home.keyring,
            times=rotation_times(settings),
            now=ambient.utc_now(),
            random_bytes=ambient.random_bytes,
        ),
        announce=ExpiryNotices(
            database=home.database,
            ahead_seconds=settings.events.expiring_seconds,
            clock=ambient.utc_now,
        ).sweep,
        monotonic=ambient.monotonic,
        log=logs.get_logger("housekeeping"),
        on_pruned=metrics.pruned,
        on_swept=lambda: metrics.swept(ambient.utc_now()),
    )

    sealing = Sealing(chain, monotonic=ambient.monotonic, log=logs.get_logger("audit"))
    return housekeeping, sealing


def _courier(home: Home, metrics: Metrics) -> Courier:
    """Build what carries events to webhooks: one process of a server does it."""
    return Courier(
        database=home.database,
        keyring=home.keyring,
        clock=ambient.utc_now,
        random_bytes=ambient.random_bytes,
        log=logs.get_logger("webhooks"),
        on_outcome=metrics.delivery_tried,
        on_pending=metrics.deliveries_pending,
    )


def _tell(metrics: Metrics, home: Home, keeper: Keeper) -> None:
    """Have metrics know what is known already, and what becomes of the database."""
    metrics.certificate_ends(Certificate.SERVER, keeper.current.not_after)
    home.database.observe(on_error=metrics.database_failed, on_use=metrics.database_used)


def _on_stage(metrics: Metrics, traces: Traces | None) -> Callable[[Stage, float], None]:
    """Give what is told how long the stages of a redemption took: nothing more than is wanted."""
    if traces is None:
        return metrics.stage

    def both(stage: Stage, seconds: float) -> None:
        metrics.stage(stage, seconds)
        traces.stage(stage, seconds)

    return both


async def _close(traces: Traces | None) -> None:
    if traces is not None:
        await asyncio.to_thread(traces.close)


async def _start(
    redemption: listeners.Listener, ops_listener: listeners.Listener, admin: "Administered | None"
) -> Addresses:
    """Begin to accept connections everywhere; tells where."""
    for listener in (redemption, ops_listener, admin):
        if listener is not None:
            await listener.start()
    return Addresses(
        redemption=redemption.address,
        ops=ops_listener.address,
        admin=None if admin is None else admin.address,
    )


def _secure(admin: "Administered | None", served: Served) -> None:
    if admin is not None:
        admin.secure(served)


async def _stop(admin: "Administered | None") -> None:
    if admin is not None:
        await admin.stop(GRACE_SECONDS)


async def _administered(
    home: Home, keeper: Keeper, metrics: Metrics, sockets: Sockets
) -> "Administered | None":
    """Build the admin API; None where it is turned off."""
    if sockets.admin is None:
        return None
    # Imported here: it costs memory and time, which those who turn it off keep.
    from app.administered import Administered  # noqa: PLC0415

    limits = home.settings.limits
    return await Administered.open(
        home,
        keeper,
        metrics,
        sockets.admin,
        allowance=_allowance(limits.peer_failures, limits.peer_recovery_seconds),
    )


async def _cluster(
    home: Home, keeper: Keeper, metrics: Metrics, traces: Traces | None
) -> "InCluster | None":
    """What is to be done in a cluster; None where Kubernetes is turned off."""
    kubernetes = home.settings.kubernetes
    if not kubernetes.namespaces and not kubernetes.token_namespaces:
        return None
    # Imported here: it costs 55 MiB, which those who are not on Kubernetes keep.
    from app.in_cluster import InCluster  # noqa: PLC0415

    return await InCluster.open(home, keeper, metrics, traces)


def leave_at_last() -> None:
    """End this process in a while, whatever it does then; what was answered is on the disk."""

    def leave() -> None:
        logs.get_logger(_NAME).warning("something hangs, and was left behind at the end")
        os._exit(0)

    last = threading.Timer(END_SECONDS, leave)
    last.daemon = True
    last.start()


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _portion(whole: int, worker: Worker | None) -> int:
    """The part of this process of what all of them may have together."""
    return whole if worker is None else worker.portion(whole)


def _allowance(failures: int, recovery_seconds: float) -> Allowance | None:
    """Make an allowance of the two settings; none where the limit is turned off."""
    if not failures:
        return None
    return Allowance(burst=failures, interval=round(recovery_seconds * 1000))


def _proxies(listen: Listen) -> Proxies | None:
    """What stands before the redemption listener; None where clients connect to it themselves."""
    headers = listen.proxy_protocol is ProxyProtocol.REQUIRED
    if not (headers or listen.proxy_sources):
        return None
    return Proxies(sources=listen.proxy_sources, headers=headers)


def _keeper(home: Home, look: asyncio.Event | None = None) -> Keeper:
    """Look for the first time at what is to be served."""
    return Keeper(
        home.source,
        check=tls.server_context,
        rehearse=tls.rehearse,
        clock=ambient.utc_now,
        monotonic=ambient.monotonic,
        log=logs.get_logger("serving"),
        woken=look,
    )


def _target(served: Served) -> Target:
    """What there is at our public address, if all is well."""
    ours = frozenset({served.fingerprint})
    if served.reach is None:
        return Target(url="", ca_pem="", ours=ours, waiting=served.waiting)
    return Target(url=served.reach.url, ca_pem=served.reach.ca_pem, ours=ours)


def _context(served: Served) -> ssl.SSLContext:
    return tls.server_context(served.certificate_pem, served.key_pem)
