"""Whatever bytes come, the code names the caller's mistake, nothing hangs and the server goes on.

FUZZ_EXAMPLES sets how many examples each rpc gets of each kind, for a longer run.
"""

import asyncio
import os
import shutil
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from seqserve.inference import grpc_service_pb2
from seqserve.v1 import (
    forecasting_pb2,
    models_pb2,
    sequences_pb2,
    text_classification_pb2,
    text_generation_pb2,
)
from tests import contract2
from tests.integration.process import SERVING, ServerProcess
from tests.integration.tensors import infer_request
from tests.integration.test_lifecycle import get, health

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
PATIENCE_S = 20
# Of an endless stream of answers this many are read.
MOST_ANSWERS = 3
FORBIDDEN = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
}
CLOSED_BY_US = grpc.StatusCode.CANCELLED


@dataclass(frozen=True)
class Rpc:
    """A method: its path, its request, whether requests and answers are streams."""

    path: str
    request: Descriptor
    is_streamed: bool = False
    is_answered_in_stream: bool = False
    most_answers: int = MOST_ANSWERS

    def __str__(self) -> str:
        return self.path.rpartition(".")[2]


def rpcs() -> list[Rpc]:
    found = []
    for file in (
        text_generation_pb2,
        text_classification_pb2,
        forecasting_pb2,
        sequences_pb2,
        models_pb2,
        grpc_service_pb2,
    ):
        for service in file.DESCRIPTOR.services_by_name.values():
            found += [
                Rpc(
                    f"/{service.full_name}/{one.name}",
                    one.input_type,
                    one.client_streaming,
                    one.server_streaming,
                    # An idle engine's watch has a message a second.
                    most_answers=1 if one.name == "WatchEngine" else MOST_ANSWERS,
                )
                for one in service.methods
            ]
    health_check, reflection = (
        health_pb2.HealthCheckRequest.DESCRIPTOR,
        reflection_pb2.ServerReflectionRequest.DESCRIPTOR,
    )
    found.append(Rpc("/grpc.health.v1.Health/Check", health_check))
    found.append(
        Rpc("/grpc.health.v1.Health/Watch", health_check, is_answered_in_stream=True, most_answers=1)
    )
    found.append(Rpc("/grpc.health.v1.Health/List", health_check))
    for version in ("v1", "v1alpha"):
        found.append(
            Rpc(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", reflection, True, True)
        )
    return found


RPCS = rpcs()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    repository = tmp_path_factory.mktemp("fuzzed") / "exported"
    shutil.copytree(tiny_repository, repository)
    for net in (contract2.ACTIVITY, contract2.TAGS):
        contract2.export(net, repository)
    # A small limit, so that requests over it are small, too.
    async with ServerProcess(repository, {"MAX_MESSAGE_BYTES": "65536", "MAX_TOKENS": "2000"}) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def channel(target: ServerProcess) -> AsyncIterator[aio.Channel]:
    async with target.channel() as found:
        yield found


async def code_of(channel: aio.Channel, rpc: Rpc, messages: Sequence[bytes]) -> grpc.StatusCode:
    """Call with these bytes; how it ended. A call that does not end in time fails the test."""
    make: Any = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[rpc.is_streamed, rpc.is_answered_in_stream]
    call: Any = make(rpc.path)(iter(messages) if rpc.is_streamed else messages[0], timeout=PATIENCE_S)
    try:
        if not rpc.is_answered_in_stream:
            await call
        else:
            for _ in range(rpc.most_answers):
                if await call.read() is aio.EOF:
                    break
            else:
                call.cancel()
                return CLOSED_BY_US
    except aio.AioRpcError as error:
        # A stream that the server ends while the client still writes: the client's library fails in its
        # write, whatever status came.
        return CLOSED_BY_US if (error.debug_error_string() or "").startswith("Failed") else error.code()
    return grpc.StatusCode.OK


async def check(channel: aio.Channel, rpc: Rpc, messages: Sequence[bytes]) -> None:
    code = await code_of(channel, rpc, messages)
    assert code not in FORBIDDEN, f"{rpc.path} gave {code} for {[one.hex() for one in messages]}"


async def check_server(server: ServerProcess) -> None:
    assert await health(server, "") == SERVING
    assert [event for event in server.events if event["level"] == "error"] == []
    assert server.other_output == []
    _, metrics = await get(f"{server.http}/metrics")
    assert not [
        line
        for line in metrics.splitlines()
        if line.startswith("seqserve_requests_total") and ("INTERNAL" in line or "UNKNOWN" in line)
    ]


# Messages, built as bytes: a string field may so hold what no message object would take.

TEXTS = [
    b"",
    b"a",
    b"good",
    b"abc",
    b"\xed\xa0\x80",  # a lone surrogate
    b"\xff\xfe",
    b"\xc0\x80",  # NUL in more bytes than it needs
    "e\u0301\u0301".encode(),  # combining characters
    "\u202e\ufeff\U0010ffff".encode(),
    b"\0",
    b"a\0b",
    b"good " * 2000,
    "\u0301".encode() * 500,
]
MODELS = [
    b"letters",
    b"letters-gru",
    b"moods",
    b"prices",
    b"activity",
    b"tags",
    b"nobody",
    b"../letters",
    b"\0",
    b"",
]
INTEGERS = [0, 1, 2, 3, 7, 100, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
FLOATS = [
    0.0,
    -0.0,
    1.0,
    0.5,
    -1.0,
    100.0,
    1e-300,
    1e-45,
    3e38,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
]
COUNTS = [0, 1, 1, 1, 2, 3, 300]
MOST_DEPTH = 4
BYTES_TYPES = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
DOUBLE, FLOAT = FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def with_length(data: bytes) -> bytes:
    return varint(len(data)) + data


def as_float(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", float("inf"))


@st.composite
def wire(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> bytes:
    """A message with some of its fields at their extremes; two fields of a oneof may both be there."""
    parts = []
    for field in descriptor.fields:
        is_model = field.name in ("model", "model_name")
        if not draw(st.integers(0, 7)) if is_model else draw(st.integers(0, 2)) == 0:
            continue
        count = draw(st.sampled_from(COUNTS)) if field.is_repeated else 1
        if field.type in (DOUBLE, FLOAT):
            pack = as_float if field.type == FLOAT else lambda value: struct.pack("<d", value)
            data = b"".join(
                pack(value)
                for value in draw(
                    st.lists(st.sampled_from(FLOATS), min_size=min(count, 3), max_size=min(count, 3))
                )
            )
            if field.is_repeated:
                parts.append(varint(field.number << 3 | 2) + with_length(data * max(1, count // 3)))
            else:
                parts.append(varint(field.number << 3 | (5 if field.type == FLOAT else 1)) + data)
            continue
        if field.type in BYTES_TYPES:
            kind, data = 2, with_length(draw(st.sampled_from(MODELS if is_model else TEXTS)))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None
            if depth >= MOST_DEPTH:
                continue
            kind, data = 2, with_length(draw(wire(field.message_type, depth + 1)))
        else:
            kind, data = 0, varint(draw(st.sampled_from(INTEGERS)))
        parts.append((varint(field.number << 3 | kind) + data) * count)
    return b"".join(parts)


ROWS = sequences_pb2.SequenceInput(steps=sequences_pb2.StepValues(values=[0.5, 1.0, 2.0] * 4))
SAID = sequences_pb2.SequenceInput(text="abc")
VALID: dict[str, list[bytes]] = {
    "InferRequest": [
        sequences_pb2.InferRequest(model="activity", inputs=[ROWS] * 2, raw=True).SerializeToString(),
        sequences_pb2.InferRequest(model="tags", inputs=[SAID]).SerializeToString(),
        sequences_pb2.InferRequest(
            model="tags", inputs=[sequences_pb2.SequenceInput(tokens=sequences_pb2.TokenIds(ids=[1, 2]))]
        ).SerializeToString(),
    ],
    "InferStreamRequest": [
        sequences_pb2.InferStreamRequest(
            model="activity",
            input=ROWS,
            output_steps=sequences_pb2.OUTPUT_STEPS_EVERY,
            return_state=True,
            id="a",
        ).SerializeToString(),
        sequences_pb2.InferStreamRequest(model="tags", input=SAID, end=True, id="b").SerializeToString(),
    ],
    "GenerateRequest": [
        text_generation_pb2.GenerateRequest(
            model="letters", prompt="abc", max_tokens=5, stop=["b"]
        ).SerializeToString()
    ],
    "ScoreRequest": [
        text_generation_pb2.ScoreRequest(model="letters", texts=["abc", "cab"]).SerializeToString()
    ],
    "ClassifyRequest": [
        text_classification_pb2.ClassifyRequest(model="moods", texts=["good", "bad film"]).SerializeToString()
    ],
    "ModelInferRequest": [
        infer_request("letters", {"prompt": ["abc"]}, {"max_tokens": 5, "seed": 1}).SerializeToString(),
        infer_request("moods", {"text": ["good", "bad film"]}, is_raw=False).SerializeToString(),
        infer_request(
            "prices", {"input": np.ones((1, 9, 5), np.float32)}, {"horizon": 2}
        ).SerializeToString(),
        infer_request(
            "prices",
            {"input": np.ones((1, 9, 5), np.float32)},
            {"sequence_id": 7, "sequence_start": True},
        ).SerializeToString(),
        infer_request(
            "prices", {"input": np.ones((1, 1, 5), np.float32)}, {"sequence_id": "7", "sequence_end": "true"}
        ).SerializeToString(),
    ],
    "GetModelRequest": [models_pb2.GetModelRequest(model="letters", version=1).SerializeToString()],
}
ANY_MESSAGE = forecasting_pb2.ForecastRequest(
    model="prices",
    series=[forecasting_pb2.Series(observations=[forecasting_pb2.Observation(values=[1.0, 2.0])] * 9)],
    horizon=2,
).SerializeToString()


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """Something that was a message: bytes changed, cut out, repeated, put in."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        match draw(st.integers(0, 3)):
            case 0 if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[start:end]
            case 2:
                data[start:start] = data[start:end] * draw(st.integers(1, 5))
            case _:
                data[start:start] = draw(st.binary(max_size=8))
    return bytes(data)


FEW = settings(max_examples=EXAMPLES)


@pytest.mark.parametrize("rpc", RPCS, ids=str)
async def test_random_bytes(target: ServerProcess, channel: aio.Channel, rpc: Rpc) -> None:
    drawn: list[list[bytes]] = []

    @FEW
    @given(st.lists(st.binary(max_size=200), min_size=1, max_size=3))
    def draw(messages: list[bytes]) -> None:
        drawn.append(messages)

    await run(target, channel, rpc, drawn, draw)


@pytest.mark.parametrize("rpc", RPCS, ids=str)
async def test_mutated_messages(target: ServerProcess, channel: aio.Channel, rpc: Rpc) -> None:
    valid = VALID.get(rpc.request.name, [ANY_MESSAGE])

    drawn: list[list[bytes]] = []

    @FEW
    @given(st.lists(st.sampled_from(valid).flatmap(mutated), min_size=1, max_size=3))
    def draw(messages: list[bytes]) -> None:
        drawn.append(messages)

    await run(target, channel, rpc, drawn, draw)


@pytest.mark.parametrize("rpc", RPCS, ids=str)
async def test_extremes(target: ServerProcess, channel: aio.Channel, rpc: Rpc) -> None:
    drawn: list[list[bytes]] = []

    @FEW
    @given(st.lists(wire(rpc.request), min_size=1, max_size=3))
    def draw(messages: list[bytes]) -> None:
        drawn.append(messages)

    await run(target, channel, rpc, drawn, draw)


async def run(
    server: ServerProcess, channel: aio.Channel, rpc: Rpc, drawn: list[list[bytes]], draw: Any
) -> None:
    """Draw first, then call: the calls overlap, which finds more, and takes less time."""
    draw()
    for start in range(0, len(drawn), 8):
        await asyncio.gather(*(check(channel, rpc, messages) for messages in drawn[start : start + 8]))
    await check_server(server)


async def test_messages_over_the_limit(target: ServerProcess, channel: aio.Channel) -> None:
    for rpc in RPCS:
        code = await code_of(channel, rpc, [b"\x0a" + with_length(b"a" * 70_000)])
        # A caller without the right is refused before the message is read.
        assert code in (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.PERMISSION_DENIED,
        )
    await check_server(target)
