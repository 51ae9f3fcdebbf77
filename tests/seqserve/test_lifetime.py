"""Clients and streams that are closed, forked, shared between threads, or used in a second event loop."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from seqserve import (
    AsyncClient,
    AsyncForecastStream,
    AsyncTextStream,
    Cancelled,
    Client,
    ClientClosed,
    Retry,
    SeqserveError,
    Unavailable,
    WrongContext,
)
from tests.integration.process import ROOT
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, text_pieces

CALLS: dict[str, Any] = {
    "generate": lambda client: client.generate("Hi"),
    "score": lambda client: client.score(["ab"]),
    "classify": lambda client: client.classify(["ab"]),
    "classify_stream": lambda client: client.classify_stream([("a", "good")]),
    "forecast": lambda client: client.forecast([[[1.0]]]),
    "forecast_stream": lambda client: client.forecast_stream(),
    "models": lambda client: client.models(),
    "model": lambda client: client.model("stock"),
    "load_model": lambda client: client.load_model("stock"),
    "unload_model": lambda client: client.unload_model("stock"),
    "enter": lambda client: client.__enter__() if isinstance(client, Client) else client.__aenter__(),
}


async def _call(client: Client | AsyncClient, name: str) -> Any:
    answer = CALLS[name](client)
    return await answer if asyncio.iscoroutine(answer) else answer


@pytest.mark.parametrize("name", CALLS)
async def test_calls_after_the_end_say_that_the_client_is_closed(server: ScriptedServer, name: str) -> None:
    client, fresh, used = Client(server.address), AsyncClient(server.address), AsyncClient(server.address)
    await used.models()
    client.close()
    client.close()
    for each in (fresh, used):
        await each.close()
        await each.close()
    for closed in (client, fresh, used):
        with pytest.raises(ClientClosed, match="the client is closed") as caught:
            await _call(closed, name)
        assert isinstance(caught.value, (Cancelled, RuntimeError))
        assert repr(closed).endswith(f"({server.address!r}, closed)")


@pytest.mark.parametrize("retry", [None, Retry()], ids=["without retries", "with retries"])
def test_closing_the_client_ends_its_streams_by_name(server: ScriptedServer, retry: Retry | None) -> None:
    server.pieces, server.holds = text_pieces(), True
    client = Client(server.address, retry=retry)
    following, pieces = client.forecast_stream(), iter(client.generate())
    next(pieces)
    client.close()
    with pytest.raises(ClientClosed, match="client was closed"):
        next(pieces)
    with pytest.raises(ClientClosed, match="client is closed"):
        following.push([[1.0]])
    following.close()


@pytest.mark.parametrize("retry", [None, Retry()], ids=["without retries", "with retries"])
async def test_closing_the_asyncio_client_ends_its_streams_by_name(
    server: ScriptedServer, retry: Retry | None
) -> None:
    server.pieces, server.holds = text_pieces(), True
    client = AsyncClient(server.address, retry=retry)
    following, pieces = client.forecast_stream(), aiter(client.generate())
    await anext(pieces)
    await client.close()
    with pytest.raises(ClientClosed, match="client was closed"):
        await anext(pieces)
    with pytest.raises(ClientClosed, match="client is closed"):
        await following.push([[1.0]])


@pytest.mark.parametrize("retry", [None, Retry()], ids=["without retries", "with retries"])
def test_closing_the_client_ends_a_push_in_another_thread(
    server: ScriptedServer, retry: Retry | None
) -> None:
    server.holds = True
    client = Client(server.address, retry=retry)
    stream = client.forecast_stream()
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(stream.push, [[1.0]])
        assert server.asked.wait(WAIT_S)
        client.close()
        with pytest.raises(ClientClosed, match="client was closed"):
            pushing.result(WAIT_S)


def test_threads_share_a_client(server: ScriptedServer) -> None:
    server.pieces = text_pieces()
    ready = threading.Barrier(4)

    def work(client: Client, number: int) -> list[str]:
        ready.wait(WAIT_S)
        texts = [client.generate().read().text for _ in range(5)]
        with client.forecast_stream() as stream:
            assert stream.push([[float(number)]]).last_value == number
        return texts

    with Client(server.address, timeout_s=WAIT_S) as client, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, [client] * 4, range(4)))
    assert found == [["To be or"] * 5] * 4


def test_an_asyncio_client_is_made_outside_and_used_in_one_loop(server: ScriptedServer) -> None:
    client = AsyncClient(server.address)

    async def use() -> None:
        assert len(await client.models()) == 3

    async def open_streams() -> tuple[AsyncTextStream, AsyncForecastStream]:
        return client.generate(), client.forecast_stream()

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(use())
        generated, following = first.run(open_streams())
        for coroutine in (
            use(),
            client.close(),
            _call(client, "generate"),
            _call(client, "enter"),
            generated.read(),
            following.push([[1.0]]),
        ):
            with pytest.raises(WrongContext, match="belongs to the event loop of its first call"):
                second.run(coroutine)
        first.run(use())
        first.run(client.close())


def test_an_asyncio_client_without_a_loop_says_so(server: ScriptedServer) -> None:
    client = AsyncClient(server.address)
    with pytest.raises(WrongContext, match="in a running event loop, and none runs here") as caught:
        client.generate()
    assert isinstance(caught.value, SeqserveError)


FORKED = """
import os, signal, sys
from seqserve import Client
client = Client(sys.argv[1], timeout_s=20)
client.models()
stream = client.generate()
if os.fork() == 0:
    signal.alarm(30)  # ends a child that hangs in gRPC
    found = []
    for call in (client.models, client.generate, client.forecast_stream, stream.read):
        try:
            call()
        except Exception as error:
            found.append(f"{type(error).__name__}:{'forked' in str(error)}")
    client.close()
    sys.stdout.write(",".join(found))
    sys.stdout.flush()
    os._exit(0)
os.wait()
client.models()
sys.stdout.write(";" + stream.read().text)
"""


def test_a_forked_process_is_told_to_make_its_own_client(server: ScriptedServer) -> None:
    server.pieces = text_pieces()
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, server.address],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout == ",".join(["WrongContext:True"] * 4) + ";To be or"


def test_a_client_shows_its_address_and_no_token(server: ScriptedServer) -> None:
    for client in (Client(server.address, token="s3cret"), AsyncClient(server.address, token="s3cret")):
        assert repr(client) == f"{type(client).__name__}({server.address!r})"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "unix:/nowhere/socket"])
async def test_an_address_where_nothing_answers_is_named(address: str) -> None:
    with Client(address, retry=None) as client:
        for call in (client.models, lambda: client.generate().read()):
            with pytest.raises(Unavailable, match=f"^no answer from {address}: ") as caught:
                call()
            assert caught.value.address == address
    async with AsyncClient(address, retry=None) as aio, aio.forecast_stream() as stream:
        with pytest.raises(Unavailable, match=f"^no answer from {address}: ") as caught:
            await stream.push([[1.0]])
        assert caught.value.address == address
