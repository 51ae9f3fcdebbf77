"""What a server tells of its calls: request ids, a line a call in the log, and spans at a collector that
speaks OTLP as any does.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from seqserve.inference import grpc_service_pb2 as inference
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from tests.integration.calls import Calls, forecast_request
from tests.integration.process import ROOT, ServerProcess

GENERATE, CLASSIFY = "seqserve.v1.TextGeneration/Generate", "seqserve.v1.TextClassification/Classify"
CLASSIFY_STREAM = "seqserve.v1.TextClassification/ClassifyStream"
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WORD = "key-of-the-shop"
# Of no model's vocabulary, so that nothing else can bring it into the log.
SAID = "gewgaw"
MANY = 40
# Imported by the server's Python at its start: every classification raises while it holds the texts.
BROKEN = """
from service.tasks.classification import ClassificationTask

async def classify(self, texts, caller):
    words = [text.split() for text in texts]
    raise RuntimeError(f"classification is broken by {texts[0]}")

ClassificationTask.classify = classify
"""


class Collector(TraceServiceServicer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []

    async def Export(self, request: ExportTraceServiceRequest, _: Any) -> ExportTraceServiceResponse:  # noqa: N802
        for of_resource in request.resource_spans:
            self.resources.append(values_of(of_resource.resource.attributes))
            for of_scope in of_resource.scope_spans:
                self.spans.extend(of_scope.spans)
        return ExportTraceServiceResponse()


@asynccontextmanager
async def collecting() -> AsyncIterator[tuple[Collector, str]]:
    """A collector, and its endpoint."""
    collector, server = Collector(), aio.server()
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


def values_of(attributes: Any) -> dict[str, Any]:
    def value_of(one: KeyValue) -> Any:
        if one.value.HasField("array_value"):
            return [item.string_value for item in one.value.array_value.values]
        return getattr(one.value, one.value.WhichOneof("value") or "string_value")

    return {one.key: value_of(one) for one in attributes}


@dataclass(slots=True)
class Record:
    """What a server has told of the calls made here, once it has stopped.

    Attributes:
        events: lines of its log.
        spans: at the collector.
        resources: that spans came from.
        returned: the request id that came back, by the id that was sent, "" where none was.
        status: its exit status.
    """

    events: list[dict[str, Any]]
    spans: list[Span]
    resources: list[dict[str, str]]
    returned: dict[str, str] = field(default_factory=dict)
    status: int = -1

    def call(self, request_id: str) -> Span:
        """The span of the call with that id."""
        [found] = [
            span for span in self.spans if values_of(span.attributes).get("seqserve.request_id") == request_id
        ]
        return found

    def children(self, call: Span) -> list[Span]:
        """The spans under that of a call, first come first."""
        found = [
            span
            for span in self.spans
            if span.parent_span_id == call.span_id and span.trace_id == call.trace_id
        ]
        return sorted(
            found,
            key=lambda span: (
                values_of(span.attributes)["seqserve.sequence"],
                span.start_time_unix_nano,
                span.end_time_unix_nano,
            ),
        )

    def line(self, request_id: str) -> dict[str, Any]:
        """The line of the log that the call with that id has."""
        [found] = [
            event
            for event in self.events
            if event["event"] == "call ended" and event["request_id"] == request_id
        ]
        return found


async def trailing_id(call: Any) -> str:
    """The request id that a call brings back, however it ends."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except aio.AioRpcError:
        pass
    return str(dict(await call.trailing_metadata())["x-request-id"])


def metadata(request_id: str, *others: tuple[str, str], word: str = WORD) -> tuple[tuple[str, str], ...]:
    named = (("x-request-id", request_id),) if request_id else ()
    return (("authorization", f"Bearer {word}"), *named, *others)


@pytest_asyncio.fixture(scope="module")
async def record(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Record]:
    """Of a server that logs and traces, ended while a call runs; its last spans go out then."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"predict shop {WORD}\n")
    async with collecting() as (collector, endpoint):
        settings = {
            "TOKENS": str(tokens),
            "LOG_CALLS": "true",
            "LOG_LEVEL": "debug",
            "DRAIN_SECONDS": "0",
            "TRACES_ENDPOINT": endpoint,
        }
        async with ServerProcess(tiny_repository, settings) as server:
            record = Record(server.events, collector.spans, collector.resources)
            async with server.channel() as channel:
                await make_calls(Calls(channel), record)
                request = generation.GenerateRequest(model="letters", max_tokens=100_000, seed=1)
                stream = Calls(channel).generation.Generate(request, metadata=metadata("long"))
                await anext(aiter(stream))
                server.terminate()
                record.returned["long"] = await trailing_id(stream)
            record.status = await server.ended()
    yield record


async def make_calls(calls: Calls, record: Record) -> None:
    """Each under an id of its own; some well, some refused."""
    parent, unsampled = (
        ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"),
        ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-00"),
    )
    text = generation.GenerateRequest(model="letters", prompt="abcdefgh" * 20, max_tokens=30, seed=1)
    short = generation.GenerateRequest(model="letters", max_tokens=3, seed=1)
    said = classification.ClassifyRequest(model="moods", texts=[f"good {SAID}", "bad film"])
    wrong = classification.ClassifyRequest(model=SAID, texts=["good"])
    opened = inference.ModelInferRequest(model_name="letters")
    opened.parameters["max_tokens"].int64_param = 3
    opened.inputs.add(name="prompt", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"abc")
    prices = forecast_request([[[100.0, 101.0, 99.0, 100.0, 1000.0]] * 40])
    infer: Any = GRPCInferenceServiceStub(calls.channel)
    made = {
        "opened": infer.ModelInfer(opened, metadata=metadata("opened")),
        "prices": calls.forecasting.Forecast(prices, metadata=metadata("prices")),
        "text": calls.generation.Generate(text, metadata=metadata("text", parent)),
        "short": calls.generation.Generate(short, metadata=metadata("short")),
        "said": calls.classification.Classify(said, metadata=metadata("said")),
        "refused": calls.classification.Classify(wrong, metadata=metadata("refused")),
        "stranger": calls.classification.Classify(said, metadata=metadata("stranger", word="another")),
        "unsampled": calls.classification.Classify(said, metadata=metadata("unsampled", unsampled)),
        "many": calls.classification.ClassifyStream(iter([said] * MANY), metadata=metadata("many")),
        "": calls.classification.Classify(said, metadata=metadata("")),
        "x" * 129: calls.classification.Classify(said, metadata=metadata("x" * 129)),
        "probe": health_pb2_grpc.HealthStub(calls.channel).Check(
            health_pb2.HealthCheckRequest(), metadata=metadata("probe")
        ),
    }
    for request_id, call in made.items():
        record.returned[request_id] = await trailing_id(call)


def test_id_of_a_call_comes_back_however_it_ends(record: Record) -> None:
    for request_id in ("text", "short", "said", "refused", "stranger", "many", "probe", "long"):
        assert record.returned[request_id] == request_id


def test_id_that_is_missing_or_too_long_is_replaced(record: Record) -> None:
    made = {record.returned[""], record.returned["x" * 129]}
    assert len(made) == 2
    assert all(0 < len(one) <= 128 and not one.startswith("xxx") for one in made)
    assert all(record.line(one)["code"] == "OK" for one in made)


@pytest.mark.parametrize(
    ("request_id", "method", "code"),
    [
        ("text", GENERATE, "OK"),
        ("long", GENERATE, "UNAVAILABLE"),
        ("said", CLASSIFY, "OK"),
        ("refused", CLASSIFY, "NOT_FOUND"),
        ("many", CLASSIFY_STREAM, "OK"),
    ],
)
def test_call_has_a_line_in_the_log(record: Record, request_id: str, method: str, code: str) -> None:
    line = record.line(request_id)
    assert (line["method"], line["code"], line["level"], line["caller"]) == (
        f"/{method}",
        code,
        "info",
        "shop",
    )
    assert line["seconds"] > 0
    assert set(line) - {"trace_id"} == {
        "event",
        "method",
        "code",
        "seconds",
        "caller",
        "request_id",
        "level",
        "timestamp",
    }


def test_line_of_a_stranger_names_nobody(record: Record) -> None:
    line = record.line("stranger")
    assert line["code"] == "UNAUTHENTICATED"
    assert "caller" not in line


def test_line_of_a_probe_is_for_debugging(record: Record) -> None:
    assert record.line("probe")["level"] == "debug"


def test_line_and_trace_name_each_other(record: Record) -> None:
    assert record.line("text")["trace_id"] == record.call("text").trace_id.hex() == TRACE_ID


def test_neither_log_nor_traces_tell_what_was_said(record: Record) -> None:
    for told in (str(record.events), str(record.spans)):
        assert SAID not in told
        assert WORD not in told
        assert "abcdefgh" not in told


def test_server_names_itself_to_the_collector(record: Record) -> None:
    assert record.status == 0
    assert {one["service.name"] for one in record.resources} == {"seqserve"}
    assert {one["service.version"] for one in record.resources} == {version("seqserve")}
    assert len({one["service.instance.id"] for one in record.resources}) == 1


def test_span_of_a_call_goes_on_from_its_callers(record: Record) -> None:
    call = record.call("text")
    assert (call.name, call.kind) == (GENERATE, Span.SPAN_KIND_SERVER)
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert values_of(call.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": GENERATE,
        "rpc.response.status_code": "OK",
        "seqserve.request_id": "text",
        "seqserve.sequences": 1,
        "seqserve.model.name": "letters",
        "seqserve.model.version": 1,
        "seqserve.task": "text-generation",
        "seqserve.stop_strings": 0,
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "seqserve",
        "gen_ai.request.model": "letters",
        "gen_ai.response.model": "letters/1",
        "gen_ai.request.max_tokens": 30,
        "gen_ai.request.seed": 1,
        "gen_ai.usage.input_tokens": 160,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.response.finish_reasons": ["length"],
    }


@pytest.mark.parametrize(
    ("request_id", "model", "task"),
    [
        ("said", "moods", "text-classification"),
        ("many", "moods", "text-classification"),
        ("prices", "prices", "forecasting"),
        ("opened", "letters", "text-generation"),
        ("long", "letters", "text-generation"),
    ],
)
def test_span_names_model_version_and_task(record: Record, request_id: str, model: str, task: str) -> None:
    found = values_of(record.call(request_id).attributes)
    names = ("seqserve.model.name", "seqserve.model.version", "seqserve.task")
    assert tuple(found[name] for name in names) == (model, 1, task)
    assert ("gen_ai.request.model" in found) == (task == "text-generation")


def test_span_of_the_open_inference_protocol_has_tokens_too(record: Record) -> None:
    found = values_of(record.call("opened").attributes)
    assert found["gen_ai.usage.output_tokens"] == 3
    assert found["gen_ai.response.finish_reasons"] == ["length"]


@pytest.mark.parametrize("request_id", ["text", "short"])
def test_generation_has_queue_prefill_and_decode_one_after_the_other(record: Record, request_id: str) -> None:
    call = record.call(request_id)
    stages = record.children(call)
    assert [one.name for one in stages] == ["queue", "prefill", "decode"]
    moments = [
        call.start_time_unix_nano,
        *(moment for one in stages for moment in (one.start_time_unix_nano, one.end_time_unix_nano)),
    ]
    assert moments == sorted(moments)
    assert all(one.end_time_unix_nano == other.start_time_unix_nano for one, other in pairwise(stages))
    assert stages[-1].end_time_unix_nano <= call.end_time_unix_nano
    assert stages[-1].end_time_unix_nano > stages[-1].start_time_unix_nano


def test_answer_has_queue_and_prefill_for_each_text(record: Record) -> None:
    call = record.call("said")
    stages = record.children(call)
    assert [(one.name, values_of(one.attributes)["seqserve.sequence"]) for one in stages] == [
        ("queue", 0),
        ("prefill", 0),
        ("queue", 1),
        ("prefill", 1),
    ]
    assert [values_of(one.attributes)["seqserve.prefill_steps"] for one in stages] == [2] * 4
    assert all(
        call.start_time_unix_nano
        <= one.start_time_unix_nano
        <= one.end_time_unix_nano
        <= call.end_time_unix_nano
        for one in stages
    )


@pytest.mark.parametrize(("request_id", "code"), [("refused", "NOT_FOUND"), ("stranger", "UNAUTHENTICATED")])
def test_span_of_a_refused_call_has_its_code_alone(record: Record, request_id: str, code: str) -> None:
    call = record.call(request_id)
    assert values_of(call.attributes)["rpc.response.status_code"] == code
    assert call.status.code == Status.STATUS_CODE_UNSET, "what a caller got wrong is no error of the server"
    assert record.children(call) == []


def test_caller_who_does_not_want_to_be_traced_is_not(record: Record) -> None:
    assert record.line("unsampled")["code"] == "OK"
    assert "unsampled" not in [values_of(one.attributes).get("seqserve.request_id") for one in record.spans]


def test_long_stream_has_spans_of_its_first_sequences(record: Record) -> None:
    call = record.call("many")
    assert values_of(call.attributes)["seqserve.sequences"] == 2 * MANY
    assert len(record.children(call)) == 2 * 16


def test_probes_are_not_traced(record: Record) -> None:
    assert {one.name for one in record.spans} == {
        GENERATE,
        CLASSIFY,
        CLASSIFY_STREAM,
        "inference.GRPCInferenceService/ModelInfer",
        "seqserve.v1.Forecasting/Forecast",
        "queue",
        "prefill",
        "decode",
    }


def test_call_that_is_withdrawn_is_an_error_in_its_trace(record: Record) -> None:
    call = record.call("long")
    assert call.status.code == Status.STATUS_CODE_ERROR
    assert values_of(call.attributes)["error.type"] == "UNAVAILABLE"
    assert [one.name for one in record.children(call)] == ["queue", "prefill", "decode"]


async def test_collector_that_is_away_holds_up_neither_calls_nor_the_end(tiny_repository: Path) -> None:
    async with ServerProcess(tiny_repository, {"TRACES_ENDPOINT": "http://127.0.0.1:1"}) as server:
        async with server.channel() as channel:
            assert len(await Calls(channel).classify(["good"])) == 1
        async with asyncio.timeout(30):
            assert await server.stop() == 0
        assert "call ended" not in [one["event"] for one in server.events]


async def test_trace_of_an_unexpected_error_does_not_tell_what_was_said(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    async with ServerProcess(tiny_repository) as server, server.channel() as channel:
        request = classification.ClassifyRequest(model="moods", texts=[f"good {SAID}"])
        with pytest.raises(aio.AioRpcError) as error:
            await Calls(channel).classification.Classify(request)
        assert error.value.code() is StatusCode.INTERNAL
        await server.stop()
    [failed] = [event for event in server.events if event["event"] == "request failed"]
    told = str(failed["exception"])
    assert "RuntimeError" in told
    assert "sitecustomize.py" in told
    assert SAID not in str(server.events) + "".join(server.other_output)
