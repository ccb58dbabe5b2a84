"""Every metric of the server, on a registry that is given; how it is served is not known here.

All label values come from closed sets and exist from the start, so that a rate over a series
that never counted is 0 and not absent, and nothing a client sends can add a series.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from math import nan
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.domain.grants import State
from app.errors import Lack, Reason

_log = logging.getLogger(__name__)  # which app.logs writes out; the two do not know each other

_SECONDS: Final = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 10.0),  # an unmodified client has given up by then
)
_BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Trouble(StrEnum):
    """Why a claim failed through no fault of the client, beside what its site lacks."""

    UNAVAILABLE = "unavailable"
    BROKEN = "broken"


class Certificate(StrEnum):
    """The certificates whose end is watched."""

    SERVER = "server"
    SERVER_CA = "server_ca"
    SITE_AUTHORITIES_SOONEST = "site_authorities_soonest"


class _About(NamedTuple):
    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


_REDEMPTIONS: Final = _About(
    "grantserver_redemptions_total", "counter", (), "Claims that were granted and committed."
)
_REFUSALS: Final = _About(
    "grantserver_refusals_total", "counter", ("reason",), "Claims that were not granted, by reason."
)
_RETRIES: Final = _About(
    "grantserver_retries_total",
    "counter",
    (),
    "Claims that came again because their answer was lost, and got the same answer again.",
)
_DURATION: Final = _About(
    "grantserver_redemption_duration_seconds",
    "histogram",
    (),
    "Time from the complete request to the rendered answer of a granted claim.",
)
_BATCH: Final = _About(
    "grantserver_commit_batch_size", "histogram", (), "Claims that shared one durable commit."
)
_GRANTS: Final = _About(
    "grantserver_grants",
    "gauge",
    ("state",),
    "Grants by state; absent while the database cannot be asked.",
)
_EXPIRY: Final = _About(
    "grantserver_certificate_expiry_timestamp_seconds",
    "gauge",
    ("certificate",),
    "UTC seconds at which the certificate ends; NaN while there is none. "
    "site_authorities_soonest is the first site authority to end.",
)
_BUILD: Final = _About(
    "grantserver_build_info", "gauge", ("version",), "Always 1; the version is in the label."
)


_ALL: Final = (_REDEMPTIONS, _REFUSALS, _RETRIES, _DURATION, _BATCH, _GRANTS, _EXPIRY, _BUILD)


def catalog() -> list[tuple[str, str, tuple[str, ...], str]]:
    """List every metric of ours: its name, type, labels and meaning."""
    return [(about.name, about.kind, about.labels, about.meaning) for about in _ALL]


class Metrics:
    """The metrics of one server.

    `count_grants` is called at each scrape, in whatever thread scrapes, and gives the number of
    grants by state. When it raises, the scrape succeeds without these series: NaN would spoil
    sums and be drawn as nothing anyway, an absent series can be alerted on.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        version: str,
        count_grants: Callable[[], Mapping[State, int]],
    ) -> None:
        # First, so that `count_grants` may tell when certificates end for the same scrape.
        registry.register(_GrantsByState(count_grants))
        self._redemptions = Counter(_REDEMPTIONS.name, _REDEMPTIONS.meaning, registry=registry)
        refusals = Counter(_REFUSALS.name, _REFUSALS.meaning, _REFUSALS.labels, registry=registry)
        reasons: tuple[Reason | Lack | Trouble, ...] = (*Reason, *Lack, *Trouble)
        self._refusals = {reason: refusals.labels(reason.value) for reason in reasons}
        self._retries = Counter(_RETRIES.name, _RETRIES.meaning, registry=registry)
        self._duration = Histogram(
            _DURATION.name, _DURATION.meaning, registry=registry, buckets=_SECONDS
        )
        self._batch = Histogram(
            _BATCH.name, _BATCH.meaning, registry=registry, buckets=_BATCH_SIZES
        )
        expiry = Gauge(_EXPIRY.name, _EXPIRY.meaning, _EXPIRY.labels, registry=registry)
        self._expiry = {which: expiry.labels(which.value) for which in Certificate}
        for which in Certificate:
            self.certificate_ends(which, None)
        Gauge(_BUILD.name, _BUILD.meaning, _BUILD.labels, registry=registry).labels(version).set(1)

    def redeemed(self, seconds: float) -> None:
        """Count a redemption that took so long."""
        self._redemptions.inc()
        self._duration.observe(seconds)

    def repeated(self) -> None:
        """Count a claim that got the answer of an earlier one."""
        self._retries.inc()

    def refused(self, reason: Reason | Lack | Trouble) -> None:
        """Count a claim that was not granted."""
        self._refusals[reason].inc()

    def committed(self, claims: int) -> None:
        """Count a commit that so many claims shared."""
        self._batch.observe(claims)

    def certificate_ends(self, which: Certificate, at: int | None) -> None:
        """Tell when a certificate ends, in UTC seconds; None when there is none."""
        # NaN compares as false, so that an alert on "ends soon" stays quiet; 0 would set it off.
        self._expiry[which].set(nan if at is None else at)


class _GrantsByState(Collector):
    def __init__(self, count_grants: Callable[[], Mapping[State, int]]) -> None:
        self._count_grants = count_grants
        self._failed = False

    def describe(self) -> Iterable[Metric]:
        """Name the series without counting, so that registering asks no database."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """Count now."""
        family = self._family()
        try:
            counted = self._count_grants()
            for state, count in [(state.value, float(counted.get(state, 0))) for state in State]:
                family.add_metric([state], count)
        except Exception as error:  # noqa: BLE001 - the other metrics matter most just then
            if not self._failed:  # once, because anyone may scrape as often as they like
                _log.warning("grants cannot be counted for the metrics: %s", error)
            self._failed = True
        else:
            self._failed = False
        return [family]

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(_GRANTS.name, _GRANTS.meaning, labels=_GRANTS.labels)
