"""From SIGTERM to the end: the grace, the drain, and what is handed back."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from h2.config import H2Configuration
from h2.connection import H2Connection

from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from service.signals import SAME_S
from tests.deaf import deaf
from tests.integration.calls import Calls, Refusal, refusal_of
from tests.integration.process import ServerProcess
from tests.integration.test_lifecycle import LONG, NOT_SERVING, get, health, rest_of
from tests.service.builders import edit_graph
from tests.service.models.slow_graphs import loop_above
from tests.tiny import export_generator

PATIENCE_S = 30
# A stop with nothing running takes well under a second, and one more where a Watch does not read.
QUICK_END_S = 10
# So slow that no stream of these ends by itself.
SLOW = {"STREAM_INTERVAL_MS": "100", "STREAM_BUFFER": "10"}


async def serving(repository: Path, **settings: str) -> ServerProcess:
    server = ServerProcess(repository, settings)
    await server.start()
    await server.wait_for_health("")
    return server


async def end_of(call: Any) -> Refusal:
    """Read a stream until it fails."""
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(aio.AioRpcError) as caught:
            await rest_of(call)
    return refusal_of(caught.value)


async def test_what_outlasts_the_drain_is_handed_back(tiny_repository: Path) -> None:
    server = await serving(tiny_repository, DRAIN_SECONDS="0.3", **SLOW)
    async with server.channel() as channel:
        calls = Calls(channel)
        generated = [calls.generation.Generate(LONG) for _ in range(3)]
        for one in generated:
            await one.read()
        classified = calls.classification.ClassifyStream()
        await classified.write(classification.ClassifyRequest(model="moods", texts=["good"]))
        await classified.read()
        server.terminate()
        for one in (*generated, classified):
            found = await end_of(one)
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "WITHDRAWN")
            assert found.text == "the server is stopping; go on from the text so far at another replica"
    assert await server.ended() == 0
    assert not [event for event in server.events if event["event"] == "request failed"]


async def test_new_calls_succeed_in_the_grace_while_probes_hear_of_the_end(tiny_repository: Path) -> None:
    server = await serving(tiny_repository, GRACE_SECONDS="600", DRAIN_SECONDS="5")
    async with server.channel() as channel, server.channel(use_local_subchannel_pool=1) as late:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        await watch.read()
        server.terminate()
        assert (await watch.read()).status == NOT_SERVING
        assert await health(server, "model/moods") == NOT_SERVING
        assert (await get(f"{server.http}/readyz"))[0] == 503
        assert (await get(f"{server.http}/livez"))[0] == 200
        for calls in (Calls(channel), Calls(late)):
            assert (await calls.classify(["good"]))[0].label
        await asyncio.sleep(SAME_S)  # signals within it are one request
        server.terminate()  # the second one ends the grace at once
        async with asyncio.timeout(PATIENCE_S):
            assert await server.ended() == 0


async def test_grace_ends_by_itself(letters_repository: Path) -> None:
    server = await serving(letters_repository, GRACE_SECONDS="0.3")
    server.terminate()
    async with asyncio.timeout(PATIENCE_S):
        assert await server.ended() == 0


async def test_stream_may_go_on_in_grace_and_drain_together(letters_repository: Path) -> None:
    server = await serving(letters_repository, GRACE_SECONDS="0.2", DRAIN_SECONDS="60")
    async with server.channel() as channel:
        # More than the server makes ahead of a reader.
        request = generation.GenerateRequest(model="letters", prompt="abc", max_tokens=10_000)
        running = Calls(channel).generation.Generate(request)
        text = (await running.read()).text
        server.terminate()
        async with asyncio.timeout(PATIENCE_S):
            text += "".join(one.text for one in await rest_of(running))
        assert len(text) == request.max_tokens
    assert await server.ended() == 0


async def test_failed_start_has_no_grace(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, {"GRACE_SECONDS": "600"})
    assert await server.run_to_end() == 1


async def silent(server: ServerProcess, stack: AsyncExitStack) -> None:
    """Open a connection that sends nothing."""
    stack.enter_context(connect(server.grpc_port))


async def half_preface(server: ServerProcess, stack: AsyncExitStack) -> None:
    """Open a connection that goes no further than HTTP/2's first bytes."""
    stack.enter_context(connect(server.grpc_port)).sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


async def without_calls(server: ServerProcess, stack: AsyncExitStack) -> None:
    """Open a connection that makes no call and answers no ping."""
    http = H2Connection(H2Configuration(client_side=True))
    http.initiate_connection()
    stack.enter_context(connect(server.grpc_port)).sendall(http.data_to_send())


async def watching(server: ServerProcess, stack: AsyncExitStack) -> None:
    """Open a connection whose Watch never reads."""
    await (await stack.enter_async_context(deaf(server.grpc_port))).watch([""])


async def probing(server: ServerProcess, stack: AsyncExitStack) -> None:
    """Open a connection that never ends its HTTP request."""
    stack.enter_context(connect(server.http_port)).sendall(b"GET /livez HTTP/1.1\r\nX")


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE_S)


@pytest.mark.parametrize("one", [silent, half_preface, without_calls, watching, probing])
async def test_silent_connections_do_not_stretch_the_stop(
    letters_repository: Path, one: Callable[[ServerProcess, AsyncExitStack], Awaitable[None]]
) -> None:
    server = await serving(letters_repository, DRAIN_SECONDS="60")
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await one(server, stack)
        async with server.channel() as channel:  # what comes after them has been answered
            await Calls(channel).generate(prompt="abc", max_tokens=1)
        server.terminate()
        async with asyncio.timeout(QUICK_END_S):
            assert await server.ended() == 0
    assert [event for event in server.events if event["level"] == "error"] == []
    assert server.other_output == []


async def test_silent_tls_handshake_does_not_stretch_the_stop(
    letters_repository: Path, tmp_path: Path
) -> None:
    issued = trustme.CA().issue_cert("localhost")
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    certificate.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    settings = {"TLS_CERTIFICATE": str(certificate), "TLS_KEY": str(key), "DRAIN_SECONDS": "60"}
    server = ServerProcess(letters_repository, settings)
    await server.start()
    await server.wait_for_event("serving")
    async with AsyncExitStack() as stack:
        stack.enter_context(connect(server.grpc_port))
        stack.enter_context(connect(server.grpc_port)).sendall(bytes.fromhex("160301020001"))
        server.terminate()
        async with asyncio.timeout(QUICK_END_S):
            assert await server.ended() == 0


async def test_stop_during_the_load_gives_it_up(tmp_path: Path) -> None:
    """Of two versions one is loaded, and the trial of the other has no end."""
    repository = tmp_path / "repository"
    edit_graph(export_generator(repository, seed=0)[0], loop_above(0))
    export_generator(repository, seed=1)
    server = ServerProcess(repository, {"DRAIN_SECONDS": "60", "VERSIONS": "2"})
    await server.start()
    await server.wait_for_event("model ready")
    server.terminate()
    server.terminate()
    async with asyncio.timeout(QUICK_END_S):
        assert await server.ended() == 0
    events = [event["event"] for event in server.events]
    assert "stopped" in events
    assert "serving" not in events
    assert [event for event in server.events if event["level"] == "error"] == []
    assert server.other_output == []


async def test_calls_that_wait_to_be_taken_are_refused_as_unavailable(tiny_repository: Path) -> None:
    """grpc's core, where they wait, would end them as CANCELLED, which no client tries again."""
    server = await serving(tiny_repository, MAX_WAITING="100000")
    request = classification.ClassifyRequest(model="moods", texts=["good"])

    async def code_of(calls: Calls) -> grpc.StatusCode:
        try:
            await calls.classification.Classify(request)
        except aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async with server.channel() as channel:
        calls = Calls(channel)
        await calls.classify(["good"])
        asked = [asyncio.ensure_future(code_of(calls)) for _ in range(1000)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        server.terminate()
        async with asyncio.timeout(PATIENCE_S):
            codes = set(await asyncio.gather(*asked))
    assert await server.ended() == 0
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
