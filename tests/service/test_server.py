"""service.server in this event loop, gRPC on a unix socket. The whole process is tested in
tests/integration.
"""

import asyncio
import http.client
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from seqserve.v1 import (
    models_pb2,
    models_pb2_grpc,
    text_classification_pb2,
    text_classification_pb2_grpc,
)
from service import server as server_module
from service.api.health import NOT_SERVING, SERVING
from service.models.repository import OnChange
from service.parts import StartError
from service.server import Server
from service.signals import STOP_SIGNALS, StopSignals
from tests.deaf import deaf
from tests.service.builders import refuse_threads, settings_of

PATIENCE_S = 30.0
ANY_HTTP = "127.0.0.1:0"


def server_of(models: Path, address: str, **changes: Any) -> Server:
    return Server(
        settings_of(models, grpc_address=address, http_address=ANY_HTTP, drain_seconds=5, **changes)
    )


@asynccontextmanager
async def started(server: Server, address: str) -> AsyncIterator[tuple[aio.Channel, "asyncio.Task[None]"]]:
    """A server that runs, and a channel to it; stopped at the end as SIGTERM does it."""
    task = asyncio.create_task(server.run(StopSignals()))
    try:
        async with asyncio.timeout(PATIENCE_S), aio.insecure_channel(address) as channel:
            yield channel, task
    finally:
        server._stop.is_asked.set()
        await task
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)


@asynccontextmanager
async def serving(
    models: Path, address: str, **changes: Any
) -> AsyncIterator[tuple[Server, aio.Channel, "asyncio.Task[None]"]]:
    """A server that has said SERVING."""
    server = server_of(models, address, **changes)
    async with started(server, address) as (channel, task):
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), wait_for_ready=True
        )
        async for answer in watch:
            if answer.status == SERVING:
                break
        watch.cancel()
        yield server, channel, task


NAMES = (
    "",
    *(
        f"seqserve.v1.{one}"
        for one in ("TextGeneration", "TextClassification", "Forecasting", "Sequences", "Models")
    ),
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


async def test_start_does_not_wait_for_deaf_watchers(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They watch before the first model is loaded, and whoever reads hears of the start all the same."""
    socket_path, may_load = f"{tmp_path}/socket", threading.Event()
    server = server_of(models, f"unix:{socket_path}")
    load_all = server._repository.load_all

    def load_when_told(on_change: OnChange) -> None:
        may_load.wait(PATIENCE_S)
        load_all(on_change)

    monkeypatch.setattr(server._repository, "load_all", load_when_told)
    async with started(server, f"unix:{socket_path}") as (channel, _):
        stub = health_pb2_grpc.HealthStub(channel)
        asked = [health_pb2.HealthCheckRequest(service=name) for name in (*NAMES, *MODELS)]
        hearing = [stub.Watch(one, wait_for_ready=True) for one in asked]
        assert [(await one.read()).status for one in hearing] == [NOT_SERVING] * len(hearing)
        async with deaf(socket_path) as beside:
            await beside.watch([*NAMES, *MODELS])
            may_load.set()
            assert [(await one.read()).status for one in hearing] == [SERVING] * len(hearing)
            assert await ready(server) == 200
        for one in hearing:
            one.cancel()


async def ready(server: Server) -> int:
    """Ask /readyz, and return the HTTP status."""

    def fetch() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server._http.port}/readyz") as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    return await asyncio.to_thread(fetch)


async def test_health_and_readiness_follow_the_engines(models: Path, tmp_path: Path) -> None:
    """A failed engine takes its model and its task out of health; when no engine is left, the server is not
    ready.
    """
    async with serving(models, f"unix:{tmp_path}/socket") as (server, channel, _):
        stub = health_pb2_grpc.HealthStub(channel)

        async def statuses() -> dict[str, int]:
            asked = [health_pb2.HealthCheckRequest(service=name) for name in (*NAMES, *MODELS)]
            return {one.service: (await stub.Check(one)).status for one in asked}

        async def fail(*names: str) -> None:
            """Mark engines as failed, and wait until health has noticed the last of them."""
            for entry in server._repository.table.entries():
                if entry.name in names and entry.served is not None:
                    entry.served.engine.engines[0].facts.has_failed = True
            async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=f"model/{names[-1]}")):
                if answer.status == NOT_SERVING:
                    return

        everything = dict.fromkeys((*NAMES, *MODELS), SERVING)
        await fail("letters")
        lost = ("model/letters", "seqserve.v1.TextGeneration")
        assert await statuses() == everything | dict.fromkeys(lost, NOT_SERVING)
        assert await ready(server) == 200
        await fail("moods", "prices")
        assert await statuses() == dict.fromkeys(everything, NOT_SERVING)
        assert await ready(server) == 503


@pytest.mark.parametrize("kind", ["thread", "loop"])
async def test_model_whose_engine_fails_is_out_of_health_until_it_is_loaded_anew(
    models: Path, tmp_path: Path, kind: str
) -> None:
    async with serving(models, f"unix:{tmp_path}/socket", engine_driver=kind) as (server, channel, _):
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="model/moods"))
        assert (await watch.read()).status == SERVING
        [engine] = server._repository.table.find("moods", 0, "text-classification").engine.engines
        engine.run_turn = _explode  # type: ignore[method-assign]
        stub = text_classification_pb2_grpc.TextClassificationStub(channel)
        request = text_classification_pb2.ClassifyRequest(model="moods", texts=["a good film"])
        with pytest.raises(aio.AioRpcError) as failure:
            await stub.Classify(request)
        assert failure.value.code() is grpc.StatusCode.INTERNAL
        assert (await watch.read()).status == NOT_SERVING
        assert server._is_alive()
        assert await ready(server) == 200
        assert (await watch.read()).status == SERVING
        assert len((await stub.Classify(request)).results) == 1
        watch.cancel()


def _explode() -> NoReturn:
    raise ZeroDivisionError("a fault of the engine")


async def test_model_whose_engine_fails_too_often_stays_out_of_health_and_ends_liveness(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(models, f"unix:{tmp_path}/socket") as (server, channel, _):
        monkeypatch.setattr(server._repository, "_may_restart", lambda _: False)
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="model/moods"))
        assert (await watch.read()).status == SERVING
        [engine] = server._repository.table.find("moods", 0, "text-classification").engine.engines
        engine.run_turn = _explode  # type: ignore[method-assign]
        stub = text_classification_pb2_grpc.TextClassificationStub(channel)
        request = text_classification_pb2.ClassifyRequest(model="moods", texts=["a good film"])
        for _ in range(2):
            with pytest.raises(aio.AioRpcError) as failure:
                await stub.Classify(request)
            assert failure.value.code() is grpc.StatusCode.INTERNAL
        assert (await watch.read()).status == NOT_SERVING
        await asyncio.wrap_future(server._repository._worker.submit(int))
        assert not server._is_alive()
        watch.cancel()


async def test_background_work_that_an_error_ends_is_logged_and_begins_again(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "AGAIN_S", 0.01)
    monkeypatch.setattr(server_module, "HEALTH_INTERVAL_S", 0.01)
    has_begun_again = asyncio.Event()
    async with serving(models, f"unix:{tmp_path}/socket") as (server, channel, _):
        entries, failures = server._repository.table.entries, iter([ZeroDivisionError("a bug")])

        def fail_once() -> Any:
            for failure in failures:
                raise failure
            has_begun_again.set()
            return entries()

        with capture_logs() as logs:
            monkeypatch.setattr(server._repository.table, "entries", fail_once)
            async with asyncio.timeout(20):
                await has_begun_again.wait()
        assert [line["event"] for line in logs if line["log_level"] == "error"] == [
            "following the engines has ended, and begins again"
        ]
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == SERVING


async def test_event_loop_that_is_held_for_long_is_not_alive(models: Path, tmp_path: Path) -> None:
    async with serving(models, f"unix:{tmp_path}/socket") as (server, _, __):
        assert server._is_alive()
        server._beat = time.monotonic() - server_module.MAX_HELD_S - 1
        assert not server._is_alive()


async def test_liveness_is_told_over_http_while_the_event_loop_is_held(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is followed from the start: one that stood still in its first second was alive for ever."""
    monkeypatch.setattr(server_module, "HEALTH_INTERVAL_S", 30.0)
    monkeypatch.setattr(server_module, "MAX_HELD_S", 0.5)
    address = f"unix:{tmp_path}/socket"
    server = server_of(models, address, http_api=True)
    async with started(server, address):
        while server._beat is None:  # noqa: ASYNC110 -- a number that nobody reports
            await asyncio.sleep(0.01)
        statuses: list[int] = []

        def ask() -> None:
            for path in ("/livez", "/v2/health/live"):
                on = http.client.HTTPConnection("127.0.0.1", server._http.port, timeout=10)
                on.request("GET", path)
                statuses.append(on.getresponse().status)
                on.close()

        asking = threading.Timer(0.6, ask)
        asking.start()
        asking.join()  # holds the event loop
        assert statuses == [503, 503]


async def test_models_are_listed(models: Path, tmp_path: Path) -> None:
    async with serving(models, f"unix:{tmp_path}/socket") as (_, channel, _):
        found = await models_pb2_grpc.ModelsStub(channel).List(models_pb2.ListModelsRequest())
        assert [one.name for one in found.models] == ["letters", "moods", "prices"]


async def test_stopped_server_takes_no_more_calls(models: Path, tmp_path: Path) -> None:
    async with serving(models, f"unix:{tmp_path}/socket") as (server, channel, task):
        server._stop.is_asked.set()
        await task
        with pytest.raises(aio.AioRpcError) as refusal:
            await models_pb2_grpc.ModelsStub(channel).List(models_pb2.ListModelsRequest(), timeout=10)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_server_stops_entirely_where_at_first_no_thread_can_be_started(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error ended the drain, and the HTTP server went on."""
    async with serving(models, f"unix:{tmp_path}/socket") as (server, _, task):
        left = refuse_threads(monkeypatch, 2)
        server._stop.is_asked.set()
        await task
    assert left == [0]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server._http.port), PATIENCE_S)


async def test_taken_http_address_is_a_start_error(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            StartError,
            match=f"SEQSERVE_HTTP_ADDRESS: expected an address that can be listened on, found {address}",
        ):
            Server(settings_of(models, grpc_address="127.0.0.1:0", http_address=address))


@pytest.fixture
def other_localhost(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """localhost with a port that another program has at ::1, which the table of hosts leaves out."""

    def resolve(_host: str, port: int, **_options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no ::1")
    with taken:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        yield f"localhost:{taken.getsockname()[1]}"


def taken_sentence(setting: str, address: str) -> str:
    port = address.rpartition(":")[2]
    return (
        f"{setting}: expected an address that can be listened on, found {address}: another program, or "
        f"another seqserve, listens at port {port}; stop it, or name another port (0: any free one)"
    )


async def test_localhost_of_which_another_has_one_address_is_a_start_error(
    models: Path, other_localhost: str
) -> None:
    server = server_of(models, other_localhost)
    with pytest.raises(StartError) as refusal:
        server._listen()
    server._http.start()
    server._http.stop()
    assert str(refusal.value) == taken_sentence("SEQSERVE_GRPC_ADDRESS", other_localhost)


async def test_localhost_over_http_is_refused_in_the_same_words(models: Path, other_localhost: str) -> None:
    with pytest.raises(StartError) as refusal:
        Server(settings_of(models, grpc_address="127.0.0.1:0", http_address=other_localhost))
    assert str(refusal.value) == taken_sentence("SEQSERVE_HTTP_ADDRESS", other_localhost)


async def test_path_of_a_server_that_lives_is_a_start_error_and_stays_its_own(
    models: Path, tmp_path: Path
) -> None:
    """Another server took the path over, and removed it at its end."""
    address = f"unix:{tmp_path}/socket"
    async with serving(models, address) as (_, channel, _task):
        second = server_of(models, address)
        with pytest.raises(StartError) as refusal:
            second._listen()
        second._http.start()
        second._http.stop()
        assert str(refusal.value) == (
            "SEQSERVE_GRPC_ADDRESS: expected an address that can be listened on, "
            f"found {address}: a server listens there already"
        )
        async with aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as later:
            assert (await models_pb2_grpc.ModelsStub(later).List(models_pb2.ListModelsRequest())).models
        assert (await models_pb2_grpc.ModelsStub(channel).List(models_pb2.ListModelsRequest())).models
    assert os.listdir(tmp_path) == []
