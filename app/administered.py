"""The admin API's listener: what it stands on, put together.

The composition of that part, as `app.serve` is of the whole; imported only where the API is turned
on, because FastAPI costs memory and time that all others keep.
"""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from app import __version__, ambient, logs
from app.domain.limits import Allowance
from app.errors import Invalid, Misconfigured
from app.home import Home
from app.metrics import Metrics
from app.services.admission import Admission
from app.services.limits import PeerLimits
from app.services.serving import Keeper, Served
from app.web import listeners, tls
from app.web.admin.application import AdminApp, create_app
from app.web.admin.office import Office
from app.web.admin.streams import Streams
from app.web.redemption import request_ids

if TYPE_CHECKING:
    from app.kube.client import Kube

LIMITS = listeners.Limits(max_connections=64, request_seconds=30.0)
"""Automation keeps its connections; so few are enough, and cost the redemptions nothing."""


class Administered:
    """The admin API on a bound socket; start and stop it in the same loop, once."""

    def __init__(
        self,
        listener: listeners.Listener,
        admission: Admission,
        streams: Streams,
        context: Callable[[Served], ssl.SSLContext],
        kube: "Kube | None",
    ) -> None:
        """Not to be called: `open` is how one is made."""
        self._listener = listener
        self._admission = admission
        self._streams = streams
        self._context = context
        self._kube = kube
        self.address = listener.address

    @classmethod
    async def open(
        cls,
        home: Home,
        keeper: Keeper,
        metrics: Metrics,
        listening: socket.socket,
        *,
        allowance: Allowance | None,
    ) -> "Administered":
        """Put it together, without asking anybody for anything. Raises Misconfigured.

        `keeper` tells what certificate is served, and how the server is reached; `allowance` is
        what one address may fail.
        """
        certified = home.certified
        client_ca = _read(home.settings.admin.client_ca_file)

        def context(served: Served) -> ssl.SSLContext:
            try:
                return tls.server_context(
                    served.certificate_pem, served.key_pem, client_ca_pem=client_ca
                )
            except Invalid as error:
                if error.field != "client_ca":
                    raise
                problem = f"GRANTSERVER_ADMIN_CLIENT_CA_FILE: {error.why}"
                raise Misconfigured([problem]) from error

        kube = await _kube(home) if home.settings.admin.accounts else None
        reviews = None
        if kube is not None:
            from app.kube.reviews import KubeReviews  # noqa: PLC0415 - as all that is Kubernetes

            reviews = KubeReviews(kube, monotonic=ambient.monotonic)
        admission = Admission(
            database=home.database,
            token_keys=home.admin_token_keys,
            certificates=certified,
            reviews=reviews,
            limits=PeerLimits(allowance, monotonic=ambient.monotonic),
            clock=ambient.utc_now,
        )
        office = Office(
            database=home.database,
            keyring=home.keyring,
            code_keys=home.code_keys,
            token_keys=home.admin_token_keys,
            ceilings=home.ceilings,
            reach=lambda: (keeper.current.reach, keeper.current.waiting),
            clock=ambient.utc_now,
            monotonic=ambient.monotonic,
            random_bytes=ambient.random_bytes,
            version=__version__,
        )
        listener = listeners.Listener(
            AdminApp(
                app=create_app(office),
                admission=admission,
                metrics=metrics,
                log=logs.get_logger("admin"),
                monotonic=ambient.monotonic,
                request_ids=request_ids(ambient.random_bytes),
            ),
            listening,
            context=context(keeper.current),
            limits=LIMITS,
            keep_alive=True,
            client_certificates=client_ca is not None,
        )
        return cls(listener, admission, office.streams, context, kube)

    def secure(self, served: Served) -> None:
        """Serve with another certificate from the next connection on."""
        self._listener.secure(self._context(served))

    async def start(self) -> None:
        """Begin to accept connections."""
        await self._listener.start()

    async def stop(self, grace_seconds: float) -> None:
        """Accept no more, and let what is under way finish within `grace_seconds`."""
        self._streams.closing.set()
        await self._listener.stop(grace_seconds)
        await self._admission.close()
        if self._kube is not None:
            await self._kube.close()


async def _kube(home: Home) -> "Kube":
    from app.kube.opening import open_kube  # noqa: PLC0415 - costs 55 MiB

    kubernetes = home.settings.kubernetes
    host, port = kubernetes.api
    return await open_kube(kubernetes.kubeconfig, host=host, port=port)


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        problem = f"GRANTSERVER_ADMIN_CLIENT_CA_FILE: {path}: {error.strerror}"
        raise Misconfigured([problem]) from error
