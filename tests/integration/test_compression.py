"""Compressed messages: gzip and deflate are read; what inflates to too much, or is neither, is refused."""

import asyncio
import gzip
import zlib
from collections.abc import Callable

import pytest

from tests.integration.process import ServerProcess
from tests.integration.wire import CLASSIFY, Answer, Fields, call, classify_message, fields_of, framed
from tests.integration.withstood import MARK, withstood

MIB = 1 << 20
OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL = 0, 3, 8, 13
WINDOW_BITS = {"gzip": 31, "deflate": 15}
STREAM = b"/seqserve.v1.TextClassification/ClassifyStream"
INFER = b"/inference.GRPCInferenceService/ModelInfer"
GENERATE = b"/seqserve.v1.TextGeneration/Generate"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
# A message of just the limit's size is inflated before it is refused.
MAX_GROWTH = 64 * MIB
TIMES = 20


def bomb(encoding: str, inflated_mib: int) -> bytes:
    """Return so many MiB of zeros, compressed to a thousandth; only its checksum is missing."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, WINDOW_BITS[encoding])
    first, other = (squeeze.compress(bytes(MIB)) + squeeze.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + other * (inflated_mib - 1)


def encoded(encoding: str, path: bytes = CLASSIFY) -> Fields:
    return fields_of(path, (b"grpc-encoding", encoding.encode()))


async def send(server: ServerProcess, fields: Fields, data: bytes) -> Answer:
    return await call(server.grpc_port, fields, framed(data, is_compressed=True))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_request_is_answered(tiny_server: ServerProcess, encoding: str) -> None:
    data = COMPRESS[encoding](classify_message())
    assert (await send(tiny_server, encoded(encoding), data)).code == OK


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_message_that_inflates_to_a_gibibyte_is_refused_and_costs_no_memory(
    tiny_server: ServerProcess, encoding: str
) -> None:
    data = bomb(encoding, 1024)
    assert len(data) < 4 * MIB
    async with withstood(tiny_server, MAX_GROWTH):
        for path in (CLASSIFY, GENERATE, INFER, STREAM):
            assert (await send(tiny_server, encoded(encoding, path), data)).code == RESOURCE_EXHAUSTED


async def test_many_bombs_at_a_time_are_refused(tiny_server: ServerProcess) -> None:
    data = bomb("gzip", 64)
    async with withstood(tiny_server, MAX_GROWTH):
        for path in (CLASSIFY, STREAM):
            answers = await asyncio.gather(
                *(send(tiny_server, encoded("gzip", path), data) for _ in range(3 * TIMES))
            )
            assert {answer.code for answer in answers} == {RESOURCE_EXHAUSTED}


async def test_message_that_inflates_to_less_than_the_limit_is_read(tiny_server: ServerProcess) -> None:
    squeezed = gzip.compress(bytes(3 * MIB))
    assert (await send(tiny_server, encoded("gzip"), squeezed)).code == INVALID_ARGUMENT


UNREADABLE: dict[str, tuple[Fields, bytes]] = {
    "no encoding": (fields_of(), gzip.compress(classify_message())),
    "identity": (encoded("identity"), gzip.compress(classify_message())),
    "unknown": (encoded(MARK), b"any"),
    "empty": (encoded(""), b"any"),
    "two": (encoded("gzip, deflate"), gzip.compress(classify_message())),
    "garbage": (encoded("gzip"), MARK.encode()),
    "another": (encoded("gzip"), zlib.compress(classify_message())),
    "cut short": (encoded("gzip"), gzip.compress(classify_message())[:-9]),
    "garbage in a stream": (encoded("gzip", STREAM), b"no gzip at all"),
}


async def test_compressed_messages_that_cannot_be_read_end_their_calls(tiny_server: ServerProcess) -> None:
    """gRPC itself ends them, with INTERNAL; nothing of it is an error of the server, nor in its log."""
    async with withstood(tiny_server):
        for name, (fields, data) in UNREADABLE.items():
            answers = await asyncio.gather(*(send(tiny_server, fields, data) for _ in range(TIMES)))
            assert {answer.code for answer in answers} == {INTERNAL}, name
