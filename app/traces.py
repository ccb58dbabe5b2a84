"""OpenTelemetry traces of redemptions and reconciles, sent to a collector that a setting names.

The only importer of OpenTelemetry, and only then: a server without the setting loads nothing of
it. What is told here is over already: a span is made of how long something took, when it has
ended, and is sent from a thread of its own. Nothing here waits for a collector, or fails with it.
"""

import contextlib
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from app import ambient
from app.errors import Misconfigured

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

CLOSE_SECONDS: Final = 2.0
"""What waits to be sent when the server stops has so long."""

_LAST: Final = "traces-end"
_EXPORT_SECONDS: Final = 5.0  # for a batch, with all that is tried again
_MOST_WAITING: Final = 4096  # spans; what comes to a full queue pushes the oldest out
_MOST_AT_ONCE: Final = 512
_EVERY_SECONDS: Final = 2.0
_NANOSECONDS: Final = 1_000_000_000
_LONGEST: Final = 256  # characters of an attribute: names and subjects are strangers' texts
# What a trace may tell of a request, of all that its line in the log says.
_TOLD: Final = frozenset({"request_id", "peer", "grant", "site", "name", "subject", "redemption"})

# The stages of the redemption that the task works on: name and seconds, one after the other.
_stages: ContextVar[tuple[tuple[str, float], ...]] = ContextVar("stages", default=())


class Traces:
    """Makes spans of what has ended, and sends them in batches."""

    def __init__(self, provider: "TracerProvider") -> None:
        """Not to be called: `open_traces` is how one is made."""
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - see the module

        self._provider = provider
        self._tracer = provider.get_tracer("grantserver")
        self._below = set_span_in_context

    def stage(self, name: str, seconds: float) -> None:
        """Note a stage of the request that this task works on; the next one began at its end."""
        _stages.set((*_stages.get(), (str(name), seconds)))

    def answered(
        self,
        name: str,
        seconds: float,
        *,
        status: int,
        refused: str | None,
        facts: Mapping[str, object],
    ) -> None:
        """Tell of a request that took so long until now, with its stages below it.

        `facts` are those of its line in the log: who and what, of which only some are told.
        `refused` is the cause of a refusal. Never raises.
        """
        attributes: dict[str, str | int] = {"http.response.status_code": status}
        if refused is not None:
            attributes["grantserver.refused"] = refused
        for fact in _TOLD & facts.keys():
            if facts[fact] is not None:
                attributes[f"grantserver.{fact}"] = str(facts[fact])[:_LONGEST]
        failed = status >= 500  # noqa: PLR2004
        stages = _stages.get()
        self._send(name, seconds, attributes, failed=failed, answers=True, stages=stages)
        _stages.set(())

    def reconciled(self, kind: str, namespace: str, seconds: float, *, done: bool) -> None:
        """Tell of a reconcile that took so long until now. Never raises."""
        attributes = {"grantserver.kind": str(kind), "k8s.namespace.name": namespace}
        self._send("reconcile", seconds, attributes, failed=not done)

    def close(self) -> None:
        """Send what waits, within `CLOSE_SECONDS`; what a collector does not take by then is lost.

        Blocks for as long. OpenTelemetry's own end waits for an export under way, hence the thread.
        """
        last = threading.Thread(target=self._provider.shutdown, name=_LAST, daemon=True)
        last.start()
        last.join(CLOSE_SECONDS)

    def _send(
        self,
        name: str,
        seconds: float,
        attributes: Mapping[str, str | int],
        *,
        failed: bool,
        answers: bool = False,
        stages: Sequence[tuple[str, float]] = (),
    ) -> None:
        with contextlib.suppress(Exception):  # a claim is never worse off for having been traced
            self._make(name, seconds, attributes, failed=failed, answers=answers, stages=stages)

    def _make(
        self,
        name: str,
        seconds: float,
        attributes: Mapping[str, str | int],
        *,
        failed: bool,
        answers: bool,
        stages: Sequence[tuple[str, float]],
    ) -> None:
        from opentelemetry.context import Context  # noqa: PLC0415 - see the module
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415

        end = round(ambient.utc_instant() * _NANOSECONDS)
        # An empty context: a trace begins here, whatever a stranger says of one of its own.
        span = self._tracer.start_span(
            name,
            context=Context(),
            kind=SpanKind.SERVER if answers else SpanKind.INTERNAL,
            attributes=attributes,
            start_time=end - round(seconds * _NANOSECONDS),
        )
        if failed:
            span.set_status(StatusCode.ERROR)
        below = self._below(span, Context())
        moment = end
        for stage, took in reversed(stages):
            before = moment - round(took * _NANOSECONDS)
            self._tracer.start_span(stage, context=below, start_time=before).end(moment)
            moment = before
        span.end(end)


def open_traces(endpoint: str, *, version: str, worker: int | None) -> Traces | None:
    """Send traces to a collector's OTLP/HTTP endpoint; None where there is none.

    Nothing is sent yet, and a collector that is not there is no hindrance. Raises Misconfigured
    where the program was installed without what is needed for it.
    """
    if not endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415
    except ImportError as error:
        problem = (
            "GRANTSERVER_TRACES_ENDPOINT needs OpenTelemetry, which is not installed: "
            "pip install 'grantserver[tracing]', or leave the setting empty"
        )
        raise Misconfigured([problem]) from error
    facts: dict[str, str | int] = {"service.name": "grantserver", "service.version": version}
    if worker is not None:
        facts["grantserver.worker"] = worker
    # Said in full, so that no variable of the environment says otherwise.
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource(facts), shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(
            OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS),
            max_queue_size=_MOST_WAITING,
            schedule_delay_millis=_EVERY_SECONDS * 1000,
            max_export_batch_size=_MOST_AT_ONCE,
        )
    )
    return Traces(provider)
