"""service.observability.tracing, its spans kept in memory. What reaches a collector is tested in
tests/integration.
"""

import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, rpc_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.trace import SpanKind, StatusCode
from structlog.contextvars import clear_contextvars

from service.engine.request import Goal, Request, Row
from service.observability.times import Times
from service.observability.traced import Answered, Asked
from service.observability.tracing import MAX_SEQUENCES, CallTrace, Tracing, tracing_to
from service.parts import StartError
from service.server import Server
from tests.service.builders import settings_of

METHOD = "/seqserve.v1.TextGeneration/Generate"
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECOND_NS = 1_000_000_000


class Bench:
    """Tracing whose spans are kept."""

    def __init__(self, ratio: float = 1.0) -> None:
        self._kept = InMemorySpanExporter()
        self.tracing = Tracing(self._kept, ratio)

    def begin(self, *metadata: tuple[str, str | bytes]) -> CallTrace | None:
        return self.tracing.begin(METHOD, metadata, "mine")

    def begun(self, *metadata: tuple[str, str | bytes]) -> CallTrace:
        trace = self.begin(*metadata)
        assert trace is not None
        return trace

    @property
    def spans(self) -> list[ReadableSpan]:
        """Of the calls that have ended: first a call's sequences', in order, then its own."""
        self.tracing._provider.force_flush()
        return list(self._kept.get_finished_spans())


@pytest.fixture(autouse=True)
def _no_traces_of_it() -> Iterator[None]:
    """What is bound to the log's lines here stays here."""
    yield
    clear_contextvars()


@pytest.fixture
def bench_of() -> Iterator[Callable[[float], Bench]]:
    """Makes tracing with a ratio."""
    with ExitStack() as made:

        def bench_of(ratio: float) -> Bench:
            bench = Bench(ratio)
            made.callback(bench.tracing.stop)
            return bench

        yield bench_of


@pytest.fixture
def bench(bench_of: Callable[[float], Bench]) -> Bench:
    return bench_of(1.0)


class Nobody:
    backlog = 0
    max_backlog = 1

    def receive(self, output: Any) -> None:
        raise AssertionError(f"no engine runs here, found {output}")


def row_of(
    goal: Goal = Goal.GENERATE, steps: int = 5, admitted: float = 0, prefilled: float = 0, ended: float = 0
) -> Row:
    """Build a row whose times are so many seconds after it came, 0: not yet."""
    now = time.monotonic()
    times = {
        name: now + after
        for name, after in (("admitted_at", admitted), ("prefilled_at", prefilled), ("ended_at", ended))
        if after
    }
    return Row(Request(np.zeros(steps, np.int64), goal), Nobody(), Times(now, **times))


def stages(spans: list[ReadableSpan]) -> list[tuple[str, int]]:
    """Name and whole seconds of each."""
    found = []
    for span in spans:
        assert span.start_time is not None
        assert span.end_time is not None
        found.append((span.name, round((span.end_time - span.start_time) / SECOND_NS)))
    return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_call_is_a_server_span_with_method_and_code(bench: Bench) -> None:
    bench.begun().end("OK")
    [span] = bench.spans
    assert (span.name, span.kind) == ("seqserve.v1.TextGeneration/Generate", SpanKind.SERVER)
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span) == {
        "rpc.system.name": "grpc",
        "rpc.method": "seqserve.v1.TextGeneration/Generate",
        "rpc.response.status_code": "OK",
        "seqserve.request_id": "mine",
    }


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("INTERNAL", StatusCode.ERROR),
        ("UNAVAILABLE", StatusCode.ERROR),
        ("DEADLINE_EXCEEDED", StatusCode.ERROR),
        ("INVALID_ARGUMENT", StatusCode.UNSET),
        ("RESOURCE_EXHAUSTED", StatusCode.UNSET),
        ("CANCELLED", StatusCode.UNSET),
    ],
)
def test_span_is_an_error_where_the_server_is_at_fault(bench: Bench, code: str, status: StatusCode) -> None:
    bench.begun().end(code)
    [span] = bench.spans
    assert span.status.status_code is status
    assert attributes(span)["rpc.response.status_code"] == code


def test_trace_of_the_caller_is_continued(bench: Bench) -> None:
    bench.begun(("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"), ("tracestate", "vendor=1")).end("OK")
    [span] = bench.spans
    assert span.parent is not None
    assert span.context is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, PARENT_ID)
    assert span.context.trace_state.get("vendor") == "1"


@pytest.mark.parametrize("value", ["", "00-0-0-01", "garbage", f"00-{'0' * 32}-{PARENT_ID}-01", b"bytes"])
def test_malformed_traceparent_begins_a_trace(bench: Bench, value: str | bytes) -> None:
    bench.begun(("traceparent", value)).end("OK")
    assert bench.spans[0].parent is None


def test_caller_decides_whether_he_is_traced(bench_of: Callable[[float], Bench]) -> None:
    assert bench_of(1.0).begin(("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-00")) is None
    assert bench_of(0.0).begin(("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01")) is not None


def test_ratio_decides_for_callers_without_a_trace(bench_of: Callable[[float], Bench]) -> None:
    none, some = bench_of(0.0), bench_of(0.5)
    assert [none.begin() for _ in range(50)] == [None] * 50
    assert 0 < sum(some.begin() is not None for _ in range(200)) < 200


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            row_of(admitted=10, prefilled=30, ended=60),
            [("queue", 10), ("prefill", 20), ("decode", 30)],
            id="generation",
        ),
        pytest.param(
            row_of(steps=1, admitted=10, ended=60),
            [("queue", 10), ("prefill", 0), ("decode", 50)],
            id="prompt of one token",
        ),
        pytest.param(
            row_of(admitted=10, prefilled=10, ended=60),
            [("queue", 10), ("prefill", 0), ("decode", 50)],
            id="known prompt",
        ),
        pytest.param(row_of(Goal.LAST, admitted=10, ended=60), [("queue", 10), ("prefill", 50)], id="answer"),
        pytest.param(
            row_of(Goal.SCORE, steps=1, admitted=10, ended=60),
            [("queue", 10), ("prefill", 50)],
            id="score",
        ),
        pytest.param(row_of(ended=60), [("queue", 60)], id="ended in the queue"),
        pytest.param(row_of(admitted=10, ended=60), [("queue", 10), ("prefill", 50)], id="ended in prefill"),
    ],
)
def test_sequence_becomes_a_span_a_stage(bench: Bench, row: Row, expected: list[tuple[str, int]]) -> None:
    trace = bench.begun()
    trace.add([row])
    trace.end("OK")
    *children, parent = bench.spans
    assert stages(children) == expected
    assert parent.context is not None
    assert all(one.parent is not None and one.parent.span_id == parent.context.span_id for one in children)
    assert all(one.end_time == other.start_time for one, other in pairwise(children))
    assert attributes(children[0]) == {
        "seqserve.sequence": 0,
        "seqserve.prefill_steps": row.prefill_steps,
    }
    assert attributes(parent)["seqserve.sequences"] == 1


GENERATION = {
    "gen_ai.operation.name": "text_completion",
    "gen_ai.provider.name": "seqserve",
    "gen_ai.request.model": "letters",
    "gen_ai.response.model": "letters/3",
}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Asked(20), {"gen_ai.request.max_tokens": 20, "seqserve.stop_strings": 0}),
        (
            Asked(5, 0.0, 40, 0.5, 7, 2),
            {
                "gen_ai.request.max_tokens": 5,
                "gen_ai.request.temperature": 0.0,
                "gen_ai.request.top_k": 40.0,
                "gen_ai.request.top_p": 0.5,
                "gen_ai.request.seed": 7,
                "seqserve.stop_strings": 2,
            },
        ),
        (
            Asked(5, seed=2**63 - 1),
            {"gen_ai.request.max_tokens": 5, "gen_ai.request.seed": 2**63 - 1, "seqserve.stop_strings": 0},
        ),
        (Asked(5, seed=2**63), {"gen_ai.request.max_tokens": 5, "seqserve.stop_strings": 0}),
    ],
)
def test_generation_has_its_model_and_the_options_that_were_set(
    bench: Bench, asked: Asked, expected: dict[str, Any]
) -> None:
    trace = bench.begun()
    trace.serve("letters", 3, "text-generation")
    trace.ask(asked)
    trace.end("CANCELLED")
    [span] = bench.spans
    found = attributes(span)
    assert {key: value for key, value in found.items() if key.startswith("gen_ai.") or "stop" in key} == {
        **GENERATION,
        **expected,
    }
    assert found["seqserve.model.name"] == "letters"
    assert found["seqserve.model.version"] == 3
    assert found["seqserve.task"] == "text-generation"


def test_generations_of_a_stream_are_summed_and_name_the_model_of_the_first(bench: Bench) -> None:
    trace = bench.begun()
    for number in range(2 * MAX_SEQUENCES):
        trace.serve(f"letters-{number}", number + 1, "text-generation")
        trace.ask(Asked(number + 5))
        trace.answer(Answered("stop" if number else "length", 3, 10))
    trace.end("OK")
    found = attributes(bench.spans[0])
    assert found["seqserve.model.name"] == "letters-0"
    assert found["gen_ai.request.max_tokens"] == 5
    assert found["gen_ai.usage.input_tokens"] == 3 * 2 * MAX_SEQUENCES
    assert found["gen_ai.usage.output_tokens"] == 10 * 2 * MAX_SEQUENCES
    assert found["gen_ai.response.finish_reasons"] == ("length", *["stop"] * (MAX_SEQUENCES - 1))


def test_names_of_attributes_are_those_of_the_conventions(bench: Bench) -> None:
    trace = bench.begun()
    trace.serve("letters", 3, "text-generation")
    trace.ask(Asked(5, 0.0, 40, 0.5, 7, 2))
    trace.answer(Answered("stop", 3, 10))
    trace.end("INTERNAL")
    declared = {
        value
        for module in (gen_ai_attributes, rpc_attributes, error_attributes)
        for name, value in vars(module).items()
        if name.isupper()
    }
    names = {name for name in attributes(bench.spans[0]) if not name.startswith("seqserve.")}
    assert names <= declared


def test_resource_names_service_version_and_instance(bench: Bench) -> None:
    bench.begun().end("OK")
    resource = bench.spans[0].resource.attributes
    assert resource["service.name"] == "seqserve"
    assert resource["service.version"] == version("seqserve")
    assert resource["service.instance.id"]


def test_sequence_that_goes_on_ends_with_its_call(bench: Bench) -> None:
    trace = bench.begun()
    trace.add([row_of()])
    trace.end("CANCELLED")
    queue, call = bench.spans
    assert queue.name == "queue"
    assert queue.end_time == call.end_time


def test_call_with_many_sequences_has_spans_of_the_first(bench: Bench) -> None:
    trace = bench.begun()
    for _ in range(5):
        trace.add([row_of(Goal.LAST, admitted=1, ended=2) for _ in range(7)])
    trace.end("OK")
    *children, call = bench.spans
    assert [attributes(one)["seqserve.sequence"] for one in children if one.name == "queue"] == list(
        range(MAX_SEQUENCES)
    )
    assert attributes(call)["seqserve.sequences"] == 35


def test_trace_of_a_long_stream_keeps_times_alone_and_of_the_first_sequences(bench: Bench) -> None:
    trace, inputs = bench.begun(), []
    for _ in range(2 * MAX_SEQUENCES):
        row = row_of(Goal.LAST, admitted=1, ended=2)
        trace.add([row])
        inputs.append(weakref.ref(row.request.inputs))
    del row
    assert [one() for one in inputs] == [None] * (2 * MAX_SEQUENCES)
    assert len(trace._traced) == MAX_SEQUENCES


def test_times_that_are_stamped_later_are_those_of_the_spans(bench: Bench) -> None:
    trace, row = bench.begun(), row_of(Goal.LAST)
    trace.add([row])
    row.times.admitted_at = row.times.submitted_at + 10
    row.times.ended_at = row.times.submitted_at + 30
    trace.end("OK")
    assert stages(bench.spans)[:-1] == [("queue", 10), ("prefill", 20)]


def test_stop_without_a_collector_is_bounded() -> None:
    tracing = tracing_to("http://127.0.0.1:1", 1.0)
    trace = tracing.begin(METHOD, (), "mine")
    assert trace is not None
    trace.end("OK")
    started = time.monotonic()
    tracing.stop()
    assert time.monotonic() - started < 20


@pytest.fixture
def _without_the_extra(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "service.observability.tracing")
        patch.setitem(sys.modules, "opentelemetry.context", None)
        yield


@pytest.mark.usefixtures("_without_the_extra")
async def test_start_without_the_extra_is_refused(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        grpc_address=f"unix:{tmp_path}/socket",
        http_address="127.0.0.1:0",
        traces_endpoint="http://127.0.0.1:1",
    )
    with pytest.raises(
        StartError, match=r"SEQSERVE_TRACES_ENDPOINT: expected seqserve's extra 'traces' to be installed"
    ):
        Server(settings)
