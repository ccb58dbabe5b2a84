"""The composition root: everything is built here, once, and handed to what needs it.

Read it from top to bottom to know what a running server consists of.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry

from app import __version__, ambient, logs
from app.domain.grants import State
from app.errors import Unavailable
from app.home import open_home
from app.metrics import Certificate, Metrics
from app.services import reach, standing
from app.services.issuance import Issuance, Policy
from app.services.redemption import Redeemer
from app.settings import Address, Settings
from app.store.sqlite_ledger import SqliteLedger
from app.web import listeners, ops, tls
from app.web.redemption import RedemptionApp, request_ids

_GRACE_SECONDS: Final = 15.0  # a client gives up after 10 s: nobody is waiting any longer
_PRIVATE_UMASK: Final = 0o077
_OPS_LIMITS: Final = listeners.Limits(max_connections=64)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; returns after a clean stop.

    Raises Misconfigured, Unavailable or Unready when the server cannot start.
    """
    os.umask(_PRIVATE_UMASK)
    logs.configure(settings.logs.format, settings.logs.level, sys.stderr)

    async def until_told_to_stop() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(settings, stop=stop)

    listeners.run(until_told_to_stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a server listens, once it does: host and port of each listener."""

    redemption: tuple[str, int]
    ops: tuple[str, int]


async def serve(
    settings: Settings,
    *,
    stop: asyncio.Event,
    started: Callable[[Addresses], None] | None = None,
) -> None:
    """Build the server, serve until `stop` is set, and take it down in order.

    `started` is called once, when both listeners accept. Raises as `run` does.
    """
    log = logs.get_logger("grantserver")
    redemption_socket = listeners.bind(str(settings.listen.redemption))
    ops_socket = listeners.bind(str(settings.listen.ops))

    home = open_home(settings)
    own = home.reach()
    certificate = reach.server_material(
        home.database,
        home.keyring,
        hosts=[own.host, *settings.reach.hosts],
        now=ambient.utc_now(),
        random_bytes=ambient.random_bytes,
    )
    context = tls.server_context(certificate.certificate_pem, certificate.key_pem)

    registry = CollectorRegistry()

    def survey() -> Mapping[State, int]:
        for which, not_after in standing.authorities_end(home.database).items():
            metrics.certificate_ends(which, not_after)
        return standing.count_grants(home.database, ambient.utc_now())

    metrics = Metrics(registry, version=__version__, count_grants=survey)
    metrics.certificate_ends(Certificate.SERVER, certificate.not_after)

    ledger = SqliteLedger(
        home.database,
        spacing_seconds=settings.ledger.spacing_seconds,
        on_batch=metrics.committed,
    )
    redeemer = Redeemer(
        ledger=ledger,
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

    redemption_listener = listeners.Listener(
        RedemptionApp(
            redeemer=redeemer,
            metrics=metrics,
            log=logs.get_logger("redemption"),
            by_key=settings.grants.redemption_by_key,
            monotonic=ambient.monotonic,
            request_ids=request_ids(ambient.random_bytes),
        ),
        redemption_socket,
        context=context,
        limits=listeners.Limits(
            max_connections=settings.limits.connections,
            handshake_seconds=settings.limits.handshake_seconds,
            request_seconds=settings.limits.request_seconds,
        ),
    )
    ops_listener = listeners.Listener(
        ops.create_app(
            registry=registry,
            checks={
                "database": lambda: standing.check_writable(home.database, ambient.utc_now()),
                "certificate": certificate_is_good,
            },
        ),
        ops_socket,
        limits=_OPS_LIMITS,
        keep_alive=True,
    )

    await redemption_listener.start()
    await ops_listener.start()
    log.info(
        "ready",
        version=__version__,
        redemption=str(Address(*redemption_listener.address)),
        ops=str(Address(*ops_listener.address)),
        reach=own.url,
        data=str(settings.data.dir),
    )
    if started is not None:
        started(Addresses(redemption=redemption_listener.address, ops=ops_listener.address))
    await stop.wait()

    log.info("stopping")
    await redemption_listener.stop(_GRACE_SECONDS)
    await ledger.close()
    await ops_listener.stop(1.0)
    home.database.close()
    log.info("stopped")
