"""Nothing that callers say is in anything that the server writes: marked values through every rpc and error.

Each value that is sent holds the mark of its kind; all of stderr, the metrics and the spans are searched.
"""

import asyncio
import json
import math
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from seqserve.inference import grpc_service_pb2 as inference
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import models_pb2 as models
from seqserve.v1 import sequences_pb2 as sequences
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from tests import contract2
from tests.integration.calls import Calls
from tests.integration.process import ROOT, ServerProcess
from tests.integration.test_logs_and_traces import Collector, collecting

# Of no model's vocabulary and no word of any message; upper and lower case are searched alike.
MARK = "qzx"
# Digits of every series' values and of every seed that is refused.
NUMBER = 7_130_917
ADMIN, KEY = f"{MARK}admintoken", "0decade0" * 8
# Imported by the server's Python at its start. A request makes a part fail by a word that it says.
FAULTS = """
import asyncio, threading, warnings

def break_parts():
    from service.engine import decode
    from service.tasks.classification import ClassificationTask
    classify, faults = ClassificationTask.classify, []

    class Said(Exception):
        def __init__(self, said):
            super().__init__(said)
            self.add_note(said)

    async def failing(said):
        raise Said(said)

    def call(said):
        raise Said(said)

    async def broken(self, texts, caller):
        said = texts[0]
        what = said.split()[0]
        local = dict(said=said)
        if what == "raise":
            raise Said(said)
        if what == "chain":
            try:
                raise KeyError(said)
            except KeyError as error:
                raise ExceptionGroup(said, [Said(said), OSError(5, said, said)]) from error
        if what == "panic":
            raise type("PanicException", (BaseException,), {})(said)
        if what == "warn":
            warnings.simplefilter("always")
            warnings.warn(said)
        if what == "task":
            asyncio.create_task(failing(said), name=said)
        if what == "callback":
            asyncio.get_running_loop().call_soon(call, said)
        if what == "thread":
            threading.Thread(target=call, args=(said,)).start()
        if what == "finalizer":
            type("Finalized", (), {"__del__": lambda self: call(said)})()
        if what == "pending":
            asyncio.create_task(asyncio.sleep(99, said), name=said).cancel()
            failing(said)
        if what == "slow":
            asyncio.get_running_loop().call_soon(lambda said: __import__("time").sleep(0.12), said)
        if what == "log":
            import logging
            logging.getLogger("library").error("said %s", said)
            logging.getLogger("library").error(said)
            logging.getLogger("asyncio").error("said %s", said)
        if what == "engine":
            faults.append(said)
        return await classify(self, texts, caller)

    ClassificationTask.classify = broken
    run = decode.Decode.run

    def run_or_fail(self, **arguments):
        if faults:
            raise RuntimeError(faults.pop())
        return run(self, **arguments)

    decode.Decode.run = run_or_fail

import sys
if "service" in sys.orig_argv:
    break_parts()
"""

DEBUGGING = {
    "PYTHONASYNCIODEBUG": "1",
    "PYTHONDEVMODE": "1",
    "PYTHONFAULTHANDLER": "1",
    "GRPC_VERBOSITY": "DEBUG",
    "GRPC_TRACE": "all",
    "RUST_BACKTRACE": "1",
}
EVENTS = (
    "request failed",
    "engine stopped",
    "error in the event loop",
    "a thread has ended on an error",
    "an error could not be raised",
    "a warning",
    "a library has logged a text that is not shown",
    "settings of gRPC's own log are ignored",
    "call ended",
    "Executing <",
)
CODES = (
    "OK",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "UNAUTHENTICATED",
)


class Written(NamedTuple):
    """All that a server has written: to stderr, as metrics at the end, and as spans with their resources."""

    output: str
    metrics: str
    spans: str


def marked(kind: str) -> str:
    return f"{MARK}{kind}"


def observation(value: float = NUMBER) -> forecasting.Observation:
    return forecasting.Observation(values=[value] * 5)


def generations() -> Iterator[generation.GenerateRequest]:
    """Requests that are refused at each check, or that come to an end."""
    make = generation.GenerateRequest
    letters: dict[str, Any] = {"model": "letters", "prompt": "abc", "max_tokens": 5}
    yield make(**letters)
    yield make(**letters | {"stop": [marked("stop"), "a"], "return_state": True})
    yield make(**letters | {"prompt": marked("prompt")})
    yield make(**letters | {"prompt": marked("prompt") * 20_000})
    yield make(**letters | {"stop": [marked("stop") * 100]})
    yield make(**letters | {"stop": [marked("stop")] * 17})
    yield make(**letters | {"max_tokens": NUMBER})
    yield make(**letters | {"temperature": -NUMBER})
    yield make(**letters | {"temperature": math.nan})
    yield make(**letters | {"top_p": NUMBER})
    yield make(**letters | {"state": marked("state").encode()})
    yield make(**letters | {"generated": marked("generated")})
    yield make(**letters | {"generated": marked("generated"), "seed": NUMBER})
    yield make(**letters | {"model": marked("model")})
    yield make(**letters | {"model": marked("model") * 100_000})
    yield make(**letters | {"model": "moods"})
    yield make(**letters | {"version": NUMBER})


def inferences() -> Iterator[inference.ModelInferRequest]:
    """Requests of the Open Inference Protocol, most with one thing wrong."""

    def make(**fields: Any) -> inference.ModelInferRequest:
        request = inference.ModelInferRequest(**{"model_name": "letters", "id": marked("id")} | fields)
        request.parameters["max_tokens"].int64_param = 3
        prompt = request.inputs.add(name="prompt", datatype="BYTES", shape=[1])
        prompt.contents.bytes_contents.append(b"abc")
        return request

    yield make()
    yield make(id=marked("id") * 100_000)
    yield make(model_name=marked("model"))
    yield make(model_version=marked("version"))
    for name, value in ((marked("parameter"), 1), ("max_tokens", NUMBER), ("top_k", -NUMBER)):
        request = make()
        request.parameters[name].int64_param = value
        yield request
    for name in ("stop", "seed", "temperature", marked("parameter")):
        request = make()
        request.parameters[name].string_param = marked("value")
        yield request
    for change in ({"name": marked("tensor")}, {"datatype": marked("type")}, {"shape": [NUMBER, -NUMBER]}):
        request = make()
        request.inputs[0].MergeFrom(inference.ModelInferRequest.InferInputTensor(**change))
        yield request
    for content in (marked("content").encode(), b"\xff" + marked("content").encode()):
        request = make()
        request.inputs[0].contents.bytes_contents[0] = content
        yield request
        del request.inputs[0].contents.bytes_contents[:]
        request.raw_input_contents.append(content)
        yield request
    request = make()
    request.outputs.add(name=marked("output"))
    yield request
    request = make(model_name="moods")
    del request.inputs[:]
    ids = request.inputs.add(name="input", datatype="INT64", shape=[1, 2])
    ids.contents.int64_contents.extend([1, NUMBER])
    yield request


def forecasts() -> Iterator[forecasting.ForecastRequest]:
    make, series = forecasting.ForecastRequest, forecasting.Series
    good = series(observations=[observation()] * 40)
    yield make(model="prices", series=[good])
    yield make(model="prices", series=[good], horizon=NUMBER)
    yield make(model="prices", series=[good], quantiles=[NUMBER])
    yield make(model=marked("model"), series=[good])
    for value in (-NUMBER, math.nan, math.inf, NUMBER * 1e300):
        yield make(model="prices", series=[series(observations=[*good.observations, observation(value)])])
    yield make(model="prices", series=[series(observations=[forecasting.Observation(values=[NUMBER] * 3)])])


def sequence_inputs() -> Iterator[sequences.SequenceInput]:
    """Inputs of every kind, most with one thing wrong."""
    make, rows = sequences.SequenceInput, sequences.StepValues
    good = [1.0, 2.0, float(NUMBER)]
    yield make(text=marked("text"))
    yield make(text=marked("text") * 40_000)
    yield make(tokens=sequences.TokenIds(ids=[1, NUMBER]))
    yield make(steps=rows(values=good))
    yield make(steps=rows(values=[1.0, 2.0, -NUMBER]))
    yield make(steps=rows(values=[1.0, math.nan, NUMBER]))
    yield make(steps=rows(values=[NUMBER]))
    yield make(steps=rows(values=good, features=NUMBER))
    yield make(steps=rows(values=good), initial={marked("initial"): rows(values=[NUMBER])})


def sequence_requests() -> Iterator[sequences.InferRequest]:
    for one in sequence_inputs():
        for model in ("moods", "activity", marked("model")):
            yield sequences.InferRequest(
                model=model, inputs=[one], raw=True, output_steps=sequences.OUTPUT_STEPS_EVERY
            )


FAULTY = (
    "raise",
    "chain",
    "panic",
    "warn",
    "task",
    "callback",
    "thread",
    "finalizer",
    "pending",
    "slow",
    "log",
)


def classifications() -> Iterator[classification.ClassifyRequest]:
    make = classification.ClassifyRequest
    yield make(model="moods", texts=[marked("text")], id=marked("id"))
    yield make(model="moods", texts=[], id=marked("id"))
    yield make(model="moods", texts=[marked("text") * 40_000])
    yield make(model="moods", texts=["good"], id=marked("id") * 10_000)
    yield make(model=marked("model"), texts=["good"])
    for fault in FAULTY:
        yield make(model="moods", texts=[f"{fault} {marked('text')}"])


def metadata(token: str = ADMIN) -> tuple[tuple[str, str | bytes], ...]:
    return (
        ("authorization", f"Bearer {token}"),
        ("x-said", marked("metadata")),
        ("said-bin", marked("metadata").encode()),
        ("user-agent", marked("agent")),
    )


async def finished(call: Any) -> None:
    """Wait until a call has ended, however it ends."""
    with suppress(aio.AioRpcError, asyncio.CancelledError):
        async with asyncio.timeout(20):
            if hasattr(call, "__aiter__"):
                async for _ in call:
                    pass
            else:
                await call


async def make_calls(channel: aio.Channel) -> None:
    """Make every call one after the other, so that a fault meets its own request."""
    calls, said = Calls(channel), {"metadata": metadata()}
    for classified in classifications():
        await finished(calls.classification.Classify(classified, **said))
        await finished(calls.classification.ClassifyStream(iter([classified]), **said))
    for infer in inferences():
        stub: Any = GRPCInferenceServiceStub(channel)
        await finished(stub.ModelInfer(infer, **said))
        await finished(stub.ModelStreamInfer(iter([infer]), **said))
    for name in ("ModelReady", "ModelMetadata", "ModelConfig"):
        request = getattr(inference, f"{name}Request")(name=marked("model"), version=marked("version"))
        await finished(getattr(stub, name)(request, **said))
    for text in generations():
        await finished(calls.generation.Generate(text, **said))
    for texts in ([marked("text")], ["a"], [marked("text") * 40_000], ["ab"]):
        await finished(calls.generation.Score(generation.ScoreRequest(model="letters", texts=texts), **said))
    for forecast in forecasts():
        await finished(calls.forecasting.Forecast(forecast, **said))
        for fields in ({}, {"state": marked("state").encode()}, {"id": marked("id") * 10_000}):
            messages = [
                forecasting.ForecastStreamRequest(
                    **{"model": forecast.model, "id": marked("id")} | fields,
                    observations=forecast.series[0].observations,
                )
            ] * 2
            await finished(calls.forecasting.ForecastStream(iter(messages), **said))
    await run_sequences(calls, said)
    await manage(calls, said)
    await abuse(channel, said)
    failing = classification.ClassifyRequest(model="moods", texts=[f"engine {marked('text')}"])
    await finished(calls.classification.Classify(failing, **said))
    await finished(calls.generation.Generate(next(generations()), **said))


async def run_sequences(calls: Calls, said: dict[str, Any]) -> None:
    """Run sequences whole and in streams, with and without states and later messages that differ."""
    for request in sequence_requests():
        await finished(calls.sequences.Infer(request, **said))
        first = sequences.InferStreamRequest(id=marked("id"), model=request.model, input=request.inputs[0])
        later = sequences.InferStreamRequest(
            id=marked("id"), model=marked("other"), input=request.inputs[0], version=NUMBER
        )
        sealed = sequences.InferStreamRequest(state=marked("state").encode())
        sealed.MergeFrom(first)
        endless = sequences.InferStreamRequest(id=marked("id") * 10_000)
        for messages in ([first, later], [sealed], [endless]):
            await finished(calls.sequences.InferStream(iter(messages), **said))


async def manage(calls: Calls, said: dict[str, Any]) -> None:
    """Ask for, load and unload models that do not exist."""
    name, stub = marked("model"), calls.models
    for version in (0, 1, NUMBER):
        await finished(stub.Get(models.GetModelRequest(model=name, version=version), **said))
        await finished(stub.Load(models.LoadModelRequest(model=name, version=version), **said))
        await finished(stub.Unload(models.UnloadModelRequest(model=name, version=version), **said))
    for path in (f"../{name}", f"{name}/../../etc", f"{name}\x1b[31m\n"):
        await finished(stub.Load(models.LoadModelRequest(model=path, version=1), **said))
    health: Any = health_pb2_grpc.HealthStub(calls.channel)
    await finished(health.Check(health_pb2.HealthCheckRequest(service=name), **said))
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(calls.channel)
    for ask in ("file_containing_symbol", "file_by_filename", "list_services"):
        request = reflection_pb2.ServerReflectionRequest(host=name, **{ask: marked("symbol")})
        await finished(reflection.ServerReflectionInfo(iter([request]), **said))


async def abuse(channel: aio.Channel, said: dict[str, Any]) -> None:
    """Send no messages, unknown methods and wrong tokens; leave early and too late."""
    broken = b"\x0a\x7f" + marked("bytes").encode()
    undecodable = b"\x0a\x04\xff\xfe" + marked("x").encode()[:2]
    methods = (
        "seqserve.v1.TextGeneration/Generate",
        "seqserve.v1.TextClassification/ClassifyStream",
        "seqserve.v1.Forecasting/Forecast",
        "seqserve.v1.Sequences/InferStream",
        "inference.GRPCInferenceService/ModelInfer",
        "grpc.health.v1.Health/Check",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        f"seqserve.v1.{MARK}/{MARK}",
    )
    for method in methods:
        for data in (broken, undecodable):
            call: Any = channel.stream_stream(f"/{method}")
            await finished(call(iter([data]), **said))
    calls = Calls(channel)
    long = generation.GenerateRequest(
        model="letters", prompt="abc", max_tokens=100_000, stop=[marked("stop")]
    )
    for token in ("", marked("token"), f"{ADMIN}x"):
        await finished(calls.generation.Generate(long, metadata=metadata(token)))
    await finished(calls.generation.Generate(long, timeout=0.05, **said))
    cancelled = calls.generation.Generate(long, **said)
    await anext(aiter(cancelled))
    cancelled.cancel()
    await finished(cancelled)


def ask_over_http(port: int) -> None:
    """Send HTTP requests of every kind to the port of the probes, and lines that are none."""
    for method, path in (
        ("GET", f"/{MARK}?{MARK}={MARK}"),
        (MARK, "/livez"),
        ("POST", "/metrics"),
        ("GET", "/"),
    ):
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        headers = {"Authorization": f"Bearer {MARK}", "Accept": f"text/plain;version={MARK}", MARK: MARK}
        connection.request(method, path, body=MARK, headers=headers)
        with connection.getresponse() as response:
            response.read()
        connection.close()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(f"{MARK}\x00\xff\r\n\r\n".encode("latin-1"))
        raw.recv(1000)


def scraped(port: int) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics", headers={"Connection": "close"})
    with connection.getresponse() as response:
        return response.read().decode()


async def written_by(
    form: str, repository: Path, folder: Path, collector: Collector, endpoint: str
) -> Written:
    """Run a server, make every call, and return all that it has written."""
    (folder / "tokens").write_text(f"admin keeper {ADMIN}\n")
    (folder / "key").write_text(KEY)
    settings = {
        "LOG_FORMAT": form,
        "LOG_LEVEL": "debug",
        "LOG_CALLS": "true",
        "TOKENS": str(folder / "tokens"),
        "STATE_KEYS": str(folder / "key"),
        "TRACES_ENDPOINT": endpoint,
    }
    server = ServerProcess(repository, settings)
    await (server.start() if form == "json" else server.start_on_console())
    await server.wait_for_health("")
    try:
        async with server.channel() as channel:
            await make_calls(channel)
        await asyncio.to_thread(ask_over_http, server.http_port)
        metrics = await asyncio.to_thread(scraped, server.http_port)
    finally:
        await server.stop()
    spans = "".join(map(str, collector.spans)) + str(collector.resources)
    return Written("\n".join([*map(json.dumps, server.events), *server.other_output]), metrics, spans)


@pytest_asyncio.fixture(scope="module", params=["json", "console"])
async def written(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Written]:
    """What a server in the debug modes of Python, asyncio and grpc has written of all calls."""
    folder = tmp_path_factory.mktemp("told")
    repository = folder / "exported"
    shutil.copytree(tiny_repository, repository)
    contract2.export(contract2.ACTIVITY, repository)
    (folder / "sitecustomize.py").write_text(FAULTS)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in DEBUGGING.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
        async with collecting() as (collector, endpoint):
            yield await written_by(request.param, repository, folder, collector, endpoint)


@pytest.mark.parametrize("where", ["output", "metrics", "spans"])
def test_nothing_that_was_sent_is_told(written: Written, where: str) -> None:
    text = getattr(written, where).lower()
    assert text
    for secret in (MARK, KEY[:16], str(NUMBER), f"{NUMBER / 1e6}"):
        lines = [line[:300] for line in text.splitlines() if secret in line]
        assert lines == [], secret


def test_every_fault_and_every_code_was_met(written: Written) -> None:
    for event in EVENTS:
        assert event in written.output, event
    for code in CODES:
        assert f'code="{code}"' in written.metrics, code
