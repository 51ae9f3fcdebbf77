"""Deadlines that pass, of many callers at once: each counts as DEADLINE_EXCEEDED, whatever the call did."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seqserve.inference import grpc_service_pb2 as inference
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from seqserve.v1 import forecasting_pb2, text_classification_pb2, text_generation_pb2
from seqserve.v1.forecasting_pb2_grpc import ForecastingStub
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub
from tests.integration.process import ServerProcess

CALLERS = 6
LATE: dict[str, Any] = {"timeout": 0.4, "metadata": (("x-request-id", "late"),)}


def generation(channel: grpc.Channel, _: Event) -> Any:
    """Run or wait for a slot, of which there are fewer than callers."""
    request = text_generation_pb2.GenerateRequest(model="letters", max_tokens=100_000)
    return TextGenerationStub(channel).Generate(request, **LATE)


def infer_request() -> inference.ModelInferRequest:
    request = inference.ModelInferRequest(model_name="letters")
    request.parameters["max_tokens"].int64_param = 100_000
    prompt = request.inputs.add(name="prompt", datatype="BYTES", shape=[1])
    prompt.contents.bytes_contents.append(b"abc")
    return request


def infer(channel: grpc.Channel, _: Event) -> Any:
    stub = GRPCInferenceServiceStub(channel)
    return iter([stub.ModelInfer(infer_request(), **LATE)])


def infer_stream(channel: grpc.Channel, _: Event) -> Any:
    stub = GRPCInferenceServiceStub(channel)
    return stub.ModelStreamInfer(iter([infer_request()]), **LATE)


def watch(channel: grpc.Channel, _: Event) -> Any:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Watch(health_pb2.HealthCheckRequest(), **LATE)


def open_until(request: Any, over: Event) -> Iterator[Any]:
    """Send one request and leave the stream open."""
    yield request
    over.wait()


def classify_stream(channel: grpc.Channel, over: Event) -> Any:
    request = text_classification_pb2.ClassifyRequest(model="moods", texts=["good"])
    stub = TextClassificationStub(channel)
    return stub.ClassifyStream(open_until(request, over), **LATE)


def forecast_stream(channel: grpc.Channel, over: Event) -> Any:
    request = forecasting_pb2.ForecastStreamRequest(model="prices", id="a")
    stub = ForecastingStub(channel)
    return stub.ForecastStream(open_until(request, over), **LATE)


KINDS: dict[str, Callable[[grpc.Channel, Event], Any]] = {
    "/seqserve.v1.TextGeneration/Generate": generation,
    "/inference.GRPCInferenceService/ModelInfer": infer,
    "/inference.GRPCInferenceService/ModelStreamInfer": infer_stream,
    "/grpc.health.v1.Health/Watch": watch,
    "/seqserve.v1.TextClassification/ClassifyStream": classify_stream,
    "/seqserve.v1.Forecasting/ForecastStream": forecast_stream,
}


def make_calls(address: str, number: int, over: Event) -> None:
    """Make a call of each kind over a connection of its own, one after the other."""
    with grpc.insecure_channel(address, options=[("number", number)]) as channel:
        for start in KINDS.values():
            with pytest.raises(grpc.RpcError) as refusal:
                for _ in start(channel, over):
                    pass
            error: Any = refusal.value
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def codes_of(metrics: str) -> dict[str, dict[str, float]]:
    """Calls by method and code."""
    pattern = r'^seqserve_requests_total\{code="(\w+)",method="([^"]+)"\} (\S+)$'
    found: dict[str, dict[str, float]] = {}
    for code, method, count in re.findall(pattern, metrics, re.MULTILINE):
        found.setdefault(method, {})[code] = float(count)
    return found


async def test_passed_deadline_counts_as_one_for_every_rpc_and_caller(tiny_repository: Path) -> None:
    settings = {"SLOTS": "2", "LOG_CALLS": "true", "LOG_LEVEL": "debug"}
    over = Event()
    async with ServerProcess(tiny_repository, settings) as server:
        callers = (asyncio.to_thread(make_calls, server.address, one, over) for one in range(CALLERS))
        await asyncio.gather(*callers)
        over.set()
        expected = Counter({(method, "DEADLINE_EXCEEDED"): CALLERS for method in KINDS})
        while sum(counted(server).values()) < expected.total():
            await server.wait_for_output()
        assert counted(server) == expected
        counts = codes_of(await asyncio.to_thread(scrape, server.http_port))
        for method in KINDS:
            assert counts[method]["DEADLINE_EXCEEDED"] == CALLERS


def counted(server: ServerProcess) -> Counter[tuple[str, str]]:
    """The calls made here in the log, by method and code."""
    lines = [event for event in server.events if event["event"] == "call ended"]
    return Counter((line["method"], line["code"]) for line in lines if line["request_id"] == "late")


def scrape(port: int) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics", headers={"Connection": "close"})
    with connection.getresponse() as response:
        return response.read().decode()
