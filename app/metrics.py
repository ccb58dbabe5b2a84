"""Every metric of the server, on a registry that is given; how it is served is not known here.

All label values come from closed sets and exist from the start, so that a rate over a series
that never counted is 0 and not absent, and nothing a client sends can add a series.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from math import nan
from typing import Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.domain.grants import State
from app.domain.self_check import Outcome
from app.errors import Lack, Reason

_log = logging.getLogger(__name__)  # which app.logs writes out; the two do not know each other

_SECONDS: Final = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 10.0),  # an unmodified client has given up by then
)
_STAGE_SECONDS: Final = (
    *(0.0001, 0.0002, 0.0005),
    *(0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5),
    *(1.0, 5.0),
)
_BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


WORKERS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable of the process that names the directory in which workers count: the library
reads it whenever a metric is made."""


class Trouble(StrEnum):
    """Why a claim failed through no fault of the client, beside what its site lacks."""

    UNAVAILABLE = "unavailable"
    BROKEN = "broken"


class Certificate(StrEnum):
    """The certificates whose end is watched."""

    SERVER = "server"
    SERVER_CA = "server_ca"
    SITE_AUTHORITIES_SOONEST = "site_authorities_soonest"


class Pruned(StrEnum):
    """What housekeeping deletes."""

    ANSWERS = "answers"
    GRANTS = "grants"
    REDEMPTIONS = "redemptions"
    RENEWALS = "renewals"
    AUDIT = "audit"
    AUTHORITIES = "authorities"
    DELIVERIES = "deliveries"


class Redeeming(StrEnum):
    """What came of an attempt to redeem an AccessToken of a connecting site."""

    REDEEMED = "redeemed"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    NOT_STORED = "not_stored"


class Renewing(StrEnum):
    """What came of an attempt to renew the certificate of a link."""

    RENEWED = "renewed"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


class Delivering(StrEnum):
    """What came of an attempt to deliver an event to a webhook; `dead` is one that was the last."""

    DELIVERED = "delivered"
    FAILED = "failed"
    DEAD = "dead"


class Stage(StrEnum):
    """The stages of a redemption that was granted, and the handshake before it."""

    HANDSHAKE = "handshake"
    JUDGE = "judge"
    MINT = "mint"
    COMMIT = "commit"


class Work(StrEnum):
    """What is reconciled in a cluster."""

    NAMESPACE = "namespace"
    GRANT = "grant"
    KEYS = "keys"


class Watched(StrEnum):
    """The resources of a cluster that are watched."""

    ACCESS_GRANTS = "accessgrants"
    ACCESS_TOKENS = "accesstokens"
    SECRETS = "secrets"
    SITES = "sites"


class AdminAnswer(StrEnum):
    """What came of a request to the admin API."""

    SERVED = "served"
    REFUSED = "refused"
    UNKNOWN_CALLER = "unknown_caller"
    FAILED = "failed"


class _About(NamedTuple):
    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


_REDEMPTIONS: Final = _About(
    "grantserver_redemptions_total", "counter", (), "Claims that were granted and committed."
)
_REFUSALS: Final = _About(
    "grantserver_refusals_total",
    "counter",
    ("reason",),
    "Claims and renewals that were not granted, by reason.",
)
_RETRIES: Final = _About(
    "grantserver_retries_total",
    "counter",
    (),
    "Claims and renewals that came again because their answer was lost, and got the same again.",
)
_RENEWALS: Final = _About(
    "grantserver_renewals_total", "counter", (), "Certificates in whose place another was issued."
)
_LOCKS: Final = _About(
    "grantserver_grant_locks_total",
    "counter",
    (),
    "Grants that were locked because of wrong codes.",
)
_THEFTS: Final = _About(
    "grantserver_theft_suspicions_total",
    "counter",
    (),
    "Right codes that came from somebody else after the last redemption of their grant.",
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
_PRUNED: Final = _About(
    "grantserver_pruned_rows_total",
    "counter",
    ("kind",),
    "Rows that housekeeping has deleted, by kind.",
)
_SWEPT: Final = _About(
    "grantserver_last_sweep_timestamp_seconds",
    "gauge",
    (),
    "UTC seconds at which housekeeping last came to its end; NaN before it did.",
)
_EXPIRY: Final = _About(
    "grantserver_certificate_expiry_timestamp_seconds",
    "gauge",
    ("certificate",),
    "UTC seconds at which the certificate ends; NaN while there is none. "
    "site_authorities_soonest is the first site authority to end.",
)
_SELF_CHECK: Final = _About(
    "grantserver_self_check",
    "gauge",
    ("outcome",),
    "1 for what came of dialling our own public address last, 0 for all else.",
)
_SELF_CHECKED: Final = _About(
    "grantserver_last_self_check_timestamp_seconds",
    "gauge",
    (),
    "UTC seconds at which our own public address was last looked at; NaN before it was.",
)
_TOKENS: Final = _About(
    "grantserver_access_token_attempts_total",
    "counter",
    ("outcome",),
    "Attempts to redeem AccessTokens of connecting sites, by outcome.",
)
_TOKENS_WAITING: Final = _About(
    "grantserver_access_tokens_waiting",
    "gauge",
    (),
    "AccessTokens of connecting sites that are being redeemed or will be tried again.",
)
_LINKS_RENEWED: Final = _About(
    "grantserver_link_renewal_attempts_total",
    "counter",
    ("outcome",),
    "Attempts to renew certificates of links of connecting sites, by outcome.",
)
_LINKS_END: Final = _About(
    "grantserver_link_certificates_soonest_expiry_timestamp_seconds",
    "gauge",
    (),
    "UTC seconds at which the first certificate of a link that is renewed here ends; NaN while "
    "there is none.",
)
_DELIVERIES: Final = _About(
    "grantserver_webhook_deliveries_total",
    "counter",
    ("outcome",),
    "Attempts to deliver an event to a webhook, by outcome.",
)
_DELIVERIES_PENDING: Final = _About(
    "grantserver_webhook_pending",
    "gauge",
    (),
    "Events that were handed out for webhooks, and have not arrived or been given up.",
)
_STAGES: Final = _About(
    "grantserver_redemption_stage_seconds",
    "histogram",
    ("stage",),
    "Time of the stages of granted claims, and of TLS handshakes that were completed.",
)
_DATABASE_ERRORS: Final = _About(
    "grantserver_database_errors_total",
    "counter",
    (),
    "Transactions that the database did not serve, those of redemptions not included.",
)
_DATABASE_CONNECTIONS: Final = _About(
    "grantserver_database_connections",
    "gauge",
    (),
    "Connections to the database that are in use, those of redemptions not included.",
)
_LEADING: Final = _About(
    "grantserver_leader", "gauge", (), "1 where this server leads in its cluster, else 0."
)
_RECONCILED: Final = _About(
    "grantserver_reconciles_total",
    "counter",
    ("work", "outcome"),
    "Times that something of a cluster was reconciled, by what it was and what came of it.",
)
_RECONCILING: Final = _About(
    "grantserver_reconcile_duration_seconds",
    "histogram",
    ("work",),
    "Time that it took to reconcile something of a cluster.",
)
_QUEUE: Final = _About(
    "grantserver_reconcile_queue_depth", "gauge", (), "What waits to be reconciled now."
)
_WATCHES: Final = _About(
    "grantserver_watch_last_seen_timestamp_seconds",
    "gauge",
    ("resource",),
    "UTC seconds at which the API server last told something of a resource that is watched, if "
    "only that nothing is new; NaN where it is not watched.",
)
_ADMIN_REQUESTS: Final = _About(
    "grantserver_admin_requests_total",
    "counter",
    ("outcome",),
    "Requests to the admin API, by what came of them.",
)
_ADMIN_DURATION: Final = _About(
    "grantserver_admin_request_duration_seconds",
    "histogram",
    (),
    "Time that requests to the admin API have taken.",
)
_BUILD: Final = _About(
    "grantserver_build_info", "gauge", ("version",), "Always 1; the version is in the label."
)


_ALL: Final = (
    _REDEMPTIONS,
    _REFUSALS,
    _RETRIES,
    _RENEWALS,
    _LOCKS,
    _THEFTS,
    _DURATION,
    _BATCH,
    _GRANTS,
    _PRUNED,
    _SWEPT,
    _EXPIRY,
    _SELF_CHECK,
    _SELF_CHECKED,
    _TOKENS,
    _TOKENS_WAITING,
    _LINKS_RENEWED,
    _LINKS_END,
    _DELIVERIES,
    _DELIVERIES_PENDING,
    _STAGES,
    _DATABASE_ERRORS,
    _DATABASE_CONNECTIONS,
    _LEADING,
    _RECONCILED,
    _RECONCILING,
    _QUEUE,
    _WATCHES,
    _ADMIN_REQUESTS,
    _ADMIN_DURATION,
    _BUILD,
)


def catalog() -> list[tuple[str, str, tuple[str, ...], str]]:
    """List every metric of ours: its name, type, labels and meaning."""
    return [(about.name, about.kind, about.labels, about.meaning) for about in _ALL]


class Metrics:
    """The metrics of one server.

    `count_grants` is called at each scrape, in whatever thread scrapes, and gives the number of
    grants by state. When it raises, the scrape succeeds without these series: NaN would spoil
    sums and be drawn as nothing anyway, an absent series can be alerted on.

    `worker` is the number of this one where several processes are one server: `registry` then
    shows what all of them have counted, in the files of the directory that WORKERS_DIR names.
    One that takes the place of another with the same number goes on counting where it stopped.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        version: str,
        count_grants: Callable[[], Mapping[State, int]],
        worker: int | None = None,
    ) -> None:
        # First, so that `count_grants` may tell when certificates end for the same scrape.
        registry.register(_GrantsByState(count_grants))
        together: Collector | None = None
        if worker is not None:
            together, registry = _counting_together(registry, worker)
        self._redemptions = Counter(_REDEMPTIONS.name, _REDEMPTIONS.meaning, registry=registry)
        refusals = Counter(_REFUSALS.name, _REFUSALS.meaning, _REFUSALS.labels, registry=registry)
        reasons: tuple[Reason | Lack | Trouble, ...] = (*Reason, *Lack, *Trouble)
        self._refusals = {reason: refusals.labels(reason.value) for reason in reasons}
        self._retries = Counter(_RETRIES.name, _RETRIES.meaning, registry=registry)
        self._renewals = Counter(_RENEWALS.name, _RENEWALS.meaning, registry=registry)
        self._locks = Counter(_LOCKS.name, _LOCKS.meaning, registry=registry)
        self._thefts = Counter(_THEFTS.name, _THEFTS.meaning, registry=registry)
        self._duration = Histogram(
            _DURATION.name, _DURATION.meaning, registry=registry, buckets=_SECONDS
        )
        self._batch = Histogram(
            _BATCH.name, _BATCH.meaning, registry=registry, buckets=_BATCH_SIZES
        )
        pruned = Counter(_PRUNED.name, _PRUNED.meaning, _PRUNED.labels, registry=registry)
        self._pruned = {kind: pruned.labels(kind.value) for kind in Pruned}
        # What one of the workers alone finds out begins unknown with that one: the others must not
        # overrule, with nothing, what it has found already.
        first = worker is None or worker == 0
        self._swept = _moment(registry, _SWEPT, unknown=first)
        expiry = Gauge(
            _EXPIRY.name,
            _EXPIRY.meaning,
            _EXPIRY.labels,
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._expiry = {which: expiry.labels(which.value) for which in Certificate}
        for one in self._expiry.values() if first else ():
            _begin_unknown(one)
        looks = Gauge(
            *(_SELF_CHECK.name, _SELF_CHECK.meaning, _SELF_CHECK.labels),
            registry=registry,
            multiprocess_mode="max",  # one of the workers looks, the others stay at 0
        )
        self._looks = {outcome: looks.labels(outcome.value) for outcome in Outcome}
        self._every_look: Collector = together or looks
        self._looked = _moment(registry, _SELF_CHECKED, unknown=first)
        tokens = Counter(_TOKENS.name, _TOKENS.meaning, _TOKENS.labels, registry=registry)
        self._tokens = {outcome: tokens.labels(outcome.value) for outcome in Redeeming}
        self._tokens_waiting = _level(registry, _TOKENS_WAITING, "max")
        renewals = Counter(
            *(_LINKS_RENEWED.name, _LINKS_RENEWED.meaning, _LINKS_RENEWED.labels),
            registry=registry,
        )
        self._links_renewed = {outcome: renewals.labels(outcome.value) for outcome in Renewing}
        self._links_end = _moment(registry, _LINKS_END, unknown=first)
        deliveries = Counter(
            *(_DELIVERIES.name, _DELIVERIES.meaning, _DELIVERIES.labels), registry=registry
        )
        self._deliveries = {one: deliveries.labels(one.value) for one in Delivering}
        self._deliveries_pending = _level(registry, _DELIVERIES_PENDING, "max")
        stages = Histogram(
            *(_STAGES.name, _STAGES.meaning, _STAGES.labels),
            registry=registry,
            buckets=_STAGE_SECONDS,
        )
        self._stages = {stage: stages.labels(stage.value) for stage in Stage}
        self._database_errors = Counter(
            _DATABASE_ERRORS.name, _DATABASE_ERRORS.meaning, registry=registry
        )
        self._database_connections = _level(registry, _DATABASE_CONNECTIONS, "sum")
        self._leader = _level(registry, _LEADING, "max")
        reconciled = Counter(
            *(_RECONCILED.name, _RECONCILED.meaning, _RECONCILED.labels), registry=registry
        )
        self._reconciled = {
            (work, done): reconciled.labels(work.value, "done" if done else "failed")
            for work in Work
            for done in (True, False)
        }
        reconciling = Histogram(
            *(_RECONCILING.name, _RECONCILING.meaning, _RECONCILING.labels),
            registry=registry,
            buckets=_SECONDS,
        )
        self._reconciling = {work: reconciling.labels(work.value) for work in Work}
        self._queue = _level(registry, _QUEUE, "max")
        watches = Gauge(
            *(_WATCHES.name, _WATCHES.meaning, _WATCHES.labels),
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._watches = {one: watches.labels(one.value) for one in Watched}
        self._admin_requests, self._admin_duration = _administration(registry)
        for gauge in self._watches.values() if first else ():
            _begin_unknown(gauge)
        build = Gauge(
            *(_BUILD.name, _BUILD.meaning, _BUILD.labels),
            registry=registry,
            multiprocess_mode="max",
        )
        build.labels(version).set(1)

    def redeemed(self, seconds: float) -> None:
        """Count a redemption that took so long."""
        self._redemptions.inc()
        self._duration.observe(seconds)

    def repeated(self) -> None:
        """Count a claim or a renewal that got the answer of an earlier one."""
        self._retries.inc()

    def renewed(self) -> None:
        """Count a certificate in whose place another was issued."""
        self._renewals.inc()

    def locked(self) -> None:
        """Count a grant that was locked because of wrong codes."""
        self._locks.inc()

    def suspected_theft(self) -> None:
        """Count a suspicion of token theft."""
        self._thefts.inc()

    def refused(self, reason: Reason | Lack | Trouble) -> None:
        """Count a claim that was not granted."""
        self._refusals[reason].inc()

    def committed(self, claims: int) -> None:
        """Count a commit that so many claims shared."""
        self._batch.observe(claims)

    def pruned(self, kind: Pruned, rows: int) -> None:
        """Count rows that housekeeping has deleted."""
        self._pruned[kind].inc(rows)

    def swept(self, at: int) -> None:
        """Tell when housekeeping came to its end, in UTC seconds."""
        self._swept.set(at)

    def certificate_ends(self, which: Certificate, at: int | None) -> None:
        """Tell when a certificate ends, in UTC seconds; None when there is none."""
        # NaN compares as false, so that an alert on "ends soon" stays quiet; 0 would set it off.
        self._expiry[which].set(nan if at is None else at)

    def administered(self, outcome: AdminAnswer, seconds: float) -> None:
        """Count a request to the admin API, which took so long."""
        self._admin_requests[outcome].inc()
        self._admin_duration.observe(seconds)

    def stage(self, which: Stage, seconds: float) -> None:
        """Count a stage that took so long."""
        self._stages[which].observe(seconds)

    def shaken_hands(self, seconds: float) -> None:
        """Count a TLS handshake that took so long."""
        self._stages[Stage.HANDSHAKE].observe(seconds)

    def database_failed(self) -> None:
        """Count a transaction that the database did not serve."""
        self._database_errors.inc()

    def database_used(self, change: int) -> None:
        """Tell that so many connections more (or less, below 0) are in use."""
        self._database_connections.inc(change)

    def leads(self, leading: bool) -> None:
        """Tell whether it leads; where it does not, nothing waits and nothing is watched."""
        self._leader.set(leading)
        if not leading:
            self._queue.set(0)
            for gauge in self._watches.values():
                gauge.set(nan)

    def reconciled(self, work: Work, seconds: float, *, done: bool, waiting: int) -> None:
        """Count something that was reconciled, or was not; so many more are waiting."""
        self._reconciled[work, done].inc()
        self._reconciling[work].observe(seconds)
        self._queue.set(waiting)

    def watched(self, resource: Watched, at: int) -> None:
        """Tell when something was last heard of a resource, in UTC seconds."""
        self._watches[resource].set(at)

    def token_tried(self, outcome: Redeeming) -> None:
        """Count an attempt to redeem an AccessToken."""
        self._tokens[outcome].inc()

    def tokens_waiting(self, count: int) -> None:
        """Tell how many AccessTokens are not redeemed yet, and will be tried again."""
        self._tokens_waiting.set(count)

    def link_tried(self, outcome: Renewing) -> None:
        """Count an attempt to renew the certificate of a link."""
        self._links_renewed[outcome].inc()

    def links_end(self, at: int | None) -> None:
        """Tell when the first certificate of a link ends, in UTC seconds; None without any."""
        self._links_end.set(nan if at is None else at)

    def delivery_tried(self, outcome: Delivering) -> None:
        """Count an attempt to deliver an event to a webhook."""
        self._deliveries[outcome].inc()

    def deliveries_pending(self, count: int) -> None:
        """Tell how many events are on their way to webhooks."""
        self._deliveries_pending.set(count)

    def looked(self, outcome: Outcome, at: int | None) -> None:
        """Tell what came of dialling our own address, and when, in UTC seconds; None: not yet."""
        for one, gauge in self._looks.items():
            gauge.set(one is outcome)
        if at is not None:
            self._looked.set(at)

    def last_look(self) -> Outcome:
        """What came of dialling our own address last, whichever of the workers did it.

        It may read the counts of all workers, so it belongs into a thread.
        """
        for family in self._every_look.collect():
            for sample in family.samples:
                if sample.name == _SELF_CHECK.name and sample.value:
                    return Outcome(sample.labels["outcome"])
        return Outcome.UNKNOWN


def _counting_together(
    registry: CollectorRegistry, worker: int
) -> tuple[Collector, CollectorRegistry]:
    """Have `registry` show the counts of all workers.

    Gives what collects them, and the registry that those of this worker belong to.
    """
    together = MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    # By number and not by process id: no file is left of one that died, nor is a count lost.
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
    return together, CollectorRegistry()


def _administration(
    registry: CollectorRegistry,
) -> tuple[Mapping[AdminAnswer, Counter], Histogram]:
    """Make what counts requests to the admin API, and their time."""
    requests = Counter(
        *(_ADMIN_REQUESTS.name, _ADMIN_REQUESTS.meaning, _ADMIN_REQUESTS.labels),
        registry=registry,
    )
    duration = Histogram(
        *(_ADMIN_DURATION.name, _ADMIN_DURATION.meaning), registry=registry, buckets=_SECONDS
    )
    return {one: requests.labels(one.value) for one in AdminAnswer}, duration


def _moment(registry: CollectorRegistry, about: _About, *, unknown: bool) -> Gauge:
    """Make a gauge of a time, which is `unknown` yet or told by another worker."""
    gauge = Gauge(about.name, about.meaning, registry=registry, multiprocess_mode="mostrecent")
    if unknown:
        _begin_unknown(gauge)
    return gauge


def _level(registry: CollectorRegistry, about: _About, together: Literal["max", "sum"]) -> Gauge:
    """Make a gauge of what goes up and down; `together`: what the levels of all workers are.

    Of what the leader alone knows that is the highest: the others stay at 0.
    """
    gauge = Gauge(about.name, about.meaning, registry=registry, multiprocess_mode=together)
    gauge.set(0)  # also where the worker before had this place, and left something
    return gauge


def _begin_unknown(gauge: Gauge) -> None:
    """Begin at NaN, unless the worker that had this place before left what it knew."""
    if all(sample.value == 0 for family in gauge.collect() for sample in family.samples):
        gauge.set(nan)


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
