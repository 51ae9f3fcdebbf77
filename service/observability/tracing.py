"""OpenTelemetry traces: a span per call, with child spans for the stages of its sequences.

This is the only module that imports OpenTelemetry, and is imported only if tracing is on. The spans of
sequences are made when their call has ended, from the times that the engine records in any case.
"""

import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
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

from service.observability.times import Times
from service.observability.traced import Answered, Asked, TracedRow

# Sequences of a call that get spans: up to three each, at tens of microseconds of the event loop a span.
MAX_SEQUENCES = 16
# Seconds for exporting the last spans when the server stops.
FLUSH_S = 3.0

# Status codes that OpenTelemetry's conventions for gRPC servers count as server errors.
_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_MAX_INT = (1 << 63) - 1
_HEADERS = ("traceparent", "tracestate")
_propagator = TraceContextTextMapPropagator()


class Stage(NamedTuple):
    """Stage of a sequence: its name, start and end in monotonic seconds."""

    name: str
    start: float
    end: float


class _Traced(NamedTuple):
    """Facts of a sequence for its spans; its inputs are not kept alive."""

    number: int
    times: Times
    generates: bool
    prefill_steps: int


class Tracing:
    """Tracer of calls.

    Args:
        exporter: exports spans, in a thread of its own.
        ratio: share, 0 to 1, of the calls to trace if the client's metadata do not decide it.
    """

    def __init__(self, exporter: SpanExporter, ratio: float) -> None:
        self._exporter = exporter
        resource = Resource.create(
            {
                "service.name": "seqserve",
                "service.version": version("seqserve"),
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            }
        )
        self._provider = TracerProvider(
            ParentBased(TraceIdRatioBased(ratio)), resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("seqserve")

    def begin(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]], request_id: str
    ) -> "CallTrace | None":
        """Begin the trace of a call and bind its id to the call's log lines.

        Args:
            method: full name, as /package.Service/Method.
            metadata: metadata of the call; a W3C traceparent there is continued.
            request_id: id of the call.

        Returns:
            The trace, or None if the call is not sampled.
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
        """Export the remaining spans, for `FLUSH_S` at most."""
        timer = threading.Timer(FLUSH_S, self._exporter.shutdown)
        timer.start()
        try:
            self._provider.shutdown()
        finally:
            timer.cancel()


def tracing_to(endpoint: str, ratio: float) -> Tracing:
    """Return a Tracing that exports to an OTLP collector over gRPC.

    Args:
        endpoint: http://HOST:PORT, or https://HOST:PORT for TLS.
        ratio: share of the calls to trace, see `Tracing`.
    """
    return Tracing(OTLPSpanExporter(endpoint=endpoint), ratio)


class CallTrace:
    """Trace of one call, until `end`.

    Args:
        tracer: makes spans.
        span: started span of the call.
        offset_ns: epoch time minus monotonic time, nanoseconds.
    """

    def __init__(self, tracer: Tracer, span: Span, offset_ns: int) -> None:
        self._tracer = tracer
        self._span = span
        self._offset_ns = offset_ns
        self._num_added = 0
        self._traced: list[_Traced] = []
        self._model, self._version = "", 0
        self._num_generations, self._input_tokens, self._output_tokens = 0, 0, 0
        self._finishes: list[str] = []

    def add(self, rows: Sequence[TracedRow]) -> None:
        """Add submitted sequences; beyond the first MAX_SEQUENCES of a call they are only counted."""
        num_free = MAX_SEQUENCES - len(self._traced)
        self._traced.extend(
            _Traced(number, row.times, row.generates, row.prefill_steps)
            for number, row in enumerate(rows[:num_free], start=self._num_added)
        )
        self._num_added += len(rows)

    def serve(self, model: str, version: int, task: str) -> None:
        """Set the model of the call: that of its first request, where a stream has several."""
        if not self._model:
            self._model, self._version = model, version
            names = ("seqserve.model.name", "seqserve.model.version", "seqserve.task")
            self._span.set_attributes(dict(zip(names, (model, version, task), strict=True)))

    def ask(self, asked: Asked) -> None:
        """Set the options of a generation: those of the call's first, where a stream has several."""
        self._num_generations += 1
        if self._num_generations == 1:
            self._span.set_attributes(_attributes_of(asked, self._model, self._version))

    def answer(self, answered: Answered) -> None:
        """Add the tokens and the finish reason of a generation, reasons of the first MAX_SEQUENCES."""
        self._input_tokens += answered.input_tokens
        self._output_tokens += answered.output_tokens
        if len(self._finishes) < MAX_SEQUENCES:
            self._finishes.append(answered.finish)

    def end(self, code: str) -> None:
        """End the spans of the call's sequences, then the call's own.

        Args:
            code: name of the call's gRPC status code.
        """
        now = time.monotonic()
        span = self._span
        context = set_span_in_context(span, Context())
        for traced in self._traced:
            attributes = {"seqserve.sequence": traced.number, "seqserve.prefill_steps": traced.prefill_steps}
            for stage in _stages(traced, now):
                child = self._tracer.start_span(
                    stage.name, context, attributes=attributes, start_time=self._epoch_ns(stage.start)
                )
                child.end(self._epoch_ns(stage.end))
        span.set_attribute("rpc.response.status_code", code)
        if self._finishes:
            span.set_attribute("gen_ai.response.finish_reasons", self._finishes)
            span.set_attribute("gen_ai.usage.input_tokens", self._input_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", self._output_tokens)
        if self._num_added:
            span.set_attribute("seqserve.sequences", self._num_added)
        if code in _ERRORS:
            span.set_attribute("error.type", code)
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._epoch_ns(now))

    def _epoch_ns(self, seconds: float) -> int:
        return self._offset_ns + round(seconds * 1e9)


def _attributes_of(asked: Asked, model: str, version: int) -> dict[str, str | int | float]:
    """Return the attributes of a generation, as OpenTelemetry's conventions for generative AI name them."""
    attributes: dict[str, str | int | float | None] = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "seqserve",
        "gen_ai.request.model": model,
        "gen_ai.response.model": f"{model}/{version}",
        "gen_ai.request.max_tokens": asked.max_tokens,
        "gen_ai.request.temperature": asked.temperature,
        "gen_ai.request.top_k": None if asked.top_k is None else float(asked.top_k),
        "gen_ai.request.top_p": asked.top_p,
        # An attribute holds 64 bits with a sign.
        "gen_ai.request.seed": asked.seed if (asked.seed or 0) <= _MAX_INT else None,
        "seqserve.stop_strings": asked.num_stops,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _stages(traced: _Traced, now: float) -> Iterator[Stage]:
    """Yield the stages of a sequence; an unfinished stage ends at `now`, with its call."""
    times = traced.times
    end = times.ended_at or now
    yield Stage("queue", times.submitted_at, times.admitted_at or end)
    if not times.admitted_at:
        return
    prefilled = times.admitted_at if traced.generates and not traced.prefill_steps else times.prefilled_at
    yield Stage("prefill", times.admitted_at, (prefilled or end) if traced.generates else end)
    if traced.generates and prefilled:
        yield Stage("decode", prefilled, end)
