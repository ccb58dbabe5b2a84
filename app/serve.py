"""The composition root: everything is built here, once, and handed to what needs it.

Read it from top to bottom to know what a running server consists of.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from app import __version__, ambient, logs
from app.domain.grants import State
from app.domain.limits import Allowance
from app.errors import Unavailable
from app.home import Home, open_home
from app.metrics import Certificate, Metrics
from app.services import reach, standing
from app.services.cluster import Cluster
from app.services.housekeeping import Housekeeping, Keep, Sweeper
from app.services.issuance import Issuance, Policy
from app.services.limits import GrantLocks, PeerLimits
from app.services.redemption import Redeemer
from app.services.theft import TheftAlarm
from app.settings import (
    DEFAULT_URL,
    EVERY_NAMESPACE,
    Address,
    Listen,
    ProxyProtocol,
    Settings,
)
from app.store.ledgers import open_ledger
from app.web import listeners, ops, tls
from app.web.proxies import Proxies
from app.web.redemption import RedemptionApp, request_ids

if TYPE_CHECKING:
    from app.kube.client import Kube
    from app.kube.controller import Controller

GRACE_SECONDS: Final = 15.0
"""What is under way when the server stops has so long: a client gives up after 10 s."""

_NAME: Final = "grantserver"  # of the log
_PRIVATE_UMASK: Final = 0o077
_OPS_LIMITS: Final = listeners.Limits(max_connections=64)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; returns after a clean stop.

    Raises Misconfigured, Unavailable or Unready when the server cannot start.
    """
    set_up(settings)

    async def until_told_to_stop() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(settings, stop=stop)

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


def bind(settings: Settings) -> Sockets:
    """Open the listening sockets. Raises Misconfigured when one of them cannot be had."""
    return Sockets(
        redemption=listeners.bind(str(settings.listen.redemption)),
        ops=listeners.bind(str(settings.listen.ops)),
    )


def prepare(settings: Settings) -> None:
    """Make all that a first start makes, so that workers find it. Raises as `run` does."""
    home = open_home(settings)
    try:
        _certificate(home)
    finally:
        home.database.close()


def tell_ready(settings: Settings, addresses: Addresses, **further: int) -> None:
    """Say in the log that the server accepts, and where."""
    logs.get_logger(_NAME).info(
        "ready",
        version=__version__,
        redemption=str(Address(*addresses.redemption)),
        ops=str(Address(*addresses.ops)),
        reach=settings.reach.url,
        data=str(settings.data.dir),
        **further,
    )


async def serve(
    settings: Settings,
    *,
    stop: asyncio.Event,
    started: Callable[[Addresses], None] | None = None,
    worker: Worker | None = None,
) -> None:
    """Build the server, serve until `stop` is set, and take it down in order.

    `started` is called once, when both listeners accept. A `worker` leaves it to others to say
    in the log when the server comes and goes. Raises as `run` does.
    """
    log = logs.get_logger(_NAME)
    sockets = bind(settings) if worker is None else worker.sockets

    home = open_home(settings)
    certificate = _certificate(home)
    context = tls.server_context(certificate.certificate_pem, certificate.key_pem)

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
    metrics.certificate_ends(Certificate.SERVER, certificate.not_after)

    ledger = open_ledger(
        home.database,
        spacing_seconds=settings.ledger.spacing_seconds,
        on_batch=metrics.committed,
    )
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
    redeemer = Redeemer(
        ledger=ledger,
        locks=locks,
        thefts=thefts,
        issuance=Issuance(
            database=home.database,
            keyring=home.keyring,
            policy=Policy(
                key_type=settings.certificates.key_type,
                lifetime_seconds=settings.certificates.lifetime_seconds,
            ),
            random_bytes=ambient.random_bytes,
        ),
        code_keys=home.code_keys,
        answer_salts=home.answer_salts,
        retry_seconds=settings.grants.retry_window_seconds,
        clock=ambient.utc_now,
        random_bytes=ambient.random_bytes,
    )

    def certificate_is_good() -> None:
        if ambient.utc_now() >= certificate.not_after:
            raise Unavailable("the server certificate has ended: restart the server")

    connections = settings.limits.connections
    redemption_listener = listeners.Listener(
        RedemptionApp(
            redeemer=redeemer,
            peers=PeerLimits(
                _allowance(settings.limits.peer_failures, settings.limits.peer_recovery_seconds),
                monotonic=ambient.monotonic,
            ),
            metrics=metrics,
            log=logs.get_logger("redemption"),
            by_key=settings.grants.redemption_by_key,
            monotonic=ambient.monotonic,
            request_ids=request_ids(ambient.random_bytes),
        ),
        sockets.redemption,
        context=context,
        limits=listeners.Limits(
            max_connections=connections if worker is None else worker.portion(connections),
            handshake_seconds=settings.limits.handshake_seconds,
            request_seconds=settings.limits.request_seconds,
        ),
        proxies=_proxies(settings.listen),
    )
    ops_listener = listeners.Listener(
        ops.create_app(
            registry=registry,
            checks={
                "database": lambda: standing.check_writable(home.database, ambient.utc_now()),
                "certificate": certificate_is_good,
            },
        ),
        sockets.ops,
        limits=_OPS_LIMITS,
        keep_alive=True,
    )

    housekeeping = Housekeeping(
        Sweeper(
            database=home.database,
            keep=Keep(
                grants_seconds=settings.housekeeping.grants_kept_seconds,
                audit_seconds=settings.housekeeping.audit_kept_seconds,
            ),
            clock=ambient.utc_now,
        ),
        every_seconds=settings.housekeeping.interval_seconds,
        monotonic=ambient.monotonic,
        log=logs.get_logger("housekeeping"),
        on_pruned=metrics.pruned,
        on_swept=lambda: metrics.swept(ambient.utc_now()),
    )

    kubernetes = _Kubernetes(home, await _kube(settings))

    await redemption_listener.start()
    await ops_listener.start()
    addresses = Addresses(redemption=redemption_listener.address, ops=ops_listener.address)
    tell = log.debug
    if worker is None:
        tell = log.info
        tell_ready(settings, addresses)
    if started is not None:
        started(addresses)
    if worker is None or worker.number == 0:  # one of them is enough
        housekeeping.start()
        kubernetes.start()
    await stop.wait()

    tell("stopping")
    await kubernetes.stop()
    await redemption_listener.stop(GRACE_SECONDS)
    await asyncio.to_thread(housekeeping.stop)
    await ledger.close()
    await thefts.close()
    await locks.close()
    await ops_listener.stop(1.0)
    home.database.close()
    tell("stopped")


async def _kube(settings: Settings) -> "Kube | None":
    """The way to the API server; None where Kubernetes is turned off."""
    kubernetes = settings.kubernetes
    if not kubernetes.namespaces:
        return None
    # Imported here: it costs 55 MiB, which those who are not on Kubernetes keep.
    from app.kube.opening import open_kube  # noqa: PLC0415

    host, port = kubernetes.api
    return await open_kube(kubernetes.kubeconfig, host=host, port=port)


class _Kubernetes:
    """The serving of AccessGrants beside that of claims; nothing where Kubernetes is turned off."""

    def __init__(self, home: Home, kube: "Kube | None") -> None:
        self._home = home
        self._kube = kube
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._kube is not None:
            self._task = asyncio.create_task(self._controller(self._kube).run())

    async def stop(self) -> None:
        """Give the Lease back, and end all connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._kube is not None:
            await self._kube.close()

    def _controller(self, kube: "Kube") -> "Controller":
        from app.kube.controller import Controller  # noqa: PLC0415
        from app.kube.opening import identity, lease_key  # noqa: PLC0415

        home, settings = self._home, self._home.settings
        namespaces = settings.kubernetes.namespaces
        # Nobody elsewhere can reach the address that stands there when none is given.
        reach = None if settings.reach.url == DEFAULT_URL else home.reach()
        return Controller(
            kube=kube,
            cluster=Cluster(
                database=home.database,
                keyring=home.keyring,
                code_keys=home.code_keys,
                clock=ambient.utc_now,
                random_bytes=ambient.random_bytes,
            ),
            namespaces=None if namespaces == (EVERY_NAMESPACE,) else namespaces,
            lease=lease_key(settings.kubernetes.lease),
            identity=identity(socket.gethostname(), ambient.random_bytes),
            reach=lambda: reach,
            clock=ambient.utc_now,
            instant=ambient.utc_instant,
            monotonic=ambient.monotonic,
            random_bytes=ambient.random_bytes,
            log=logs.get_logger("kubernetes"),
        )


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


def _certificate(home: Home) -> reach.ServerMaterial:
    """The certificate of the redemption listener: the one that is kept, or a new one."""
    return reach.server_material(
        home.database,
        home.keyring,
        hosts=[home.reach().host, *home.settings.reach.hosts],
        now=ambient.utc_now(),
        random_bytes=ambient.random_bytes,
    )
