"""Frames that no gRPC library would send, over a socket: the server closes or bears them, and serves the
others meanwhile and after.

Each abuse is bounded in number; what it costs is watched in the server's memory.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from h2.config import H2Configuration
from h2.connection import H2Connection

from seqserve.v1.text_classification_pb2 import ClassifyRequest
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.integration.test_lifecycle import sample

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE_S = 20
# A call right after an abuse; a server that is not under attack takes some milliseconds.
QUICK_S = 5
# Long enough for what has been sent to be read; nothing is lost where it is not.
MOMENT_S = 0.05
MOST_GROWTH = 100 << 20
METHOD = "/seqserve.v1.TextClassification/Classify"
PING, SETTINGS, HEADERS, CONTINUATION = 6, 4, 1, 9


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(tiny_repository: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tiny_repository) as server:
        async with server.channel() as channel:
            await Calls(channel).classify(["good"])
        yield server


@asynccontextmanager
async def unharmed(server: ServerProcess) -> AsyncIterator[None]:
    """What happens inside leaves the server as it was, and another connection does not notice it."""
    before = await sample(server, "process_resident_memory_bytes")
    async with server.channel() as beside:
        calls = Calls(beside)
        await calls.classify(["good"])
        async with asyncio.timeout(PATIENCE_S):
            yield
        async with asyncio.timeout(QUICK_S):
            await answered(calls)
    async with asyncio.timeout(QUICK_S), server.channel(use_local_subchannel_pool=1) as after:
        await answered(Calls(after))
    assert await sample(server, "process_resident_memory_bytes") - before < MOST_GROWTH
    assert [event for event in server.events if event["level"] == "error"] == []
    assert server.other_output == []


async def answered(calls: Calls) -> None:
    """Ask until there is an answer: while a flood is read, grpc itself cancels some of the calls that wait to
    be taken in.
    """
    while True:
        try:
            assert (await calls.classify(["good"]))[0].label
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:
                raise
        else:
            return


@dataclass(frozen=True)
class Raw:
    """A connection whose bytes the test makes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(
        self, chunks: Iterable[bytes], wait_s: float = MOMENT_S, goodbye: bytes | None = None
    ) -> bool:
        """Write until done or closed by the server, and give it time to take it in; whether it was closed, or
        `goodbye` was said.
        """
        reading = asyncio.ensure_future(self.read_to_end(goodbye))
        try:
            for chunk in chunks:
                if reading.done():
                    return True
                self.writer.write(chunk)
                await self.writer.drain()
            await asyncio.wait({reading}, timeout=wait_s)
            return reading.done()
        except ConnectionError:
            return True
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def read_to_end(self, goodbye: bytes | None = None) -> None:
        """Read until the server closes, or until it has said `goodbye`."""
        last = b""
        with suppress(ConnectionError):
            while piece := await self.reader.read(1 << 16):
                if goodbye is not None and goodbye in last + piece:
                    return
                last = piece[-len(goodbye) :] if goodbye else b""


@asynccontextmanager
async def connected(server: ServerProcess) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.grpc_port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def headers(*more: tuple[str, str]) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", METHOD),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    ]


def opened() -> H2Connection:
    """A client's side of a connection that checks nothing that it sends."""
    connection = H2Connection(
        H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
    )
    connection.initiate_connection()
    return connection


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"\0" * 1000,
        b"PRI * HTTP/1.0\r\n\r\nSM\r\n\r\n",
        b"\xff" * 100_000,
    ],
    ids=["HTTP/1.1", "TLS", "zeros", "almost", "much"],
)
async def test_garbage_instead_of_the_preface(target: ServerProcess, data: bytes) -> None:
    async with unharmed(target):
        for _ in range(20):
            async with connected(target) as raw:
                await raw.send([data])


async def test_random_frames(target: ServerProcess) -> None:
    draw = random.Random(7)
    async with unharmed(target):
        for _ in range(100):
            async with connected(target) as raw:
                frames = [
                    frame(
                        draw.randrange(12),
                        draw.randrange(256),
                        draw.choice((0, 1, 2, 3, 2**31 - 1)),
                        draw.randbytes(draw.randrange(40)),
                    )
                    for _ in range(20)
                ]
                await raw.send([PREFACE, frame(SETTINGS, 0, 0, b""), *frames])


async def test_frames_cut_short(target: ServerProcess) -> None:
    connection = opened()
    connection.send_headers(1, headers())
    connection.send_data(1, b"\0\0\0\0\x05ab")
    whole = connection.data_to_send()
    async with unharmed(target):
        for end in range(1, len(whole)):
            async with connected(target) as raw:
                await raw.send([whole[:end]])


async def test_message_that_says_it_is_huge(target: ServerProcess) -> None:
    async with unharmed(target):
        for _ in range(50):
            connection = opened()
            connection.send_headers(1, headers())
            connection.send_data(1, b"\0\xff\xff\xff\xff" + b"a" * 100)
            async with connected(target) as raw:
                await raw.send([connection.data_to_send()])


async def test_rapid_reset(target: ServerProcess) -> None:
    """Streams opened and taken back at once: each costs the server more than the caller."""
    connection = opened()
    chunks = [connection.data_to_send()]
    for number in range(5000):
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, headers())
        connection.send_data(stream, b"\0\0\0\0\0", end_stream=bool(number % 2))
        connection.reset_stream(stream)
        chunks.append(connection.data_to_send())
    async with unharmed(target), connected(target) as raw:
        await raw.send(chunks)


async def test_flood_of_pings(target: ServerProcess) -> None:
    """Closed at once, or after a GOAWAY that says why: grpc may take ten seconds from there to the close."""
    async with unharmed(target), connected(target) as raw:
        pings = [frame(PING, 0, 0, bytes(8)) * 100 for _ in range(1000)]
        assert await raw.send(
            [PREFACE + frame(SETTINGS, 0, 0, b""), *pings], PATIENCE_S / 2, goodbye=b"too_many_pings"
        )


async def test_flood_of_settings(target: ServerProcess) -> None:
    async with unharmed(target), connected(target) as raw:
        await raw.send([PREFACE, *[frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff") * 100 for _ in range(300)]])


async def test_headers_without_end(target: ServerProcess) -> None:
    """CONTINUATION after CONTINUATION, of fields that the server must read to keep its tables, and may not
    keep.
    """
    field = b"\x40\x05x-big\x7f\x81\x07" + b"a" * 256
    async with unharmed(target), connected(target) as raw:
        await raw.send(
            [
                PREFACE + frame(SETTINGS, 0, 0, b""),
                frame(HEADERS, 0, 1, b""),
                *[frame(CONTINUATION, 0, 1, field * 50) for _ in range(1000)],
            ]
        )


async def test_oversized_headers(target: ServerProcess) -> None:
    async with unharmed(target):
        for _ in range(20):
            connection = opened()
            connection.send_headers(
                1, headers(*[(f"x-{number}", "a" * 4000) for number in range(16)]), end_stream=True
            )
            async with connected(target) as raw:
                await raw.send([connection.data_to_send()])


@pytest.mark.parametrize(
    "said",
    [b"", PREFACE[:10], PREFACE, PREFACE + frame(SETTINGS, 0, 0, b"")],
    ids=["nothing", "half", "preface", "settings"],
)
async def test_half_open_connections(target: ServerProcess, said: bytes) -> None:
    held = [await asyncio.open_connection("127.0.0.1", target.grpc_port) for _ in range(200)]
    try:
        for _, writer in held:
            writer.write(said)
        async with unharmed(target):
            pass
    finally:
        for _, writer in held:
            writer.transport.abort()


@pytest.mark.parametrize("said", ["99999999H", "99999999M", "99999999S", "0n", "1n"])
async def test_extreme_timeouts_leave_the_engine_running(target: ServerProcess, said: str) -> None:
    """A Go client sends 99999999H for its largest duration; the call is answered or ends, and so are those
    after it.
    """
    message = ClassifyRequest(model="moods", texts=["good"]).SerializeToString()
    async with unharmed(target):
        for _ in range(10):
            connection = opened()
            connection.send_headers(1, headers(("grpc-timeout", said)))
            connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
            async with connected(target) as raw:
                await raw.send([connection.data_to_send()])


async def test_calls_that_never_send_their_message(target: ServerProcess) -> None:
    connection = opened()
    for _ in range(90):
        connection.send_headers(connection.get_next_available_stream_id(), headers())
    async with connected(target) as raw, unharmed(target):
        await raw.send([connection.data_to_send()])
