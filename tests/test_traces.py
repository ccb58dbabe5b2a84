import contextlib
import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from app import traces
from app.ambient import monotonic
from app.errors import Misconfigured
from tests.crew import working
from tests.running import PATIENCE, running

ROOT = Path(__file__).parent.parent
STRANGE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector(http.server.ThreadingHTTPServer):
    """Takes OTLP/HTTP on the loopback, and keeps what it was sent; `status` is its answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        self.status = 200
        self.go_on = threading.Event()
        self.go_on.set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def spans(self) -> list[Span]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def services(self) -> set[str]:
        return {
            fact.value.string_value
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for fact in resource.resource.attributes
            if fact.key == "service.name"
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces"
        assert self.headers["content-type"] == "application/x-protobuf"
        self.server.bodies.append(body)
        self.server.go_on.wait(PATIENCE)
        answer = ExportTraceServiceResponse().SerializeToString()
        with contextlib.suppress(ConnectionError):
            self.send_response(self.server.status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield one
        one.go_on.set()
        one.shutdown()
        thread.join(PATIENCE)


def facts(span: Span) -> dict[str, str | int]:
    return {fact.key: fact.value.string_value or fact.value.int_value for fact in span.attributes}


def test_a_redemption_and_its_stages_come_to_the_collector_when_the_server_stops(
    collector: Collector, tmp_path: Path
) -> None:
    with running(tmp_path, GRANTSERVER_TRACES_ENDPOINT=collector.endpoint) as server:
        issued = server.issue()
        answer = server.request(
            "POST",
            f"/{issued.grant.id}",
            issued.code.encode(),
            {"name": "token", "subject": "east", "traceparent": STRANGE},
        )
        assert answer.status == 200
        assert server.redeem(issued, subject="north").status == 404
    assert collector.services() == {"grantserver"}
    spans = collector.spans()
    first, second = (span for span in spans if span.name == "redeem")
    stages = [span for span in spans if span.name != "redeem"]
    assert [span.name for span in sorted(stages, key=lambda one: one.start_time_unix_nano)] == [
        *("judge", "mint", "commit")
    ]
    for span in stages:
        assert (span.trace_id, span.parent_span_id) == (first.trace_id, first.span_id)
        assert first.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= first.end_time_unix_nano
    assert {first.kind, second.kind} == {Span.SPAN_KIND_SERVER}
    assert {span.kind for span in stages} == {Span.SPAN_KIND_INTERNAL}
    assert facts(first) == {
        "http.response.status_code": 200,
        "grantserver.request_id": answer.headers["x-request-id"],
        "grantserver.peer": "127.0.0.1",
        "grantserver.grant": issued.grant.id,
        "grantserver.site": "west",
        "grantserver.name": "token",
        "grantserver.subject": "east",
        "grantserver.redemption": "1 of 1",
    }
    assert facts(second)["grantserver.refused"] == "used_up"
    assert second.status.code == Status.STATUS_CODE_UNSET  # the client's affair
    # A stranger's trace is no trace of ours, and nobody is led to it.
    assert all(span.trace_id.hex() not in STRANGE and not span.links for span in spans)
    assert not first.parent_span_id
    everything = b"".join(collector.bodies)
    assert issued.code.encode() not in everything
    assert b"PRIVATE KEY" not in everything


def test_a_collector_that_fails_hangs_or_is_away_costs_no_redemption(
    collector: Collector, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        away = f"http://127.0.0.1:{closed.getsockname()[1]}"
    collector.status = 500
    collector.go_on.clear()  # it takes what comes, and never answers
    for number, endpoint in enumerate((collector.endpoint, away)):
        with running(tmp_path / str(number), GRANTSERVER_TRACES_ENDPOINT=endpoint) as server:
            for name in ("a", "b"):
                assert server.redeem(server.issue(name)).status == 200
            before = monotonic()
        assert monotonic() - before < PATIENCE / 2


def test_what_waits_is_given_up_at_the_end_where_the_collector_hangs(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "CLOSE_SECONDS", 0.05)
    collector.go_on.clear()
    opened = traces.open_traces(collector.endpoint, version="1", worker=3)
    assert opened is not None
    opened.reconciled("grant", "west", 0.5, done=False)
    before = set(threading.enumerate())
    opened.close()
    new = set(threading.enumerate()) - before
    [last] = [one for one in new if one.name == traces._LAST]
    assert last.is_alive()  # the collector still holds its answer back
    collector.go_on.set()
    last.join(PATIENCE)
    assert not last.is_alive()


def test_a_limit_that_is_reached_and_questions_are_not_traced(
    collector: Collector, tmp_path: Path
) -> None:
    limited = {
        "GRANTSERVER_LIMITS_PEER_FAILURES": "1",
        "GRANTSERVER_TRACES_ENDPOINT": collector.endpoint,
    }
    with running(tmp_path, **limited) as server:
        path = f"/{server.issue().grant.id}"
        assert server.request("GET", path, peer="127.0.0.2").status == 405
        assert [server.request("POST", path, b"x").status for _ in range(3)] == [403, 429, 429]
    [span] = collector.spans()
    assert facts(span)["grantserver.refused"] == "wrong_code"


def test_every_worker_sends_its_own_before_it_ends(collector: Collector, tmp_path: Path) -> None:
    with working(tmp_path, GRANTSERVER_TRACES_ENDPOINT=collector.endpoint) as crew:
        for number in range(4):
            assert crew.server.redeem(crew.server.issue(f"g-{number}")).status == 200
        crew.process.terminate()
        assert crew.ends() == 0
    assert [span.name for span in collector.spans()].count("redeem") == 4


def test_a_reconcile_is_told(collector: Collector) -> None:
    opened = traces.open_traces(collector.endpoint, version="1", worker=None)
    assert opened is not None
    opened.reconciled("grant", "west", 0.5, done=False)
    opened.close()
    [span] = collector.spans()
    assert span.name == "reconcile"
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert span.end_time_unix_nano - span.start_time_unix_nano == 500_000_000
    assert facts(span) == {"grantserver.kind": "grant", "k8s.namespace.name": "west"}


def test_what_a_stranger_says_is_cut(collector: Collector) -> None:
    opened = traces.open_traces(collector.endpoint, version="1", worker=None)
    assert opened is not None
    told = {"subject": "s" * 5000, "presented_code": "hunter2", "grant": None}
    opened.answered("redeem", 0.1, status=503, refused="unavailable", facts=told)
    opened.close()
    [span] = collector.spans()
    found = facts(span)
    assert found.pop("grantserver.subject") == "s" * 256
    assert found == {"http.response.status_code": 503, "grantserver.refused": "unavailable"}
    assert span.status.code == Status.STATUS_CODE_ERROR


def test_nothing_of_it_is_loaded_where_it_is_off() -> None:
    program = (
        "import sys, app.cli.root, app.serve, app.workers, app.in_cluster, app.traces\n"
        "assert app.traces.open_traces('', version='1', worker=None) is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'google.'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert done.stdout.strip() == "[]"


def test_without_what_it_needs_the_setting_is_told_to_be_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(Misconfigured) as caught:
        traces.open_traces("http://127.0.0.1:4318/v1/traces", version="1", worker=None)
    [problem] = caught.value.problems
    assert problem.startswith("GRANTSERVER_TRACES_ENDPOINT needs OpenTelemetry")
    assert "grantserver[tracing]" in problem
