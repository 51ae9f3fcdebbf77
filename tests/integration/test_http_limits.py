"""Abuse of the HTTP port of the real server: nothing else notices, and nothing is logged."""

import asyncio
import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from statistics import median

import pytest

from tests.integration.calls import Calls
from tests.integration.http_calls import call, event_stream
from tests.integration.process import ServerProcess
from tests.integration.test_lifecycle import get, sample
from tests.integration.test_rest import GENERATE, INFER, LONG, texts, until_idle
from tests.integration.withstood import MARK, withstood

SOON_S = 5
POST = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nX-Told: {MARK}\r\n".encode()
BODY = json.dumps(texts("good", MARK)).encode()
WHOLE = POST + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
# Connections of the port, of which calls hold three quarters at most.
MAX_CONNECTIONS = 32
# What each of many connections sends and then waits, or breaks.
STARTS = {
    "nothing": b"",
    "part of a head": POST,
    "part of a body": POST + b"Content-Length: 1000\r\n\r\n{",
    "part of a chunk": CHUNKED + b"1000\r\nabc",
    "no HTTP": b"\x16\x03\x01" + MARK.encode(),
    "a head that is too large": POST + b"X-Large: " + b"x" * 40_000,
    "many headers": POST + b"".join(b"X-%d: y\r\n" % number for number in range(3000)) + b"\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "an odd length": POST + b"Content-Length: -1\r\n\r\n",
    "an odd chunk": CHUNKED + b"zz\r\n",
    "an odd chunk after a call": WHOLE[:-1] + b"}" + b"\x00" * 100,
    "many requests at once": WHOLE * 30,
    "many requests for metrics": b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 30,
    "an upgrade": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
}


def open_one(server: ServerProcess, stack: ExitStack, data: bytes) -> socket.socket:
    opened = stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), timeout=SOON_S))
    with suppress(ConnectionError):
        opened.sendall(data)
    return opened


def num_threads(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.pid}/task").iterdir()))


async def answers_beside(server: ServerProcess) -> None:
    """Check that probes, requests over HTTP and calls over gRPC are answered."""
    async with asyncio.timeout(SOON_S):
        assert (await get(f"{server.http}/livez"))[0] == 200
        while (found := await call(server, INFER, texts("good"))).status != 200:
            assert found.status == 429, found  # calls of others hold the connections that calls may hold
    async with asyncio.timeout(SOON_S), server.channel(use_local_subchannel_pool=1) as channel:
        await Calls(channel).classify(["good"])


@pytest.mark.parametrize("start", STARTS)
async def test_connections_that_wait_or_break_cost_nobody_anything(
    rest_server: ServerProcess, start: str
) -> None:
    await answers_beside(rest_server)
    before = num_threads(rest_server)
    async with withstood(rest_server):
        with ExitStack() as stack:
            for number in range(2 * MAX_CONNECTIONS):
                with suppress(ConnectionError):
                    opened = open_one(rest_server, stack, STARTS[start])
                    if number % 2:
                        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        opened.close()
            await answers_beside(rest_server)
            assert num_threads(rest_server) <= before + 2  # those of the main loop's own executor


async def test_300_idle_connections_leave_the_others_as_they_are(rest_server: ServerProcess) -> None:
    async with withstood(rest_server):
        with ExitStack() as stack:
            for _ in range(300):
                open_one(rest_server, stack, b"")
            for _ in range(5):
                await answers_beside(rest_server)


Sender = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def send_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(POST)
    while not reader.at_eof():
        writer.write(b"X: y\r\n")
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(100)


async def send_chunks_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(CHUNKED)
    while not reader.at_eof():
        writer.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
        await writer.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await reader.read(1000)


@pytest.mark.parametrize("sender", [send_slowly, send_chunks_without_end])
async def test_senders_without_end_are_cut_off(rest_server: ServerProcess, sender: Sender) -> None:
    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rest_server.http_port)
        try:
            with suppress(ConnectionError):
                await sender(reader, writer)
        finally:
            writer.transport.abort()

    async with withstood(rest_server), asyncio.timeout(20), asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(one())
        await answers_beside(rest_server)


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_body_that_is_too_large_is_refused(rest_server: ServerProcess, coding: str) -> None:
    data = b" " * ((4 << 20) + 1)
    body = gzip.compress(data) if coding == "gzip" else data
    with suppress(ConnectionError):  # the server need not take what it has refused
        found = await call(rest_server, INFER, body, {"Content-Encoding": coding})
        assert found.status == 413
        assert "4194304 bytes (SEQSERVE_HTTP_MAX_BODY_BYTES)" in found.json["error"]


async def test_pipelined_requests_are_answered_in_order(rest_server: ServerProcess) -> None:
    paths = [b"/livez", b"/v2/models/moods/ready", b"/readyz", b"/v2/models/nobody/ready"]
    asked = b"".join(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths)
    reader, writer = await asyncio.open_connection("127.0.0.1", rest_server.http_port)
    writer.write(asked[:-2])
    writer.write(asked[-2:] + b"GET /livez HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(SOON_S):
        received = await reader.read(-1)
    assert received.count(b"HTTP/1.1 ") == 5
    assert received.index(b'"moods"') < received.index(b'"nobody"')
    writer.close()


@asynccontextmanager
async def streams(server: ServerProcess, number: int) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for _ in range(number):
            events = await stack.enter_async_context(event_stream(server, f"{GENERATE}_stream", LONG))
            await anext(events)
        yield


async def test_calls_leave_connections_for_probes(rest_server: ServerProcess) -> None:
    most = MAX_CONNECTIONS * 3 // 4
    async with streams(rest_server, most):
        refused = await call(rest_server, INFER, texts("good"))
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        assert f"at most {most} requests over HTTP at a time" in refused.json["error"]
        with ExitStack() as stack:
            for _ in range(MAX_CONNECTIONS):
                open_one(rest_server, stack, b"")
            assert (await get(f"{rest_server.http}/livez"))[0] == 200
    await until_idle(rest_server)
    assert (await call(rest_server, INFER, texts("good"))).status == 200


@pytest.mark.parametrize("path", [INFER, f"{GENERATE}_stream"])
async def test_body_that_is_slow_is_held_against_the_bound_on_bytes(
    rest_server: ServerProcess, path: str
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".encode()
    with ExitStack() as stack:
        open_one(rest_server, stack, head + b"{")
        await until_held(rest_server, lambda held: held > 1 << 20)
    await until_held(rest_server, lambda held: held == 0)


async def until_held(server: ServerProcess, is_so: Callable[[float], bool]) -> None:
    """Wait until so many bytes are held by calls."""
    async with asyncio.timeout(SOON_S):
        while not is_so(await sample(server, "seqserve_held_bytes")):  # noqa: ASYNC110 -- no event for it
            await asyncio.sleep(0.05)


async def latencies(server: ServerProcess, number: int) -> list[float]:
    async with server.channel(use_local_subchannel_pool=1) as channel:
        calls, found = Calls(channel), []
        for _ in range(number):
            began = time.perf_counter()
            await calls.classify(["good"])
            found.append(time.perf_counter() - began)
        return found


async def test_large_json_holds_up_no_call(rest_server: ServerProcess) -> None:
    """The parser holds the interpreter, so a call may wait for one body, and never for several."""
    row = {"name": "input", "shape": [1, 400_000], "datatype": "INT64", "data": [1] * 400_000}
    body = json.dumps({"inputs": [row]}).encode()
    is_over = threading.Event()

    async def send() -> None:
        while not is_over.is_set():
            assert (await call(rest_server, INFER, body)).status == 400

    quiet = median(await latencies(rest_server, 50))
    senders = [asyncio.create_task(send()) for _ in range(2)]
    try:
        loud = median(await latencies(rest_server, 50))
    finally:
        is_over.set()
        await asyncio.gather(*senders)
    assert loud < quiet + 0.1
