"""Start, health, overload, cancellation, deadlines, drain: the server's life as its callers and its probes
see it.
"""

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seqserve.v1 import text_generation_pb2 as generation
from tests.integration.calls import Calls, refusal
from tests.integration.process import SERVING, ServerProcess
from tests.tiny import edit_spec, export_all, export_generator

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = (
    "seqserve.v1.TextGeneration",
    "seqserve.v1.TextClassification",
    "seqserve.v1.Forecasting",
    "seqserve.v1.Sequences",
    "seqserve.v1.Models",
)
LONG = generation.GenerateRequest(model="letters", prompt="abc", max_tokens=100_000, temperature=0.0)

_REFUSED = (
    'seqserve_requests_total{code="INVALID_ARGUMENT",method="/seqserve.v1.TextClassification/Classify"} 1.0'
)


async def health(server: ServerProcess, name: str) -> int:
    async with server.channel() as channel:
        return int(
            (
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
            ).status
        )


async def get(url: str) -> tuple[int, str]:
    """Status and body of an HTTP GET."""

    def fetch() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url) as response:  # noqa: S310 - loopback
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


async def sample(server: ServerProcess, name: str) -> float:
    """One metric's value, by its whole name with labels."""
    _, text = await get(f"{server.http}/metrics")
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " "))


async def rest_of(call: Any) -> list[generation.GenerateResponse]:
    """The messages of a stream that has been read from before."""
    messages = []
    while (message := await call.read()) is not aio.EOF:
        messages.append(message)
    return messages


async def wait_until(server: ServerProcess, name: str, expected: float) -> None:
    """Poll a metric until it has a value; the engine has no other way to tell a test from outside."""
    async with asyncio.timeout(20):
        while await sample(server, name) != expected:  # noqa: ASYNC110 - another process has no event to await
            await asyncio.sleep(0.01)


async def test_health_is_serving_for_every_name_once_models_are_admitted(tiny_server: ServerProcess) -> None:
    for name in ("", *SERVICES, "model/letters", "model/moods", "model/prices"):
        assert await health(tiny_server, name) == SERVING


async def test_health_of_an_unknown_name_is_not_found(tiny_server: ServerProcess) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await health(tiny_server, "model/nobody")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_health_turns_serving_only_after_admission(tiny_repository: Path) -> None:
    server = ServerProcess(tiny_repository)
    await server.start()
    try:
        seen = []
        async with asyncio.timeout(30), server.channel() as channel:
            async for response in health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service="")
            ):
                seen.append(response.status)
                if response.status == SERVING:
                    break
        await server.wait_for_event("serving")  # the log is read after the answers
        ready = [event["model"] for event in server.events if event["event"] == "model ready"]
        assert seen in ([NOT_SERVING, SERVING], [SERVING])
        assert sorted(ready) == ["letters", "letters-gru", "moods", "prices"]
        assert (await get(f"{server.http}/readyz"))[0] == 200
    finally:
        await server.stop()


async def test_http_answers_liveness_readiness_and_metrics_and_nothing_else(
    tiny_server: ServerProcess,
) -> None:
    assert (await get(f"{tiny_server.http}/livez"))[0] == 200
    assert (await get(f"{tiny_server.http}/readyz"))[0] == 200
    assert (await get(f"{tiny_server.http}/other"))[0] == 404


async def test_metrics_count_calls_steps_and_tokens(tiny_repository: Path) -> None:
    async with ServerProcess(tiny_repository) as server, server.channel() as channel:
        calls = Calls(channel)
        await calls.generate(prompt="abcdefgh", max_tokens=30)
        await calls.classify(["a good film"] * 3)
        await refusal(calls.classify([]))
        # A call is counted when its handler has ended, which may be after its answer has arrived.
        async with asyncio.timeout(10):
            while _REFUSED not in (text := (await get(f"{server.http}/metrics"))[1]):
                pass
    for line in (
        'seqserve_requests_total{code="OK",method="/seqserve.v1.TextGeneration/Generate"} 1.0',
        'seqserve_requests_total{code="OK",method="/seqserve.v1.TextClassification/Classify"} 1.0',
        'seqserve_tokens_generated_total{model="letters"} 30.0',
        'seqserve_time_to_first_token_seconds_count{model="letters"} 1.0',
        'seqserve_steps_total{kind="useful",model="letters"} 37.0',
        'seqserve_steps_total{kind="useful",model="moods"} 9.0',
        (
            'seqserve_model_info{cell="lstm",model="letters",provider="CPUExecutionProvider",'
            'task="text-generation",variant="fp32",version="1"} 1.0'
        ),
    ):
        assert line in text.splitlines()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def one_slot(tiny_repository: Path) -> AsyncIterator[ServerProcess]:
    """A server that runs one sequence at a time, and lets two wait."""
    async with ServerProcess(tiny_repository, {"SLOTS": "1", "MAX_WAITING": "2"}) as server:
        yield server


async def test_full_queue_refuses_at_once_and_says_when_to_try_again(one_slot: ServerProcess) -> None:
    server = one_slot
    async with server.channel() as channel:
        calls = Calls(channel)
        running = calls.generation.Generate(LONG)
        await running.read()
        waiting = [calls.generation.Generate(LONG) for _ in range(2)]
        await wait_until(server, 'seqserve_waiting_sequences{model="letters"}', 2)
        found = await refusal(calls.generate(prompt="abc"))
        assert found.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert found.reason == "QUEUE_FULL"
        assert found.retry_after_s is not None
        assert 0 < found.retry_after_s <= 10
        assert (await calls.classify(["good"]))[0].label  # another model's queue is its own
        for one in (running, *waiting):
            one.cancel()
        await wait_until(server, 'seqserve_waiting_sequences{model="letters"}', 0)
        await calls.generate(prompt="abc", max_tokens=5)


async def test_cancelled_stream_frees_its_slot(one_slot: ServerProcess) -> None:
    server = one_slot
    async with server.channel() as channel:
        calls = Calls(channel)
        await calls.generate(prompt="abc", max_tokens=1)
        before = await sample(server, 'seqserve_cancelled_total{model="letters"}')
        for _ in range(5):
            running = calls.generation.Generate(LONG)
            await running.read()
            running.cancel()
        await wait_until(server, 'seqserve_active_sequences{model="letters"}', 0)
        assert await sample(server, 'seqserve_cancelled_total{model="letters"}') - before == 5
        assert len((await calls.generate(prompt="abc", max_tokens=5)).text) == 5


async def test_deadline_ends_a_running_stream_and_frees_its_slot(one_slot: ServerProcess) -> None:
    server = one_slot
    async with server.channel() as channel:
        calls = Calls(channel)
        with pytest.raises(aio.AioRpcError) as caught:
            async for _ in calls.generation.Generate(LONG, timeout=0.3):
                pass
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await wait_until(server, 'seqserve_active_sequences{model="letters"}', 0)


async def until_refused(port: int) -> None:
    """Wait until nothing listens there any more."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:  # taken in as the listener went
                continue
            writer.close()


async def test_sigterm_lets_a_running_stream_finish_and_takes_no_more(letters_repository: Path) -> None:
    server = ServerProcess(letters_repository)
    await server.start()
    await server.wait_for_health("")
    async with server.channel() as channel, server.channel(use_local_subchannel_pool=1) as late:
        calls = Calls(channel)
        request = generation.GenerateRequest(model="letters", prompt="abc", max_tokens=20_000, seed=1)
        running = calls.generation.Generate(request)
        pieces = [(await running.read()).text]
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == SERVING
        server.terminate()
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        await server.wait_for_event("draining")
        # A call that comes sooner may still be answered, or be CANCELLED by grpc itself (its issue 41785).
        await until_refused(server.grpc_port)
        with pytest.raises(aio.AioRpcError) as caught:
            await Calls(late).generate(prompt="abc", max_tokens=1)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        pieces += [one.text for one in await rest_of(running)]
        assert len("".join(pieces)) == 20_000
    assert await server.ended() == 0


async def test_open_health_watch_hears_of_the_end_and_does_not_hold_it_up(letters_repository: Path) -> None:
    server = ServerProcess(letters_repository, {"DRAIN_SECONDS": "600"})
    await server.start()
    await server.wait_for_health("")
    async with server.channel() as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="model/letters")
        )
        assert (await watch.read()).status == SERVING
        server.terminate()
        assert (await watch.read()).status == NOT_SERVING
        async with asyncio.timeout(20):
            assert await server.ended() == 0


async def test_sigterm_cuts_what_outlasts_the_drain_and_still_exits_0(letters_repository: Path) -> None:
    server = ServerProcess(
        letters_repository, {"DRAIN_SECONDS": "0.2", "STREAM_INTERVAL_MS": "100", "STREAM_BUFFER": "10"}
    )
    await server.start()
    await server.wait_for_health("")
    async with server.channel() as channel:
        running = Calls(channel).generation.Generate(LONG)
        await running.read()
        server.terminate()
        with pytest.raises(aio.AioRpcError):
            await rest_of(running)
    assert await server.ended() == 0


async def test_damaged_model_is_refused_by_name_and_the_others_serve(tmp_path: Path) -> None:
    export_all(tmp_path)
    (tmp_path / "moods" / "1" / "model.onnx").write_bytes(b"not a graph")
    (tmp_path / "prices" / "1" / "model.onnx").unlink()
    export_generator(tmp_path, "renamed")
    edit_spec(tmp_path / "renamed" / "1", name="letters")
    async with ServerProcess(tmp_path) as server, server.channel() as channel:
        calls = Calls(channel)
        assert len((await calls.generate(prompt="abc", max_tokens=5)).text) == 5
        models = {model.name: model for model in await calls.list_models()}
        assert {name: model.status for name, model in models.items()} == {
            "letters": 2,
            "moods": 4,
            "prices": 4,
            "renamed": 4,
        }
        assert "sha256 of model.onnx: expected " in models["moods"].message
        assert models["prices"].message.endswith("found no such file")
        assert models["renamed"].message == "name: expected renamed, as the folder says, found letters"
        found = await refusal(calls.classify(["good"]))
        assert found.code == grpc.StatusCode.FAILED_PRECONDITION
        assert "sha256 of model.onnx" in found.text
        assert await health(server, "model/moods") == NOT_SERVING
        assert await health(server, "seqserve.v1.TextClassification") == NOT_SERVING
        assert await health(server, "model/letters") == await health(server, "") == SERVING
        assert await sample(server, 'seqserve_model_load_failures_total{reason="spec"}') == 3


async def test_bad_newest_version_leaves_the_older_one_serving(tmp_path: Path) -> None:
    export_generator(tmp_path)
    newer, _ = export_generator(tmp_path, seed=1)
    (newer / "model.json").write_text("{")
    async with ServerProcess(tmp_path) as server, server.channel() as channel:
        calls = Calls(channel)
        assert len((await calls.generate(prompt="abc", max_tokens=5)).text) == 5
        assert (await calls.get_model("letters")).version == 1
        assert (await calls.get_model("letters", 2)).status == 4


async def test_versions_setting_serves_several_side_by_side(tmp_path: Path) -> None:
    for seed in range(3):
        export_generator(tmp_path, seed=seed)
    async with ServerProcess(tmp_path, {"VERSIONS": "2"}) as server, server.channel() as channel:
        calls = Calls(channel)
        newest, second, third = [
            (await calls.generate(prompt="abc", seed=1, version=version)).text for version in (0, 2, 3)
        ]
        assert newest == third != second
        assert (await refusal(calls.generate(prompt="abc", version=1))).code == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("is_there", [True, False], ids=["an empty folder", "no folder"])
async def test_start_without_any_model_ends_with_status_1_and_says_so(tmp_path: Path, is_there: bool) -> None:
    folder = tmp_path / "models"
    if is_there:
        folder.mkdir()
    server = ServerProcess(folder)
    assert await server.run_to_end() == 1
    expected = (
        "no model could be served from" if is_there else "SEQSERVE_REPOSITORY: expected a folder of models"
    )
    [line] = server.other_output
    assert line.startswith(expected)
    assert str(folder) in line


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("THREADS", "none", "SEQSERVE_THREADS: expected a whole number"),
        ("GRPC_ADDRESS", "localhost", "SEQSERVE_GRPC_ADDRESS: must be HOST:PORT"),
        ("PROVIDER", "tpu", "SEQSERVE_PROVIDER: expected 'cpu' or 'cuda', found 'tpu'"),
        ("VARIANTS", "int8", "SEQSERVE_VARIANTS: no such setting; did you mean SEQSERVE_VARIANT"),
        (
            "GRPC_ADDRESS",
            "unix:/nowhere/socket",
            "SEQSERVE_GRPC_ADDRESS: expected an address that can be listened on",
        ),
    ],
)
async def test_wrong_setting_stops_the_start_by_name(
    tiny_repository: Path, name: str, value: str, expected: str
) -> None:
    server = ServerProcess(tiny_repository, {name: value})
    assert await server.run_to_end() in (1, 2)
    assert expected in "".join(server.other_output)


async def test_cuda_without_a_device_is_refused_not_replaced(tiny_repository: Path) -> None:
    server = ServerProcess(tiny_repository, {"PROVIDER": "cuda"})
    assert await server.run_to_end() == 1
    assert "check 'provider' failed: expected CUDAExecutionProvider, found only" in "".join(
        server.other_output
    )


async def test_unix_socket_serves(tiny_repository: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/seqserve.sock"
    server = ServerProcess(tiny_repository, {"GRPC_ADDRESS": address})
    await server.start()
    try:
        await server.wait_for_event("serving")
        async with aio.insecure_channel(address) as channel:
            assert (await Calls(channel).classify(["good"]))[0].token_count == 1
    finally:
        await server.stop()


@pytest.mark.parametrize("setting", ["GRPC_ADDRESS", "HTTP_ADDRESS"])
async def test_taken_port_is_named_with_its_setting(tiny_repository: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = ServerProcess(tiny_repository, {setting: f"127.0.0.1:{port}"})
        assert await server.run_to_end() == 1
    said = "".join(server.other_output)
    assert f"SEQSERVE_{setting}: " in said
    assert f"another program, or another seqserve, listens at port {port}; stop it" in said
    assert "GRPC_VERBOSITY" not in said
