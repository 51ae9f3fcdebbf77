"""Traces, for OpenTelemetry's collector: a span for each call, and in it what its sequences waited for and
ran.

The one module that knows OpenTelemetry; it is imported only where traces are wanted. Nothing is timed here:
spans of sequences are made when their call has ended, from the times that the engine stamps on each anyway.
"""

import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import bind_contextvars

from service.engine.sequence import Goal, Sequence

# Each has up to three spans, and a span costs tens of microseconds in the event loop.
MOST_SEQUENCES = 16
# How long the last spans may take to get out when the server stops.
FLUSH_S = 3.0

# Codes that are the server's fault rather than its caller's, as OpenTelemetry's conventions for gRPC servers
# have it.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_HEADERS = ("traceparent", "tracestate")
_propagator = TraceContextTextMapPropagator()


class Stage(NamedTuple):
    """A part of a sequence's life: its name, and from when to when, monotonic seconds."""

    name: str
    start: float
    end: float


class _Times(NamedTuple):
    """What is kept of a sequence: its inputs need not outlive it."""

    number: int
    goal: Goal
    prefill_steps: int
    submitted_at: float
    seated_at: float
    prefilled_at: float
    ended_at: float


class Tracing:
    """Where calls are traced.

    Args:
        exporter: where spans go, from a thread of its own.
        ratio: part of the calls that are traced where the caller has not decided it already.
    """

    def __init__(self, exporter: SpanExporter, ratio: float) -> None:
        self._exporter = exporter
        resource = Resource.create(
            {"service.name": "seqserve", "service.instance.id": f"{socket.gethostname()}-{os.getpid()}"}
        )
        self._provider = TracerProvider(
            ParentBased(TraceIdRatioBased(ratio)), resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("seqserve")

    def begin(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]], request_id: str
    ) -> "CallTrace | None":
        """A call has come.

        Args:
            method: as /package.Service/Method.
            metadata: of the call; a W3C traceparent there is continued.
            request_id: of the call.

        Returns:
            Its trace, None where it is not among those traced.
        """
        carrier = {key: value for key, value in metadata if key in _HEADERS and isinstance(value, str)}
        parent = _propagator.extract(carrier, Context()) if carrier else Context()
        now, now_ns, name = time.monotonic(), time.time_ns(), method.removeprefix("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": name, "seqserve.request_id": request_id}
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes, start_time=now_ns)
        if not span.is_recording():
            return None
        bind_contextvars(trace_id=f"{span.get_span_context().trace_id:032x}")
        return CallTrace(self._tracer, span, now_ns - round(now * 1e9))

    def stop(self) -> None:
        """Send what is left, for `FLUSH_S` at most."""
        timer = threading.Timer(FLUSH_S, self._exporter.shutdown)
        timer.start()
        try:
            self._provider.shutdown()
        finally:
            timer.cancel()


def tracing_to(endpoint: str, ratio: float) -> Tracing:
    """Tracing to a collector that speaks OTLP over gRPC.

    Args:
        endpoint: http://HOST:PORT, or https://HOST:PORT for TLS.
        ratio: as of `Tracing`.
    """
    return Tracing(OTLPSpanExporter(endpoint=endpoint), ratio)


class CallTrace:
    """The trace of one call that runs (`service.engine.sequence.Trace`).

    Args:
        tracer: makes its spans.
        span: of the call, started.
        offset_ns: what the epoch's nanoseconds are ahead of the monotonic ones.
    """

    def __init__(self, tracer: Tracer, span: Span, offset_ns: int) -> None:
        self._tracer = tracer
        self._span = span
        self._offset_ns = offset_ns
        self._num_added = 0
        self._running: list[tuple[int, Sequence]] = []
        self._ended: list[_Times] = []

    def add(self, sequences: list[Sequence]) -> None:
        """Take sequences of the call that are in the queue now; those beyond the first `MOST_SEQUENCES` of a
        call are only counted.
        """
        self._settle()
        room = MOST_SEQUENCES - len(self._ended) - len(self._running)
        self._running.extend(enumerate(sequences[:room], start=self._num_added))
        self._num_added += len(sequences)

    def end(self, code: str) -> None:
        """The call is over.

        Args:
            code: name of its gRPC status.
        """
        now = time.monotonic()
        span = self._span
        self._settle()
        context = set_span_in_context(span, Context())
        for times in sorted(
            [*self._ended, *(_times_of(number, sequence) for number, sequence in self._running)]
        ):
            attributes = {"seqserve.sequence": times.number, "seqserve.prefill_steps": times.prefill_steps}
            for stage in _stages(times, now):
                child = self._tracer.start_span(
                    stage.name, context, attributes=attributes, start_time=self._epoch_ns(stage.start)
                )
                child.end(self._epoch_ns(stage.end))
        span.set_attribute("rpc.response.status_code", code)
        if self._num_added:
            span.set_attribute("seqserve.sequences", self._num_added)
        if code in _FAULTS:
            span.set_attribute("error.type", code)
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._epoch_ns(now))

    def _settle(self) -> None:
        """Of a sequence that has ended the times alone are kept: a stream may bring many, one after the
        other.
        """
        running, self._running = self._running, []
        for number, sequence in running:
            # Looked at once: the engine's thread may be about to set it.
            if sequence.ended_at:
                self._ended.append(_times_of(number, sequence))
            else:
                self._running.append((number, sequence))

    def _epoch_ns(self, seconds: float) -> int:
        return self._offset_ns + round(seconds * 1e9)


def _times_of(number: int, one: Sequence) -> _Times:
    return _Times(
        number, one.goal, one.prefill_steps, one.submitted_at, one.seated_at, one.prefilled_at, one.ended_at
    )


def _stages(times: _Times, now: float) -> Iterator[Stage]:
    """What a sequence has gone through; one that has not ended is taken to end now, with its call."""
    end = times.ended_at or now
    yield Stage("queue", times.submitted_at, times.seated_at or end)
    if not times.seated_at:
        return
    is_prompt = times.goal is Goal.GENERATE
    prefilled = times.seated_at if is_prompt and not times.prefill_steps else times.prefilled_at
    yield Stage("prefill", times.seated_at, (prefilled or end) if is_prompt else end)
    if is_prompt and prefilled:
        yield Stage("decode", prefilled, end)
