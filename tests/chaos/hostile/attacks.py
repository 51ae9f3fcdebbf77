"""The attacks, each on a server for some seconds: what one peer can send, ask for, or leave unread."""

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

from grpc import aio

from seqserve.v1.forecasting_pb2 import ForecastRequest
from seqserve.v1.sequences_pb2 import InferRequest
from seqserve.v1.text_classification_pb2 import ClassifyRequest
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from seqserve.v1.text_generation_pb2 import GenerateRequest, ScoreRequest
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub
from tests.deaf import deaf
from tests.half_sent import half_sent
from tests.raw import NOT_UTF8, status_of

CLASSIFY = "/seqserve.v1.TextClassification/Classify"
CLASSIFY_STREAM = "/seqserve.v1.TextClassification/ClassifyStream"
# What a Go client sends for the longest duration.
FAR = ("grpc-timeout", "99999999H")
# Nothing that a client of one connection holds back is read.
SMALL_WINDOW = {"http2.lookahead_bytes": 1024, "http2.bdp_probe": 0, "use_local_subchannel_pool": 1}


@dataclass(frozen=True, slots=True)
class Target:
    """A server on this machine."""

    grpc_port: int
    http_port: int

    def channel(self, **options: Any) -> aio.Channel:
        """Return a channel with options of gRPC."""
        named = [(f"grpc.{name}", value) for name, value in options.items()]
        return aio.insecure_channel(f"127.0.0.1:{self.grpc_port}", options=named)


async def half_sent_messages(target: Target, count: int, size: int, seconds: float) -> None:
    """Send all but the end of many messages on one connection, to unary and to two-way calls."""
    async with half_sent(target.grpc_port) as connection:
        paths = [CLASSIFY_STREAM if number % 10 == 0 else CLASSIFY for number in range(count)]
        streams = [connection.begin(path, size) for path in paths]
        part = b"\0" * (size - 1)
        sending = asyncio.gather(*(connection.send(stream, part) for stream in streams))
        await asyncio.wait({sending}, timeout=seconds)
        sending.cancel()


async def idle_connections(target: Target, count: int, seconds: float) -> None:
    """Open connections and send nothing."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", target.grpc_port)
                stack.callback(writer.transport.abort)
        await asyncio.sleep(seconds)


async def odd_paths(target: Target, times: int) -> None:
    """Call paths that are not UTF-8."""
    for _ in range(times // 100):
        await status_of("127.0.0.1", target.grpc_port, NOT_UTF8, 100)


async def far_deadlines(target: Target, model: str, alphabet: str, count: int) -> None:
    """Begin calls whose deadlines are thousands of years away, and cancel them."""
    request = GenerateRequest(model=model, prompt=alphabet[:10] * 2_000, max_tokens=10, seed=1)
    async with target.channel(use_local_subchannel_pool=1) as channel:
        stub = TextGenerationStub(channel)
        calls = [stub.Generate(request, metadata=[FAR]) for _ in range(count)]
        await asyncio.sleep(1)
        for call in calls:
            call.cancel()
        await asyncio.sleep(1)


async def deaf_watches(target: Target, connections: int, watches: int, seconds: float) -> None:
    """Watch health and never read."""
    async with AsyncExitStack() as stack:
        for _ in range(connections):
            peer = await stack.enter_async_context(deaf(target.grpc_port))
            await peer.watch([f"model/{number}" for number in range(watches)])
        await asyncio.sleep(seconds)


async def empty_fields(target: Target, count: int, times: int) -> None:
    """Send messages that are full of empty series, observations, texts and inputs of init graphs."""
    series = b"\x1a\x00" * count  # ForecastRequest.series
    observations = b"\x1a" + _varint(2 * count) + b"\x0a\x00" * count  # one series of observations
    texts = b"\x1a\x00" * count  # ClassifyRequest.texts
    initial = b"\x1a" + _varint(2 * count) + b"\x22\x00" * count  # one input of InferRequest
    async with target.channel(use_local_subchannel_pool=1) as channel:
        forecast: Any = channel.unary_unary("/seqserve.v1.Forecasting/Forecast")
        classify: Any = channel.unary_unary(CLASSIFY)
        infer: Any = channel.unary_unary("/seqserve.v1.Sequences/Infer")
        head = ForecastRequest(model="stock").SerializeToString()
        for _ in range(times):
            await asyncio.gather(
                _code_of(forecast(head + series)),
                _code_of(forecast(head + observations)),
                _code_of(infer(InferRequest(model="sentiment").SerializeToString() + initial)),
                _code_of(classify(ClassifyRequest(model="sentiment").SerializeToString() + texts)),
            )


async def large_texts(target: Target, model: str, count: int) -> None:
    """Classify many large texts at a time."""
    request = ClassifyRequest(model=model, texts=["good film " * 9_000] * 40)
    async with target.channel(use_local_subchannel_pool=1) as channel:
        stub = TextClassificationStub(channel)
        await asyncio.gather(*(_code_of(stub.Classify(request)) for _ in range(count)))


async def one_long_prompt(target: Target, model: str, alphabet: str, count: int, steps: int) -> None:
    """Generate from one long prompt many times at a time, then cancel."""
    request = GenerateRequest(model=model, prompt=(alphabet * steps)[:steps], max_tokens=1, seed=1)
    async with target.channel(use_local_subchannel_pool=1) as channel:
        stub = TextGenerationStub(channel)
        calls = [stub.Generate(request) for _ in range(count)]
        await asyncio.wait([asyncio.ensure_future(_code_of(call)) for call in calls], timeout=10)
        for call in calls:
            call.cancel()


async def long_scores(target: Target, model: str, alphabet: str, count: int, steps: int) -> None:
    """Score many long texts at a time."""
    request = ScoreRequest(model=model, texts=[(alphabet * steps)[:steps]])
    async with target.channel(use_local_subchannel_pool=1) as channel:
        stub = TextGenerationStub(channel)
        calls = [stub.Score(request) for _ in range(count)]
        await asyncio.wait([asyncio.ensure_future(_code_of(call)) for call in calls], timeout=10)
        for call in calls:
            call.cancel()


async def silent_readers(target: Target, model: str, count: int, seconds: float) -> None:
    """Generate many long texts and read one message of each."""
    async with target.channel(**SMALL_WINDOW) as channel:
        stub = TextGenerationStub(channel)
        calls = [
            stub.Generate(GenerateRequest(model=model, max_tokens=100_000, seed=seed))
            for seed in range(count)
        ]
        await asyncio.sleep(seconds)
        for call in calls:
            call.cancel()


async def slow_probes(target: Target, count: int, seconds: float) -> None:
    """Connect to the HTTP port, send half a request and go silent."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", target.http_port)
                stack.callback(writer.transport.abort)
                writer.write(b"GET /metrics HTTP/1.1\r\nHost:")
        await asyncio.sleep(seconds)


async def _code_of(call: Any) -> object:
    return await call.code()


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
