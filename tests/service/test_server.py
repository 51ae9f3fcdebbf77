"""service.server in this event loop, gRPC on a unix socket. The whole process is tested in
tests/integration.
"""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seqserve.v1 import models_pb2, models_pb2_grpc
from service.api.health import SERVING
from service.server import Server, StartError
from tests.service.builders import settings_of

PATIENCE_S = 30.0
ANY_HTTP = "127.0.0.1:0"


@asynccontextmanager
async def serving(
    models: Path, address: str
) -> AsyncIterator[tuple[Server, aio.Channel, "asyncio.Task[None]"]]:
    """A server that has said SERVING; stopped at the end as SIGTERM does it."""
    server = Server(settings_of(models, grpc_address=address, http_address=ANY_HTTP, drain_seconds=5))
    task = asyncio.create_task(server.run())
    try:
        async with asyncio.timeout(PATIENCE_S), aio.insecure_channel(address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(), wait_for_ready=True
            )
            async for answer in watch:
                if answer.status == SERVING:
                    break
            watch.cancel()
            yield server, channel, task
    finally:
        server._stopping.set()
        await task
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)


NAMES = (
    "",
    *(f"seqserve.v1.{one}" for one in ("TextGeneration", "TextClassification", "Forecasting", "Models")),
)
MODELS = ("model/letters", "model/moods", "model/prices")


async def test_health_has_a_name_for_each_service_and_model(models: Path, tmp_path: Path) -> None:
    async with serving(models, f"unix:{tmp_path}/socket") as (_, channel, _):
        stub = health_pb2_grpc.HealthStub(channel)
        found = {
            name: (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status
            for name in (*NAMES, *MODELS)
        }
    assert found == dict.fromkeys((*NAMES, *MODELS), SERVING)


async def test_models_are_listed(models: Path, tmp_path: Path) -> None:
    async with serving(models, f"unix:{tmp_path}/socket") as (_, channel, _):
        found = await models_pb2_grpc.ModelsStub(channel).List(models_pb2.ListModelsRequest())
        assert [one.name for one in found.models] == ["letters", "moods", "prices"]


async def test_stopped_server_takes_no_more_calls(models: Path, tmp_path: Path) -> None:
    async with serving(models, f"unix:{tmp_path}/socket") as (server, channel, task):
        server._stopping.set()
        await task
        with pytest.raises(aio.AioRpcError) as refusal:
            await models_pb2_grpc.ModelsStub(channel).List(models_pb2.ListModelsRequest(), timeout=10)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_taken_http_address_is_a_start_error(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            StartError,
            match=f"SEQSERVE_HTTP_ADDRESS: expected an address that can be listened on, found {address}",
        ):
            Server(settings_of(models, grpc_address="127.0.0.1:0", http_address=address))
