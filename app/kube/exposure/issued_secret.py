"""The Secret that our own certificate is written to, for those who look for it in the cluster.

It is a projection of what the database has, and nobody of ours reads it.
"""

import asyncio
import base64
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

from structlog.stdlib import BoundLogger

from app.errors import GrantServerError
from app.kube.backoff import Backoff
from app.kube.client import Kube
from app.kube.exposure.keeping import Keeping
from app.kube.exposure.objects import is_ours, kept, owned_by
from app.kube.exposure.owner import owner
from app.kube.exposure.plan import MARK
from app.kube.informer import Informer, Pace
from app.kube.queue import Queue
from app.kube.recorder import Recorder
from app.kube.resources import SECRETS, Key, Object
from app.kube.threads import in_thread
from app.services import tls_secrets
from app.services.cluster import Cluster
from app.services.tls_secrets import TlsSecret

LOOK_SECONDS: Final = 2.0
"""Between two looks at what is served."""

_BACKOFF: Final = Backoff(base_seconds=0.2, most_seconds=30.0)


class IssuedSecret:
    """Keeps the Secret `key`, owned by `deployment` of its namespace if there is one.

    Made anew for each time of leading.
    """

    def __init__(
        self,
        kube: Kube,
        key: Key,
        cluster: Cluster,
        recorder: Recorder,
        *,
        installation: str,
        deployment: str,
        pace: Pace,
        monotonic: Callable[[], float],
        log: BoundLogger,
    ) -> None:
        self._kube = kube
        self._key = key
        self._database = cluster.database
        self._keyring = cluster.keyring
        self._installation = installation
        self._deployment = deployment
        self._log = log
        self._keeping = Keeping(kube, installation, recorder, monotonic=monotonic, log=log)
        self._queue: Queue[Literal["secret"]] = Queue(
            self._keep, workers=1, backoff=_BACKOFF, random_bytes=cluster.random_bytes, log=log
        )
        self._informer = Informer(
            kube,
            SECRETS,
            namespaces=[key.namespace],
            transform=partial(kept_of_ours, installation=installation),
            field_selector=f"metadata.name={key.name}",
            pace=pace,
            random_bytes=cluster.random_bytes,
            log=log,
        )
        self._informer.on_change(lambda _: self._queue.add("secret"))

    async def run(self) -> None:
        """Keep it as it is to be, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._informer.run())
                await self._informer.wait_synced()
                self._queue.start()
                group.create_task(self._look())
        finally:
            await self._queue.stop()

    async def _look(self) -> None:
        """Notice when something else is served."""
        before: object = None
        while True:
            try:
                mark = await in_thread(tls_secrets.mark, self._database)
            except GrantServerError as error:
                self._log.debug("the database cannot be read", why=str(error))
            else:
                if mark != before:
                    self._queue.add("secret")
                before = mark
            await asyncio.sleep(LOOK_SECONDS)

    async def _keep(self, _: str) -> float | None:
        issued = await in_thread(tls_secrets.issued, self._database, self._keyring)
        if issued is None:
            return None
        body = owned_by(self._body(issued), await owner(self._kube, self._key, self._deployment))
        outcome = await self._keeping.keep(SECRETS, self._informer.get(self._key), body)
        return outcome.again

    def _body(self, issued: TlsSecret) -> Object:
        return {
            "metadata": {
                "name": self._key.name,
                "namespace": self._key.namespace,
                "labels": {
                    "app.kubernetes.io/managed-by": "grantserver",
                    MARK: self._installation,
                },
            },
            "type": "kubernetes.io/tls",
            "data": {
                "tls.crt": base64.b64encode(issued.certificate_pem).decode(),
                "tls.key": base64.b64encode(issued.key_pem).decode(),
                "ca.crt": base64.b64encode(issued.ca_pem).decode(),
            },
        }


def kept_of_ours(found: Object, installation: str) -> Object:
    """Give what an informer keeps of a Secret: its content only if it is ours."""
    made = kept(found)
    if not is_ours(made, installation):
        made.pop("data", None)
    return made
