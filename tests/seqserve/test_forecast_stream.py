"""Series kept open, through both clients: what is sent, what comes back, and how the stream ends."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.status_pb2 import Status

from seqserve import AsyncClient, Cancelled, Client, InvalidArgument, Overloaded, SeqserveError
from seqserve.v1 import forecasting_pb2 as forecasting
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer

Script = Callable[[Callable[..., Awaitable[Any]]], Awaitable[None]]
FULL = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="queue is full")


@pytest.fixture(params=["sync", "aio"])
def follow(request: pytest.FixtureRequest, server: ScriptedServer) -> Callable[..., Awaitable[None]]:
    """Opens a stream of the client under test, with options, and hands its `push` to a script."""

    async def sync(script: Script, **options: Any) -> None:
        with Client(server.address) as client, client.forecast_stream(**options) as stream:

            async def push(*arguments: Any, **fields: Any) -> Any:
                return stream.push(*arguments, **fields)

            await script(push)

    async def aio(script: Script, **options: Any) -> None:
        async with AsyncClient(server.address) as client, client.forecast_stream(**options) as stream:
            await script(stream.push)

    return sync if request.param == "sync" else aio


def sent(observed: list[list[float]], **fields: Any) -> forecasting.ForecastStreamRequest:
    return forecasting.ForecastStreamRequest(
        observations=[forecasting.Observation(values=values) for values in observed],
        return_state=True,
        **fields,
    )


async def _assert_ended(server: ScriptedServer, completed: bool) -> None:
    assert await asyncio.to_thread(server.ended.wait, WAIT_S)
    assert server.completed is completed


async def test_model_is_named_in_the_first_push_of_each_series_alone(
    server: ScriptedServer, follow: Callable[..., Awaitable[None]]
) -> None:
    async def script(push: Callable[..., Awaitable[Any]]) -> None:
        await push(np.array([[1, 2], [3, 4]]))
        await push([(5.0, 6.0)])
        await push(iter([iter([7])]), series_id="other")
        await push([[8]], series_id="other")

    await follow(script, model="prices", version=2, horizon=3, quantiles=[0.5])
    named: dict[str, Any] = {"model": "prices", "version": 2, "horizon": 3, "quantiles": [0.5]}
    assert server.requests == [
        sent([[1, 2], [3, 4]], **named),
        sent([[5, 6]]),
        sent([[7]], id="other", **named),
        sent([[8]], id="other"),
    ]


async def test_each_push_gives_the_forecast_after_it(
    server: ScriptedServer, follow: Callable[..., Awaitable[None]]
) -> None:
    async def script(push: Callable[..., Awaitable[Any]]) -> None:
        for value in (1.0, 2.0, 3.0):
            forecast = await push([[value]])
            assert (forecast.last_value, forecast.version) == (value, 4)
            assert [step.value for step in forecast.steps] == [101.0, 102.0]

    await follow(script)
    await _assert_ended(server, completed=True)


async def test_failed_push_leaves_the_stream_open_and_its_series_as_it_was(
    server: ScriptedServer, follow: Callable[..., Awaitable[None]]
) -> None:
    async def script(push: Callable[..., Awaitable[Any]]) -> None:
        for _ in range(2):
            with pytest.raises(InvalidArgument, match="found none"):
                await push([])
            await push([[1.0]])

    await follow(script)
    models = [
        request.model for request in server.requests if isinstance(request, forecasting.ForecastStreamRequest)
    ]
    assert models == ["stock", "stock", "", ""], "a series that was not opened names its model again"


async def test_failed_call_closes_the_stream(
    server: ScriptedServer, follow: Callable[..., Awaitable[None]]
) -> None:
    async def script(push: Callable[..., Awaitable[Any]]) -> None:
        await push([[1.0]])
        server.failure = FULL
        with pytest.raises(Overloaded, match="queue is full"):
            await push([[2.0]])
        with pytest.raises(RuntimeError, match="the stream is closed"):
            await push([[3.0]])

    await follow(script)


async def test_timeout_is_that_of_the_stream(
    server: ScriptedServer, follow: Callable[..., Awaitable[None]]
) -> None:
    server.holds = True

    async def script(push: Callable[..., Awaitable[Any]]) -> None:
        with pytest.raises(SeqserveError) as caught:
            await push([[1.0]])
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED

    await follow(script, timeout_s=0.2)


async def test_exception_in_the_block_cancels_the_call(
    server: ScriptedServer, follow: Callable[..., Awaitable[None]]
) -> None:
    async def script(push: Callable[..., Awaitable[Any]]) -> None:
        await push([[1.0]])
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        await follow(script)
    await _assert_ended(server, completed=False)


async def test_stream_without_a_push_ends(
    server: ScriptedServer, follow: Callable[..., Awaitable[None]]
) -> None:
    async def script(_: object) -> None:
        pass

    await follow(script)


def test_threads_that_share_a_stream_each_get_their_own_forecast(
    server: ScriptedServer, client: Client
) -> None:
    found: dict[int, float] = {}
    with client.forecast_stream() as stream:

        def push(number: int) -> None:
            found[number] = stream.push([[number]], series_id=str(number)).last_value

        threads = [threading.Thread(target=push, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert found == {number: float(number) for number in range(10)}


async def test_tasks_that_share_a_stream_each_get_their_own_forecast(server: ScriptedServer) -> None:
    async with AsyncClient(server.address) as client, client.forecast_stream() as stream:
        found = await asyncio.gather(
            *(stream.push([[number]], series_id=str(number)) for number in range(10))
        )
    assert [forecast.last_value for forecast in found] == list(range(10))


async def test_cancelled_push_closes_the_stream(server: ScriptedServer) -> None:
    server.holds = True
    async with AsyncClient(server.address) as client, client.forecast_stream() as stream:
        pushing = asyncio.ensure_future(stream.push([[1.0]]))
        await asyncio.sleep(0)
        pushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pushing
        with pytest.raises(RuntimeError, match="the stream is closed"):
            await stream.push([[2.0]])


async def test_closing_the_client_is_an_error_to_who_pushes_and_no_cancelled_task(
    server: ScriptedServer,
) -> None:
    server.holds = True
    client = AsyncClient(server.address)
    stream = client.forecast_stream()
    pushing = asyncio.ensure_future(stream.push([[1.0]]))
    assert await asyncio.to_thread(server.asked.wait, WAIT_S)
    await client.close()
    with pytest.raises(Cancelled, match="client was closed"):
        await pushing
