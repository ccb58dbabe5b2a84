"""What a server does in a Kubernetes cluster beside redeeming, for listening and connecting sites.

The composition of that part, as `app.serve` is of the whole; imported only where Kubernetes is
turned on, for what it stands on costs 55 MiB.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from app import ambient, logs
from app.domain.exposure import Way
from app.home import Home
from app.kube.client import Kube
from app.kube.connecting import Connecting
from app.kube.controller import Controller
from app.kube.exposure.exposing import Exposing
from app.kube.exposure.plan import DEFAULT_PORT, Plan, installation
from app.kube.opening import identity, object_key, open_kube
from app.metrics import Metrics
from app.services.cluster import Cluster
from app.services.serving import Keeper
from app.settings import EVERY_NAMESPACE, Settings
from app.traces import Traces
from app.web import tls

_PAUSE_SECONDS: Final = 5.0  # before what has ended, and must not, is begun again


class InCluster:
    """One candidate for the Lease, whose holder does all of it."""

    def __init__(
        self, home: Home, kube: Kube, keeper: Keeper, metrics: Metrics, traces: Traces | None = None
    ) -> None:
        """Not to be called: `open` is how one is made."""
        self._home = home
        self._kube = kube
        self._keeper = keeper
        self._metrics = metrics
        self._traces = traces

    @classmethod
    async def open(
        cls, home: Home, keeper: Keeper, metrics: Metrics, traces: Traces | None = None
    ) -> "InCluster":
        """Read how to reach the API server, without asking it for anything. Raises Misconfigured.

        `keeper` tells how the server is reached, as tokens have to say it.
        """
        kubernetes = home.settings.kubernetes
        host, port = kubernetes.api
        kube = await open_kube(kubernetes.kubeconfig, host=host, port=port)
        return cls(home, kube, keeper, metrics, traces)

    async def run(self) -> None:
        """Do it whenever we have the Lease, until cancelled; then give that back.

        A controller that ends in another way is begun again: nobody looks at us.
        """
        log = logs.get_logger("kubernetes")
        try:
            while True:
                try:
                    await self._controller().run()
                    log.error("the controller has ended")
                except Exception:
                    log.exception("the controller has failed")
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            await self._kube.close()

    def _controller(self) -> Controller:
        home, settings = self._home, self._home.settings
        namespaces = settings.kubernetes.namespaces
        return Controller(
            kube=self._kube,
            cluster=Cluster(
                database=home.database,
                keyring=home.keyring,
                code_keys=home.code_keys,
                clock=ambient.utc_now,
                random_bytes=ambient.random_bytes,
                ceilings=home.ceilings,
            ),
            namespaces=_named(namespaces),
            lease=object_key(settings.kubernetes.lease),
            identity=identity(socket.gethostname(), ambient.random_bytes),
            reach=lambda: self._keeper.current.reach,
            waiting=lambda: self._keeper.current.waiting,
            clock=ambient.utc_now,
            instant=ambient.utc_instant,
            monotonic=ambient.monotonic,
            random_bytes=ambient.random_bytes,
            log=logs.get_logger("kubernetes"),
            exposing=exposing(settings) if namespaces else None,
            connecting=connecting(settings, self._metrics),
            metrics=self._metrics,
            traces=self._traces,
        )


def connecting(settings: Settings, metrics: Metrics) -> Connecting | None:
    """Whose AccessTokens are redeemed in the cluster; None where that is turned off."""
    namespaces = settings.kubernetes.token_namespaces
    if not namespaces:
        return None
    return Connecting(
        namespaces=_named(namespaces),
        clock=ambient.utc_now,
        monotonic=ambient.monotonic,
        random_bytes=ambient.random_bytes,
        metrics=metrics,
    )


def _named(namespaces: Sequence[str]) -> Sequence[str] | None:
    return None if EVERY_NAMESPACE in namespaces else namespaces


def exposing(settings: Settings) -> Exposing:
    """How the server is to be reached in the cluster that it runs in."""
    exposure = settings.exposure
    objects = object_key(exposure.objects)
    url = settings.reach.url
    gateway = exposure.gateway
    if gateway and "/" not in gateway:
        gateway = f"{objects.namespace}/{gateway}"
    plan = Plan(
        way=Way.URL if exposure.way is Way.AUTO and url else exposure.way,
        objects=objects,
        installation=installation(object_key(settings.kubernetes.lease)),
        deployment=exposure.deployment,
        selector=dict(exposure.selector),
        annotations=dict(exposure.annotations),
        labels=dict(exposure.labels),
        class_name=exposure.class_name,
        load_balancer_ip=exposure.load_balancer_ip,
        host=exposure.host,
        domain=exposure.domain,
        port=exposure.port,
        gateway=object_key(gateway) if gateway else None,
        traffic_policy=exposure.traffic_policy,
        pod_port=settings.listen.redemption.port or DEFAULT_PORT,
    )
    certificate = settings.tls
    ours = certificate.issued_secret if certificate.certificate_file is None else ""
    return Exposing(
        plan=plan,
        rehearse=tls.rehearse,
        issued=object_key(ours) if ours else None,
        kept=object_key(certificate.secret) if certificate.secret else None,
        url=url,
    )
