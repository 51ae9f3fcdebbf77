"""Messages full of small parts: whoever sends one waits for its refusal, and nobody else does.

What protobuf itself needs to parse such a message is measured here, and holds the server's event loop as
well; the rest is bounded.
"""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seqserve.inference import grpc_service_pb2 as inference
from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import text_generation_pb2 as generation
from tests.integration.process import ServerProcess

FULL = (4 << 20) - 256  # bytes of a message, a little less than the server takes
# The longest time for which a message may hold up others, beyond its parsing: far more than it is on a
# machine with nothing else to do, and less than half of what each message below took unbounded.
MAX_HELD_S = 0.35
FORECAST = "/seqserve.v1.Forecasting/Forecast"
STREAM = "/seqserve.v1.Forecasting/ForecastStream"
INFER = "/inference.GRPCInferenceService/ModelInfer"


def part(field: int, content: bytes) -> bytes:
    """A length-delimited field of a message."""
    size, header = len(content), bytes([field << 3 | 2])
    while size > 0x7F:
        header, size = header + bytes([size & 0x7F | 0x80]), size >> 7
    return header + bytes([size]) + content


def series(count: int) -> bytes:
    """A ForecastRequest of so many bytes of empty series."""
    return part(1, b"prices") + part(3, b"") * (count // 2)


def observations(count: int) -> bytes:
    return part(1, b"prices") + part(3, part(1, b"") * (count // 2))


def observations_within_limits(count: int) -> bytes:
    return part(1, b"prices") + part(3, part(1, b"") * 8000) * (count // 16_010)


def stream_observations(count: int) -> bytes:
    return part(1, b"prices") + part(6, b"") * (count // 2)


def infer_request(**fields: Any) -> bytes:
    return inference.ModelInferRequest(model_name="moods", **fields).SerializeToString()


def tensor(datatype: str, shape: list[int], **contents: Any) -> Any:
    name = "text" if datatype == "BYTES" else "input"
    made = inference.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        made.contents.CopyFrom(inference.InferTensorContents(**contents))
    return made


def rows_of_one_token(count: int) -> bytes:
    elements = [1] * count
    return infer_request(inputs=[tensor("INT64", [count, 1], int64_contents=elements)])


def empty_texts(count: int) -> bytes:
    return infer_request(inputs=[tensor("BYTES", [count // 4])], raw_input_contents=[bytes(count)])


def outputs(count: int) -> bytes:
    return infer_request() + part(6, part(1, b"label")) * (count // 9)


async def longest_pause(channel: aio.Channel, attack: "asyncio.Task[None]") -> float:
    """Check health until the attack is answered; the longest time that an answer took, seconds."""
    stub = health_pb2_grpc.HealthStub(channel)
    longest = 0.0
    while not attack.done():
        began = time.perf_counter()
        await stub.Check(health_pb2.HealthCheckRequest())
        longest = max(longest, time.perf_counter() - began)
        await asyncio.wait({attack}, timeout=0.002)
    await attack
    return longest


async def shortest_of_longest_pauses(
    channel: aio.Channel, attack: Callable[[], Coroutine[Any, Any, None]]
) -> float:
    """Attack at most three times: what else the machine does may hold up an answer, but not each time."""
    pauses: list[float] = []
    while len(pauses) < 3 and min(pauses, default=MAX_HELD_S) >= MAX_HELD_S:
        pauses.append(await longest_pause(channel, asyncio.create_task(attack())))
    return min(pauses)


async def answer_of(channel: aio.Channel, method: str, data: bytes) -> tuple[grpc.StatusCode, str]:
    """Send bytes as a message; for a stream, code and text are of its first answer, or of the call."""
    try:
        if method == STREAM:
            stream: Any = channel.stream_stream(method)
            error = forecasting.ForecastStreamResponse.FromString(await stream(iter([data])).read()).error
            return next(code for code in grpc.StatusCode if code.value[0] == error.code), error.message
        unary: Any = channel.unary_unary(method)
        await unary(data)
    except aio.AioRpcError as refusal:
        return refusal.code(), refusal.details() or ""
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize(
    ("method", "make", "message", "is_counted"),
    [
        (FORECAST, series, forecasting.ForecastRequest, True),
        (FORECAST, observations, forecasting.ForecastRequest, False),
        (FORECAST, observations_within_limits, forecasting.ForecastRequest, False),
        (STREAM, stream_observations, forecasting.ForecastStreamRequest, True),
        (INFER, rows_of_one_token, inference.ModelInferRequest, False),
        (INFER, empty_texts, inference.ModelInferRequest, False),
        (INFER, outputs, inference.ModelInferRequest, True),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_message_of_many_parts_holds_up_nobody_else(
    tiny_server: ServerProcess, method: str, make: Callable[[int], bytes], message: Any, is_counted: bool
) -> None:
    """Those whose many fields are its own are refused for their number, before they are parsed."""
    data = make(FULL)
    began = time.perf_counter()
    message.FromString(data)
    parsing_s = time.perf_counter() - began
    async with tiny_server.channel(use_local_subchannel_pool=1) as own, tiny_server.channel() as other:

        async def attack() -> None:
            code, text = await answer_of(own, method, data)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert (re.search(r"message of at most \d+ fields$", text) is not None) == is_counted, text

        assert await shortest_of_longest_pauses(other, attack) < parsing_s + MAX_HELD_S


async def test_large_answer_of_score_holds_up_nobody_else(tiny_server: ServerProcess) -> None:
    texts = ["abcdefgh" * 12_500] * 10  # nearly as large an answer as the server sends
    data = generation.ScoreRequest(model="letters", texts=texts).SerializeToString()
    async with (
        tiny_server.channel(use_local_subchannel_pool=1) as own,
        tiny_server.channel() as other,
    ):
        score: Any = own.unary_unary("/seqserve.v1.TextGeneration/Score")

        async def attack() -> None:
            assert len(await score(data)) > 4 * 10 * 99_999

        assert await shortest_of_longest_pauses(other, attack) < MAX_HELD_S
