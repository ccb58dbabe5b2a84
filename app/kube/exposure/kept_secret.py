"""The Secret in which somebody else keeps our certificate: brought to everybody when it changes.

cert-manager keeps such Secrets. One that clients could not use is told of and left; what was shown
before is shown until there is a good one.
"""

import asyncio
import base64
import binascii
from typing import Final, Literal

from structlog.stdlib import BoundLogger

from app.errors import Invalid
from app.kube.backoff import Backoff
from app.kube.client import Kube
from app.kube.informer import Informer, Pace
from app.kube.queue import Queue
from app.kube.recorder import Importance, Recorder
from app.kube.resources import SECRETS, Key, Object
from app.kube.threads import in_thread
from app.services import tls_secrets
from app.services.cluster import Cluster
from app.services.serving import Rehearsal
from app.services.tls_secrets import TlsSecret

LOOK_SECONDS: Final = 10.0
"""Between two looks at a Secret that has not changed: time passes, and addresses change."""

_BACKOFF: Final = Backoff(base_seconds=0.2, most_seconds=30.0)
_PARTS: Final = {"certificate": "tls.crt", "key": "tls.key", "ca": "ca.crt"}


class KeptSecret:
    """Brings the Secret `key` into the database.

    `url` is the base URL of tokens where it was set, else empty; `rehearse` tells whether clients
    would go on with a certificate. Made anew for each time of leading.
    """

    def __init__(
        self,
        kube: Kube,
        key: Key,
        cluster: Cluster,
        recorder: Recorder,
        *,
        url: str,
        rehearse: Rehearsal,
        pace: Pace,
        log: BoundLogger,
    ) -> None:
        self._key = key
        self._cluster = cluster
        self._recorder = recorder
        self._url = url
        self._rehearse = rehearse
        self._log = log
        self._told = ("", "")  # of which version of the Secret, and what
        self._queue: Queue[Literal["secret"]] = Queue(
            self._take, workers=1, backoff=_BACKOFF, random_bytes=cluster.random_bytes, log=log
        )
        self._informer = Informer(
            kube,
            SECRETS,
            namespaces=[key.namespace],
            transform=_kept,
            field_selector=f"metadata.name={key.name}",
            pace=pace,
            random_bytes=cluster.random_bytes,
            log=log,
        )
        self._informer.on_change(lambda _: self._queue.add("secret"))

    async def run(self) -> None:
        """Take what comes, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._informer.run())
                await self._informer.wait_synced()
                self._queue.add("secret")
                self._queue.start()
        finally:
            await self._queue.stop()

    async def _take(self, _: str) -> float | None:
        found = self._informer.get(self._key)
        if found is None:
            self._tell(None, "it is not there")
            return None
        try:
            taken = await in_thread(
                tls_secrets.take,
                *(self._cluster.database, self._cluster.keyring, _read(found)),
                secret=str(self._key),
                url=self._url,
                rehearse=self._rehearse,
                now=self._cluster.clock(),
                random_bytes=self._cluster.random_bytes,
            )
        except Invalid as error:
            self._tell(found, f"{_PARTS.get(error.field, error.field)}: {error.why}")
        else:
            self._told = ("", "")
            if taken:
                self._log.info("the certificate of a Secret is taken", object=str(self._key))
        return LOOK_SECONDS

    def _tell(self, found: Object | None, problem: str) -> None:
        """Say what is wrong, once for each version of the Secret."""
        told = ("" if found is None else found["metadata"]["resourceVersion"], problem)
        if told == self._told:
            return
        self._told = told
        self._log.warning("a certificate is not taken", object=str(self._key), why=problem)
        if found is not None:
            self._recorder.tell(
                SECRETS,
                found,
                "NotTaken",
                f"GrantServer does not show this certificate: {problem}",
                importance=Importance.WARNING,
            )


def _kept(found: Object) -> Object:
    metadata = found["metadata"]
    names = ("namespace", "name", "uid", "resourceVersion")
    data = found.get("data") or {}
    return {
        "metadata": {name: metadata[name] for name in names},
        "data": {name: data[name] for name in _PARTS.values() if name in data},
    }


def _read(found: Object) -> TlsSecret:
    """Read the parts; raises Invalid for one that is absent, but for that of the CA."""

    def part(name: str) -> bytes:
        try:
            return base64.b64decode(found["data"].get(_PARTS[name], ""), validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise Invalid(name, "it is not base64") from None

    held = TlsSecret(certificate_pem=part("certificate"), key_pem=part("key"), ca_pem=part("ca"))
    for name, content in (("certificate", held.certificate_pem), ("key", held.key_pem)):
        if not content:
            raise Invalid(name, "it is absent or empty")
    return held
