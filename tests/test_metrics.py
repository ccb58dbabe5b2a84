import re
from collections.abc import Mapping
from math import isnan
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from app.domain.grants import State
from app.domain.self_check import Outcome
from app.errors import Lack, Reason, Unavailable
from app.metrics import (
    WORKERS_DIR,
    Certificate,
    Delivering,
    Metrics,
    Pruned,
    Redeeming,
    Renewing,
    Stage,
    Trouble,
    Watched,
    Work,
    catalog,
)


class Server:
    """A registry with our metrics, and what the store would count."""

    def __init__(self, worker: int | None = None) -> None:
        self.counted: Mapping[State, int] | Exception = {}
        self.asked = 0
        self.registry = CollectorRegistry()
        self.metrics = Metrics(
            self.registry, version="1.2.3", count_grants=self.count, worker=worker
        )

    def count(self) -> Mapping[State, int]:
        self.asked += 1
        if isinstance(self.counted, Exception):
            raise self.counted
        return self.counted

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def test_every_series_exists_before_anything_has_happened() -> None:
    server = Server()
    assert server.value("grantserver_redemptions_total") == 0
    for reason in (*Reason, *Lack, *Trouble):
        assert server.value("grantserver_refusals_total", reason=reason.value) == 0
    for state in State:
        assert server.value("grantserver_grants", state=state.value) == 0
    assert server.value("grantserver_redemption_duration_seconds_count") == 0
    assert server.value("grantserver_commit_batch_size_count") == 0
    for kind in Pruned:
        assert server.value("grantserver_pruned_rows_total", kind=kind.value) == 0
    assert server.value("grantserver_build_info", version="1.2.3") == 1


def test_what_housekeeping_deletes_is_counted_by_kind_and_when_it_came_to_its_end() -> None:
    server = Server()
    swept = server.value("grantserver_last_sweep_timestamp_seconds")
    assert swept is not None
    assert isnan(swept)
    server.metrics.pruned(Pruned.GRANTS, 3)
    server.metrics.pruned(Pruned.GRANTS, 4)
    server.metrics.swept(1_790_000_000)
    assert server.value("grantserver_pruned_rows_total", kind="grants") == 7
    assert server.value("grantserver_pruned_rows_total", kind="audit") == 0
    assert server.value("grantserver_last_sweep_timestamp_seconds") == 1_790_000_000


def test_a_redemption_is_counted_with_its_duration() -> None:
    server = Server()
    server.metrics.redeemed(0.004)
    server.metrics.redeemed(20)
    name = "grantserver_redemption_duration_seconds"
    assert server.value("grantserver_redemptions_total") == 2
    assert server.value(f"{name}_sum") == pytest.approx(20.004)
    assert server.value(f"{name}_bucket", le="0.001") == 0
    assert server.value(f"{name}_bucket", le="0.005") == 1
    assert server.value(f"{name}_bucket", le="10.0") == 1
    assert server.value(f"{name}_bucket", le="+Inf") == 2


@pytest.mark.parametrize("reason", [*Reason, *Lack, *Trouble])
def test_a_refusal_is_counted_under_its_reason_alone(reason: Reason | Lack | Trouble) -> None:
    server = Server()
    server.metrics.refused(reason)
    for other in (*Reason, *Lack, *Trouble):
        expected = 1 if other is reason else 0
        assert server.value("grantserver_refusals_total", reason=other.value) == expected


def test_locks_and_suspicions_are_counted() -> None:
    server = Server()
    for name in ("grantserver_grant_locks_total", "grantserver_theft_suspicions_total"):
        assert server.value(name) == 0
    server.metrics.locked()
    server.metrics.suspected_theft()
    server.metrics.suspected_theft()
    assert server.value("grantserver_grant_locks_total") == 1
    assert server.value("grantserver_theft_suspicions_total") == 2


def test_no_two_reasons_share_a_label() -> None:
    values = [reason.value for reason in (*Reason, *Lack, *Trouble)]
    assert len(set(values)) == len(values)


def test_a_commit_is_counted_with_the_claims_that_shared_it() -> None:
    server = Server()
    server.metrics.committed(1)
    server.metrics.committed(17)
    assert server.value("grantserver_commit_batch_size_sum") == 18
    assert server.value("grantserver_commit_batch_size_bucket", le="1.0") == 1
    assert server.value("grantserver_commit_batch_size_bucket", le="16.0") == 1
    assert server.value("grantserver_commit_batch_size_bucket", le="32.0") == 2


def test_grants_are_counted_at_each_scrape_and_not_before() -> None:
    server = Server()
    assert server.asked == 0
    server.counted = {State.ACTIVE: 3, State.REVOKED: 1}
    text = generate_latest(server.registry).decode()
    assert server.asked == 1
    assert 'grantserver_grants{state="active"} 3.0\n' in text
    assert 'grantserver_grants{state="used_up"} 0.0\n' in text
    assert 'grantserver_grants{state="revoked"} 1.0\n' in text


def test_grants_that_cannot_be_counted_are_left_out_of_the_scrape() -> None:
    server = Server()
    server.counted = Unavailable("database is away")
    server.metrics.redeemed(0.1)
    text = generate_latest(server.registry).decode()
    assert "grantserver_grants{" not in text
    assert "grantserver_redemptions_total 1.0" in text
    server.counted = {State.ACTIVE: 1}
    assert server.value("grantserver_grants", state="active") == 1


def test_grants_that_cannot_be_counted_are_told_in_the_log_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    outages: list[Mapping[State, int] | Exception] = [Unavailable("away"), Unavailable("away"), {}]
    for server.counted in outages * 2:
        generate_latest(server.registry)
    assert [record.getMessage() for record in caplog.records] == [
        "grants cannot be counted for the metrics: away"
    ] * 2


def test_the_end_of_a_certificate_is_told_and_unknown_is_no_number() -> None:
    server = Server()
    name = "grantserver_certificate_expiry_timestamp_seconds"
    line = re.compile(rf'{name}\{{certificate="(\w+)"\}} (\S+)')
    server.metrics.certificate_ends(Certificate.SERVER, 1_800_000_000)
    server.metrics.certificate_ends(Certificate.SERVER_CA, 1_900_000_000)
    server.metrics.certificate_ends(Certificate.SERVER_CA, None)
    assert dict(line.findall(generate_latest(server.registry).decode())) == {
        "server": "1.8e+09",
        "server_ca": "NaN",
        "site_authorities_soonest": "NaN",
    }


def outcomes(server: Server) -> set[str]:
    """The outcomes that the metric shows; every one has its series."""
    name = "grantserver_self_check"
    shown = {one: server.value(name, outcome=one.value) for one in Outcome}
    assert set(shown.values()) <= {0, 1}
    return {one.value for one, value in shown.items() if value}


def test_what_came_of_a_look_at_our_own_address_is_shown_with_its_time() -> None:
    server = Server()
    name = "grantserver_last_self_check_timestamp_seconds"
    assert outcomes(server) == set()
    assert server.metrics.last_look() is Outcome.UNKNOWN
    server.metrics.looked(Outcome.UNKNOWN, None)
    assert outcomes(server) == {"unknown"}
    assert str(server.value(name)) == "nan"
    for number, outcome in enumerate(Outcome):
        server.metrics.looked(outcome, 1_790_000_000 + number)
        assert outcomes(server) == {outcome.value}
        assert server.metrics.last_look() is outcome
        assert server.value(name) == 1_790_000_000 + number


@pytest.fixture
def _together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers that are made with the number of a worker be one."""
    monkeypatch.setenv(WORKERS_DIR, str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)


@pytest.mark.usefixtures("_together")
@pytest.mark.parametrize("workers", [None, 2])
def test_the_catalog_is_what_is_exposed(workers: int | None) -> None:
    servers = [Server()] if workers is None else [Server(number) for number in range(workers)]
    text = generate_latest(servers[0].registry).decode()
    families = list(text_string_to_metric_families(text))
    exposed = {}
    for family in families:
        if not family.name.endswith("_created"):
            total = "_total" if family.type == "counter" else ""
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            exposed[family.name + total] = (family.type, labels, family.documentation)
            series = [(sample.name, *sorted(sample.labels.items())) for sample in family.samples]
            assert len(set(series)) == len(series)
    assert exposed == {n: (kind, set(labels), text) for n, kind, labels, text in catalog()}


def test_both_expositions_can_be_made() -> None:
    encode, _content_type = choose_encoder("application/openmetrics-text")
    assert encode(Server().registry).endswith(b"# EOF\n")


def test_two_servers_do_not_share_a_count() -> None:
    one, other = Server(), Server()
    one.metrics.redeemed(1)
    assert other.value("grantserver_redemptions_total") == 0


def exposition(server: Server) -> dict[tuple[str, tuple[tuple[str, str], ...]], str]:
    """Every sample that a scrape gives, its value as text: NaN is no equal of itself."""
    found = {}
    for family in server.registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[sample.name, tuple(sorted(sample.labels.items()))] = str(sample.value)
    return found


@pytest.mark.usefixtures("_together")
def test_workers_show_the_series_of_a_single_process() -> None:
    single = exposition(Server())
    workers = [Server(0), Server(1)]
    assert exposition(workers[0]) == exposition(workers[1]) == single


@pytest.mark.usefixtures("_together")
def test_each_worker_shows_what_all_have_counted() -> None:
    one, other = Server(0), Server(1)
    one.metrics.redeemed(0.004)
    other.metrics.redeemed(0.004)
    other.metrics.redeemed(20)
    one.metrics.refused(Reason.EXPIRED)
    other.metrics.committed(3)
    one.counted = other.counted = {State.ACTIVE: 3}
    name = "grantserver_redemption_duration_seconds"
    for server in (one, other):
        assert server.value("grantserver_redemptions_total") == 3
        assert server.value("grantserver_refusals_total", reason="expired") == 1
        assert server.value(f"{name}_count") == 3
        assert server.value(f"{name}_sum") == pytest.approx(20.008)
        assert server.value(f"{name}_bucket", le="0.005") == 2
        assert server.value(f"{name}_bucket", le="+Inf") == 3
        assert server.value("grantserver_commit_batch_size_sum") == 3
        assert server.value("grantserver_grants", state="active") == 3
        assert server.value("grantserver_build_info", version="1.2.3") == 1


@pytest.mark.usefixtures("_together")
def test_of_what_workers_tell_of_certificates_the_latest_holds() -> None:
    one, other = Server(0), Server(1)
    name = "grantserver_certificate_expiry_timestamp_seconds"
    one.metrics.certificate_ends(Certificate.SERVER, 1_900_000_000)
    other.metrics.certificate_ends(Certificate.SERVER, 1_800_000_000)
    assert one.value(name, certificate="server") == 1_800_000_000
    one.metrics.certificate_ends(Certificate.SERVER, None)
    assert str(other.value(name, certificate="server")) == "nan"


@pytest.mark.usefixtures("_together")
def test_a_worker_that_comes_later_does_not_overrule_what_is_known_with_nothing() -> None:
    one = Server(0)
    assert str(one.value("grantserver_last_sweep_timestamp_seconds")) == "nan"
    one.metrics.swept(1_790_000_000)
    one.metrics.links_end(1_790_000_001)
    other = Server(1)
    for server in (one, other):
        assert server.value("grantserver_last_sweep_timestamp_seconds") == 1_790_000_000
        name = "grantserver_link_certificates_soonest_expiry_timestamp_seconds"
        assert server.value(name) == 1_790_000_001


@pytest.mark.usefixtures("_together")
def test_every_worker_tells_what_the_one_that_looks_has_found() -> None:
    one, other = Server(0), Server(1)
    one.counted = other.counted = Unavailable("nobody has to count grants for that")
    assert other.metrics.last_look() is Outcome.UNKNOWN
    one.metrics.looked(Outcome.UNKNOWN, None)
    one.metrics.looked(Outcome.REACHABLE, 1_790_000_000)
    late = Server(2)
    for server in (one, other, late):
        assert server.metrics.last_look() is Outcome.REACHABLE
        assert outcomes(server) == {"reachable"}
        assert server.asked == len(Outcome)  # by our own questions for the series
    Server(0).metrics.looked(Outcome.UNREACHABLE, 1_790_000_001)
    assert other.metrics.last_look() is Outcome.UNREACHABLE
    assert outcomes(other) == {"unreachable"}


@pytest.mark.usefixtures("_together")
def test_a_worker_goes_on_counting_where_the_one_before_it_stopped() -> None:
    before, other = Server(0), Server(1)
    before.metrics.redeemed(0.1)
    before.metrics.certificate_ends(Certificate.SERVER_CA, 1_900_000_000)
    after = Server(0)
    after.metrics.redeemed(0.1)
    name = "grantserver_certificate_expiry_timestamp_seconds"
    for server in (after, other):
        assert server.value("grantserver_redemptions_total") == 2
        assert server.value("grantserver_redemption_duration_seconds_count") == 2
        assert server.value(name, certificate="server_ca") == 1_900_000_000
        assert str(server.value(name, certificate="server")) == "nan"


@pytest.mark.usefixtures("_together")
def test_both_expositions_can_be_made_of_what_workers_count() -> None:
    server = Server(0)
    encode, _content_type = choose_encoder("application/openmetrics-text")
    text = encode(server.registry).decode()
    families = openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    assert "grantserver_redemptions" in {family.name for family in families}


def test_what_the_connecting_side_does_is_counted_by_outcome_from_the_start() -> None:
    server = Server()
    tokens, renewals = (
        "grantserver_access_token_attempts_total",
        "grantserver_link_renewal_attempts_total",
    )
    for redeeming in Redeeming:
        assert server.value(tokens, outcome=redeeming.value) == 0
        server.metrics.token_tried(redeeming)
        assert server.value(tokens, outcome=redeeming.value) == 1
    for renewing in Renewing:
        assert server.value(renewals, outcome=renewing.value) == 0
        server.metrics.link_tried(renewing)
        assert server.value(renewals, outcome=renewing.value) == 1


def test_events_for_webhooks_are_counted_by_outcome_from_the_start() -> None:
    server = Server()
    for outcome in Delivering:
        assert server.value("grantserver_webhook_deliveries_total", outcome=outcome.value) == 0
        server.metrics.delivery_tried(outcome)
        assert server.value("grantserver_webhook_deliveries_total", outcome=outcome.value) == 1
    assert server.value("grantserver_webhook_pending") == 0
    server.metrics.deliveries_pending(3)
    assert server.value("grantserver_webhook_pending") == 3


def test_tokens_that_wait_and_the_first_certificate_to_end_are_shown() -> None:
    server = Server()
    name = "grantserver_link_certificates_soonest_expiry_timestamp_seconds"
    assert server.value("grantserver_access_tokens_waiting") == 0
    assert isnan(server.value(name) or 0.0)
    server.metrics.tokens_waiting(3)
    server.metrics.links_end(1_790_000_000)
    assert server.value("grantserver_access_tokens_waiting") == 3
    assert server.value(name) == 1_790_000_000
    server.metrics.links_end(None)
    assert isnan(server.value(name) or 0.0)


def test_stages_are_counted_by_name_from_the_start() -> None:
    server = Server()
    name = "grantserver_redemption_stage_seconds_count"
    assert [server.value(name, stage=stage.value) for stage in Stage] == [0, 0, 0, 0]
    server.metrics.stage(Stage.MINT, 0.01)
    server.metrics.shaken_hands(0.02)
    assert [server.value(name, stage=stage.value) for stage in Stage] == [1, 0, 1, 0]
    assert server.value("grantserver_redemption_stage_seconds_sum", stage="handshake") == 0.02


def test_the_database_is_watched() -> None:
    server = Server()
    errors, used = "grantserver_database_errors_total", "grantserver_database_connections"
    assert (server.value(errors), server.value(used)) == (0, 0)
    server.metrics.database_failed()
    for change in (1, 1, -1):
        server.metrics.database_used(change)
    assert (server.value(errors), server.value(used)) == (1, 1)


def cluster(server: Server) -> tuple[float | None, float | None, list[bool]]:
    watches = [
        server.value("grantserver_watch_last_seen_timestamp_seconds", resource=one.value)
        for one in Watched
    ]
    assert None not in watches
    return (
        server.value("grantserver_leader"),
        server.value("grantserver_reconcile_queue_depth"),
        [not isnan(one or 0) for one in watches],
    )


def test_who_leads_tells_what_waits_and_what_is_watched_and_who_does_not_nothing() -> None:
    server = Server()
    assert cluster(server) == (0, 0, [False] * 4)
    server.metrics.leads(True)
    server.metrics.watched(Watched.ACCESS_GRANTS, 1000)
    server.metrics.reconciled(Work.GRANT, 0.5, done=True, waiting=7)
    server.metrics.reconciled(Work.GRANT, 0.5, done=False, waiting=6)
    assert cluster(server) == (1, 6, [True, False, False, False])
    name = "grantserver_reconciles_total"
    for work in Work:
        for outcome in ("done", "failed"):
            expected = 1 if work is Work.GRANT else 0
            assert server.value(name, work=work.value, outcome=outcome) == expected
    assert server.value("grantserver_reconcile_duration_seconds_sum", work="grant") == 1.0
    server.metrics.leads(False)
    assert cluster(server) == (0, 0, [False] * 4)
