"""All that the holder of the Lease does to have the server reached, as one value of settings."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from structlog.stdlib import BoundLogger

from app.kube.client import Kube
from app.kube.exposure.exposure import Exposure
from app.kube.exposure.issued_secret import IssuedSecret
from app.kube.exposure.kept_secret import KeptSecret
from app.kube.exposure.plan import Plan
from app.kube.informer import Pace
from app.kube.recorder import Recorder
from app.kube.resources import Key
from app.services.cluster import Cluster
from app.services.serving import Rehearsal


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposing:
    """What is asked for: a way in, and of which Secrets the certificate is put or taken.

    `issued` is the Secret for our own certificate, `kept` that in which somebody else keeps it;
    None: there is none. `url` is the base URL that tokens carry in any case, or empty. `rehearse`
    tells whether clients would go on with a certificate.
    """

    plan: Plan
    rehearse: Rehearsal
    issued: Key | None = None
    kept: Key | None = None
    url: str = ""

    def works(
        self,
        kube: Kube,
        cluster: Cluster,
        recorder: Recorder,
        *,
        pace: Pace,
        monotonic: Callable[[], float],
        log: BoundLogger,
    ) -> Sequence[Coroutine[Any, Any, None]]:
        """Give what is to be done during one time of leading; each goes on until cancelled."""
        exposure = Exposure(
            *(kube, self.plan, cluster.database, recorder),
            pace=pace,
            clock=cluster.clock,
            monotonic=monotonic,
            random_bytes=cluster.random_bytes,
            log=log,
        )
        works = [exposure.run()]
        if self.kept is not None:
            kept = KeptSecret(
                *(kube, self.kept, cluster, recorder),
                url=self.url,
                rehearse=self.rehearse,
                pace=pace,
                log=log,
            )
            works.append(kept.run())
        elif self.issued is not None:
            issued = IssuedSecret(
                *(kube, self.issued, cluster, recorder),
                installation=self.plan.installation,
                deployment=self.plan.deployment,
                pace=pace,
                monotonic=monotonic,
                log=log,
            )
            works.append(issued.run())
        return works
