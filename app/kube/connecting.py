"""The connecting side in a cluster: AccessTokens are redeemed, and what came of them is renewed.

For namespaces where nobody else does it. Like all that writes, it is up to the replica that leads.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from structlog.stdlib import BoundLogger

from app.kube.backoff import Backoff
from app.kube.client import Kube
from app.kube.grants import kept as kept_of_token
from app.kube.informer import Change, Informer, Pace
from app.kube.links import MARK
from app.kube.queue import Queue
from app.kube.recorder import Recorder
from app.kube.renewals import Renewals, kept_of_secret
from app.kube.resources import ACCESS_TOKENS, SECRETS, SITES, Key, Object, Resource
from app.kube.sites import kept as kept_of_site
from app.kube.tokens import AccessTokens
from app.kube.watching import watching
from app.metrics import Metrics

_BACKOFF: Final = Backoff(base_seconds=0.05, most_seconds=5.0)
"""For what the API server did not let us do; how often others are asked is decided elsewhere."""
_AT_ONCE: Final = 100
"""Each may wait 10 s for somebody who does not answer, and must not keep others waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connecting:
    """Redeems the AccessTokens of `namespaces`, or of all (None), and renews their links.

    `clock` gives UTC seconds, `monotonic` seconds that never jump.
    """

    namespaces: Sequence[str] | None
    clock: Callable[[], int]
    monotonic: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    metrics: Metrics | None = None

    async def run(self, kube: Kube, recorder: Recorder, *, pace: Pace, log: BoundLogger) -> None:
        """Do it during one time of leading, until cancelled."""
        await _Term(self, kube, recorder, pace, log).run()


class _Term:
    """One time of leading: nothing is remembered from an earlier one."""

    def __init__(
        self, connecting: Connecting, kube: Kube, recorder: Recorder, pace: Pace, log: BoundLogger
    ) -> None:
        self._namespaces = connecting.namespaces
        self._metrics = connecting.metrics
        self._random_bytes = connecting.random_bytes
        self._log = log
        chance = connecting.random_bytes

        def informer(
            resource: Resource, transform: Callable[[Object], Object], label: str = ""
        ) -> Informer:
            return Informer(
                *(kube, resource),
                namespaces=connecting.namespaces,
                transform=transform,
                label_selector=label,
                metadata_only=bool(label),
                pace=pace,
                random_bytes=chance,
                log=log,
            )

        tokens = self._tokens = informer(ACCESS_TOKENS, kept_of_token)
        tokens.on_news(watching(connecting.metrics, ACCESS_TOKENS, connecting.clock))
        sites = self._sites = informer(SITES, kept_of_site)
        secrets = self._secrets = informer(SECRETS, kept_of_secret, MARK)
        self._redeeming = AccessTokens(
            *(kube, tokens, sites, recorder),
            clock=connecting.clock,
            monotonic=connecting.monotonic,
            random_bytes=chance,
            log=log,
            metrics=connecting.metrics,
        )
        self._renewing = Renewals(
            *(kube, secrets, recorder),
            clock=connecting.clock,
            random_bytes=chance,
            log=log,
            metrics=connecting.metrics,
        )
        self._to_redeem = self._queue(self._redeem)
        self._to_renew = self._queue(self._renewing.renew)
        tokens.on_change(lambda change: self._to_redeem.add(change.key))
        sites.on_change(self._site_changed)
        secrets.on_change(lambda change: self._to_renew.add(change.key))

    def _queue(self, handle: Callable[[Key], Awaitable[float | None]]) -> Queue[Key]:
        return Queue(
            handle,
            workers=_AT_ONCE,
            backoff=_BACKOFF,
            random_bytes=self._random_bytes,
            log=self._log,
        )

    async def run(self) -> None:
        self._to_redeem.start()
        self._to_renew.start()
        try:
            async with asyncio.TaskGroup() as group:
                for informer in (self._tokens, self._sites, self._secrets):
                    group.create_task(informer.run())
                for scope in [None] if self._namespaces is None else self._namespaces:
                    group.create_task(self._begin(scope))
        finally:
            await asyncio.gather(self._to_redeem.stop(), self._to_renew.stop())
            if self._metrics is not None:  # it is for the next one that leads to tell
                self._metrics.tokens_waiting(0)
                self._metrics.links_end(None)

    async def _begin(self, scope: str | None) -> None:
        """Look at the tokens of one namespace, or of all (None), when all of it is known."""
        for informer in (self._tokens, self._sites):
            await informer.wait_synced_in(scope)
        there = [key for key in self._tokens if scope in {None, key.namespace}]
        for key in there:
            self._to_redeem.add(key)
        self._log.info("redeeming AccessTokens", namespace=scope or "all", resources=len(there))

    async def _redeem(self, key: Key) -> float | None:
        if not all(one.synced_in(key.namespace) for one in (self._tokens, self._sites)):
            return None  # what is not watched must not pass for absent
        return await self._redeeming.reconcile(key)

    def _site_changed(self, change: Change) -> None:
        self._redeeming.note_site(change.key)
        for key in self._redeeming.of(change.key.namespace):
            self._to_redeem.add(key)
