"""Peers that hold every connection there may be: a newcomer is answered, and running calls go on."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from h2.config import H2Configuration
from h2.connection import H2Connection

from seqserve.v1 import models_pb2 as models
from seqserve.v1 import text_generation_pb2 as generation
from tests.deaf import deaf
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.integration.test_lifecycle import get, sample

PATIENCE_S = 30.0
# A newcomer's call, from connecting to its answer, on a busy machine; `make chaos` allows a second.
SOON_S = 5.0
LIMIT = 40
SLOW = {"STREAM_INTERVAL_MS": "20", "STREAM_BUFFER": "10"}
LONG = generation.GenerateRequest(model="letters", prompt="abc", max_tokens=100_000, temperature=0.0)
# Seconds until a peer whose connection was closed opens another.
RETRY_S = 0.25
STREAM_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/seqserve.v1.TextClassification/ClassifyStream"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

Attack = Callable[[int, AsyncExitStack], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(tiny_repository: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tiny_repository, {"MAX_CONNECTIONS": str(LIMIT), **SLOW}) as server:
        yield server


def connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE_S, source_address=(host, 0))


async def silent(port: int, stack: AsyncExitStack) -> None:
    stack.enter_context(connect(port))


async def silent_elsewhere(port: int, stack: AsyncExitStack) -> None:
    stack.enter_context(connect(port, "127.0.0.2"))


async def half_preface(port: int, stack: AsyncExitStack) -> None:
    stack.enter_context(connect(port)).sendall(PREFACE)


async def without_calls(port: int, stack: AsyncExitStack) -> None:
    http = H2Connection(H2Configuration(client_side=True))
    http.initiate_connection()
    stack.enter_context(connect(port)).sendall(http.data_to_send())


async def watching(port: int, stack: AsyncExitStack) -> None:
    await (await stack.enter_async_context(deaf(port))).watch([""])


@asynccontextmanager
async def attack(server: ServerProcess, one: Attack, number: int) -> AsyncIterator[None]:
    """Open connections, of which the server may close some."""
    async with AsyncExitStack() as stack:
        for _ in range(number):
            with suppress(AssertionError, ConnectionError):  # closed by the server
                await one(server.grpc_port, stack)
        yield


async def newcomer_is_answered(server: ServerProcess) -> None:
    """Call once on a connection of its own, which reconnects if it is refused at first."""
    async with asyncio.timeout(SOON_S), server.channel(use_local_subchannel_pool=1) as channel:
        request = generation.ScoreRequest(model="letters", texts=["abc"])
        await Calls(channel).generation.Score(request, wait_for_ready=True)


@pytest.mark.parametrize("one", [silent, half_preface, without_calls, watching])
async def test_newcomers_are_answered_beside_connections_that_say_nothing(
    target: ServerProcess, one: Attack
) -> None:
    async with asyncio.timeout(PATIENCE_S), target.channel(use_local_subchannel_pool=1) as channel:
        running = Calls(channel).generation.Generate(LONG)
        await running.read()
        async with attack(target, one, 3 * LIMIT):
            await asyncio.sleep(0.2)  # the server has no event for its last look at the connections
            for _ in range(5):
                await newcomer_is_answered(target)
            for check in ("readyz", "livez"):
                assert (await get(f"{target.http}/{check}"))[0] == 200
            assert (await running.read()).text, "the running call was cut off"
        running.cancel()
    assert await sample(target, "seqserve_connections_shut_total") > 0
    assert [event for event in target.events if event["level"] == "error"] == []
    assert target.other_output == []


async def test_host_with_many_connections_costs_other_hosts_none(target: ServerProcess) -> None:
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", target.grpc_port)
        before = await sample(target, "seqserve_connections_shut_total")
        async with attack(target, silent_elsewhere, LIMIT - 1):
            while await sample(target, "seqserve_connections_shut_total") == before:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await newcomer_is_answered(target)
            writer.write(PREFACE)
            assert (await reader.read(1)) != b"", (
                "the oldest connection was shut down for the sake of another host's"
            )
        writer.close()


async def test_pooled_connection_stays_beside_idle_streams_of_its_host(target: ServerProcess) -> None:
    async with asyncio.timeout(PATIENCE_S), AsyncExitStack() as stack:
        for _ in range(LIMIT - 3):
            channel = await stack.enter_async_context(target.channel(use_local_subchannel_pool=1))
            stream = Calls(channel).classification.ClassifyStream()
            await stream.wait_for_connection()
            stack.callback(stream.cancel)
        pooled = await stack.enter_async_context(target.channel(use_local_subchannel_pool=1))
        for _ in range(3):
            await Calls(pooled).models.List(models.ListModelsRequest(), wait_for_ready=True)
            await asyncio.sleep(0.3)  # the server has no event for its looks at the connections
            assert pooled.get_state() is grpc.ChannelConnectivity.READY


async def reconnect(port: int) -> None:
    """Open a connection with a stream, and another one whenever it is closed, until cancelled."""
    http = H2Connection(H2Configuration(client_side=True))
    http.initiate_connection()
    http.send_headers(http.get_next_available_stream_id(), STREAM_HEADERS)
    begin = http.data_to_send()
    while True:
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
            try:
                writer.write(begin)
                while await reader.read(1 << 16):
                    pass
            finally:
                writer.transport.abort()
        await asyncio.sleep(RETRY_S)


async def test_newcomers_are_answered_beside_a_host_that_reconnects(target: ServerProcess) -> None:
    async with asyncio.timeout(PATIENCE_S):
        before = await sample(target, "seqserve_connections_shut_total")
        attackers = [asyncio.create_task(reconnect(target.grpc_port)) for _ in range(LIMIT + 30)]
        while await sample(target, "seqserve_connections_shut_total") < before + 20:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        try:
            async with asyncio.timeout(SOON_S):
                for _ in range(20):
                    await newcomer_is_answered(target)
        finally:
            for one in attackers:
                one.cancel()
            await asyncio.wait(attackers)


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2048, reason="needs 2,000 descriptors")
async def test_newcomers_are_answered_beside_a_thousand_silent_connections(
    tiny_server: ServerProcess,
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await newcomer_is_answered(tiny_server)
        async with attack(tiny_server, silent, 1200):
            await asyncio.sleep(0.2)
            for _ in range(5):
                await newcomer_is_answered(tiny_server)
            assert (await get(f"{tiny_server.http}/livez"))[0] == 200


async def half_request(port: int, stack: AsyncExitStack) -> None:
    stack.enter_context(connect(port)).sendall(b"GET /metrics HT")


async def unread_answer(port: int, stack: AsyncExitStack) -> None:
    stack.enter_context(connect(port)).sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)


@asynccontextmanager
async def with_few_descriptors(repository: Path) -> AsyncIterator[ServerProcess]:
    """A server that serves and may open no more than 64 descriptors."""
    async with ServerProcess(repository) as server:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (64, 64))
        await newcomer_is_answered(server)
        yield server


@pytest.mark.parametrize(("one", "number"), [(silent, 300), (half_request, 300), (unread_answer, 60)])
async def test_calls_and_probes_are_answered_beside_slow_probes(
    tiny_server: ServerProcess, one: Attack, number: int
) -> None:
    def num_threads() -> int:
        return len(list(Path(f"/proc/{tiny_server.pid}/task").iterdir()))

    written = len(tiny_server.other_output)  # other tests use this server, too
    async with asyncio.timeout(PATIENCE_S), AsyncExitStack() as stack:
        await newcomer_is_answered(tiny_server)
        before = num_threads()
        for _ in range(number):
            with suppress(ConnectionError):
                await one(tiny_server.http_port, stack)
        for _ in range(5):
            await newcomer_is_answered(tiny_server)
            async with asyncio.timeout(SOON_S):
                assert (await get(f"{tiny_server.http}/livez"))[0] == 200
        assert num_threads() - before < 10
    assert [event for event in tiny_server.events if event["level"] == "error"] == []
    assert tiny_server.other_output[written:] == []


async def test_silent_probes_at_the_descriptor_limit_cost_no_call(tiny_repository: Path) -> None:
    async with (
        asyncio.timeout(PATIENCE_S),
        with_few_descriptors(tiny_repository) as server,
        AsyncExitStack() as stack,
    ):
        for _ in range(100):
            await half_request(server.http_port, stack)
        for _ in range(5):
            await newcomer_is_answered(server)
            async with asyncio.timeout(SOON_S):
                assert (await get(f"{server.http}/livez"))[0] == 200
        assert [event for event in server.events if event["level"] == "error"] == []


async def probed(url: str) -> None:
    """Probe as a kubelet does, until there is an answer: a probe for which no descriptor is left is reset."""
    while True:
        with suppress(OSError):
            assert (await get(url))[0] == 200
            return
        await asyncio.sleep(RETRY_S)


async def test_silent_connections_at_the_descriptor_limit_make_room_for_calls(tiny_repository: Path) -> None:
    async with asyncio.timeout(PATIENCE_S), with_few_descriptors(tiny_repository) as server:
        async with attack(server, silent, 60):
            for check in ("readyz", "livez"):
                async with asyncio.timeout(SOON_S):
                    await probed(f"{server.http}/{check}")
            # grpc tries again each second to accept what its descriptors were lacking for.
            async with asyncio.timeout(2 * SOON_S), server.channel(use_local_subchannel_pool=1) as channel:
                await Calls(channel).classify(["good"])
        await newcomer_is_answered(server)
        assert [event for event in server.events if event["level"] == "error"] == []
