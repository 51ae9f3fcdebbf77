"""The built image, run as a cluster would run it: `make image-test`. Not among the tests that `make test`
runs.
"""

import asyncio
import json
import os
import re
import shutil
import urllib.request
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc import aio

from seqserve.v1 import text_generation_pb2 as generation
from tests.image.container import FLAGS, IMAGE, TOOL, Container, call, missing
from tests.integration.calls import Calls, refusal
from tests.tiny import export_all

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.timeout(300)]

# A waiting text is an array of its own, eight bytes a character.
LONG_TEXT = "abcdefgh" * 12_000
TEXT = {"max_tokens": 20, "seed": 7, "temperature": 0.8}


@pytest_asyncio.fixture(scope="module")
async def running() -> AsyncIterator[Container]:
    """The image with nothing set."""
    async with Container() as container:
        yield container


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """letters, moods and prices, for everybody to read."""
    folder = tmp_path_factory.mktemp("models")
    export_all(folder)
    folder.chmod(0o755)
    return folder


@pytest.fixture
def damaged(repository: Path, tmp_path: Path) -> Path:
    """The same with one bit of the graph of letters turned."""
    folder = tmp_path / "models"
    shutil.copytree(repository, folder)
    graph = folder / "letters" / "1" / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    return folder


@pytest_asyncio.fixture(scope="module")
async def memory_is_limited() -> None:
    """Skip where a container may take more memory than its limit."""
    taking = ["--entrypoint=python3", IMAGE, "-c", "b'x' * (256 << 20); print('took it')"]
    flags = ["--rm", "--pull=never", "--network=none", "--memory=64m", "--memory-swap=64m", *FLAGS]
    if "took it" in await call("run", *flags, *taking, succeed=False):
        pytest.skip(
            f"{TOOL[0]} cannot limit memory here: needs a cgroup memory controller that is delegated to it"
        )


async def text_of(container: Container, model: str = "charlm") -> str:
    async with container.channel() as channel:
        return (await Calls(channel).generate(model, **TEXT)).text


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - the container's own address
        body: bytes = response.read()
    return body.decode()


async def test_models_of_the_image_serve(running: Container) -> None:
    async with running.channel() as channel:
        served = {model.name for model in await Calls(channel).list_models()}
    assert served == {"charlm", "sentiment", "stock"}
    assert len(await text_of(running)) == TEXT["max_tokens"]


async def test_metrics_and_probes_answer(running: Container) -> None:
    metrics, live, ready = [
        await asyncio.to_thread(get, f"{running.http}/{path}") for path in ("metrics", "livez", "readyz")
    ]
    assert "seqserve_tokens_generated_total" in metrics
    assert (live, ready) == ("ok\n", "ok\n")


async def test_runs_as_a_user_with_no_rights(running: Container) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in (await running.run("cat", "/proc/1/status")).splitlines()
        if ":\t" in line
    )
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65532"}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"


async def test_writes_nowhere(running: Container) -> None:
    program = (
        "import os; print([top for top, _, _ in os.walk('/') "
        "if not top.startswith(('/proc', '/sys', '/dev')) and os.access(top, os.W_OK)])"
    )
    assert await running.python(program) == "[]"
    assert "Read-only file system" in await running.run("touch", "/app/file", succeed=False)


async def test_holds_no_tools_to_build_or_install(running: Container) -> None:
    modules = ["torch", "pip", "setuptools", "huggingface_hub", "hf_xet", "pytest", "training"]
    found = f"import importlib.util as u; print([name for name in {modules} if u.find_spec(name)])"
    assert await running.python(found) == "[]"
    tools = (
        "import shutil; print([name for name "
        "in ('gcc', 'cc', 'g++', 'ld', 'make', 'git', 'curl', 'wget') if shutil.which(name)])"
    )
    assert await running.python(tools) == "[]"


async def test_every_module_is_compiled_and_can_be_imported(running: Container) -> None:
    program = """
import importlib, pathlib, pkgutil, service, seqserve
packages = (service, seqserve)
walked = [pkgutil.walk_packages(package.__path__, package.__name__ + '.') for package in packages]
found = [one for package in walked for one in package]
left_out = ('seqserve.cli', 'seqserve.bench')
names = [one.name for one in found if not one.name.endswith('__main__')]
wanted = [name for name in names if not name.startswith(left_out)]
modules = [importlib.import_module(name) for name in wanted]
print(len(wanted) > 50, [one.__name__ for one in modules if not pathlib.Path(one.__cached__).exists()])
"""
    assert await running.python(program) == "True []"


async def test_threads_follow_the_quota_and_not_the_host(running: Container) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("a host with one core cannot tell: needs two")
    program = "from service.settings import read_settings; print(read_settings([]).threads)"
    assert await running.python(program) == "1"


async def test_a_version_is_tried_in_a_process_of_its_own_on_a_read_only_root(repository: Path) -> None:
    async with Container({"REPOSITORY": "/models"}, {"/models": repository}) as container:
        found = await container.python(
            "from service.models.trial import Trial; from service.settings import read_settings; "
            "import pathlib; print(len(Trial(read_settings([])).run(pathlib.Path('/models/letters/1'))))"
        )
    assert found == "64"


async def test_sigterm_lets_a_stream_end_and_exits_with_0() -> None:
    async with Container({"DRAIN_SECONDS": "120"}) as container, container.channel() as channel:
        request = generation.GenerateRequest(model="charlm", prompt="A", max_tokens=15_000, seed=1)
        messages, stopping = [], None
        async for message in Calls(channel).generation.Generate(request):
            messages.append(message)
            stopping = stopping or asyncio.create_task(container.stop(150))
        ended_at = datetime.now(UTC)
        assert stopping is not None
        await stopping
        assert await container.ended() == 0
        (draining,), (stopped,) = await container.events("draining"), await container.events("stopped")
    assert sum(message.token_count for message in messages) == 15_000
    assert messages[-1].finish_reason == generation.FINISH_REASON_LENGTH
    assert datetime.fromisoformat(draining["timestamp"]) < ended_at
    assert draining["timestamp"] < stopped["timestamp"]


async def test_mounted_models_take_the_place_of_those_in_the_image(repository: Path) -> None:
    async with (
        Container({"REPOSITORY": "/models"}, {"/models": repository}) as container,
        container.channel() as channel,
    ):
        assert {model.name for model in await Calls(channel).list_models()} == {"letters", "moods", "prices"}
        assert await text_of(container, "letters")


async def test_a_damaged_model_is_refused_while_the_others_serve(damaged: Path) -> None:
    async with (
        Container({"REPOSITORY": "/models"}, {"/models": damaged}) as container,
        container.channel() as channel,
    ):
        (refused,) = await container.events("model refused")
        assert (refused["model"], "sha256" in json.dumps(refused)) == ("letters", True)
        calls = Calls(channel)
        assert (await calls.classify(["a good film"]))[0].label
        assert (await refusal(calls.generate("letters", **TEXT))).code in (
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.FAILED_PRECONDITION,
        )


async def test_image_without_models_says_so_and_serves_what_is_mounted(repository: Path) -> None:
    bare = f"{IMAGE}-no-models"
    if await call("images", "--quiet", bare, succeed=False) == "":
        pytest.skip(f"no {bare}: make image-test builds it")
    async with Container(image=bare, serves=False) as container:
        assert await container.ended() == 1
        assert "exported" in await container.output()
    async with Container(mounts={"/app/exported": repository}, image=bare) as container:
        assert await text_of(container, "letters")


async def test_out_of_memory_ends_it_and_a_restart_answers_as_before(
    memory_is_limited: None, repository: Path
) -> None:
    settings = {
        "REPOSITORY": "/models",
        "MAX_WAITING": "100000",
        "SLOTS": "1",
        "MAX_MESSAGE_BYTES": str(64 << 20),
    }
    async with Container(settings, {"/models": repository}, memory=320) as container:
        before = await text_of(container, "letters")
        async with container.channel() as channel:
            calls = Calls(channel)
            answers = await asyncio.gather(
                *(calls.score([LONG_TEXT] * 40) for _ in range(40)), return_exceptions=True
            )
        assert {one.code() for one in answers if isinstance(one, aio.AioRpcError)} >= {
            grpc.StatusCode.UNAVAILABLE
        }
        assert await container.ended() == 137
        await container.restart()
        assert await text_of(container, "letters") == before


async def test_labels_say_what_it_is() -> None:
    labels = json.loads(await call("image", "inspect", "--format={{json .Config.Labels}}", IMAGE))
    prefix = "org.opencontainers.image."
    assert labels[prefix + "title"] == "seqserve"
    assert labels[prefix + "licenses"] == "MIT"
    assert labels[prefix + "base.name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels[prefix + "version"])
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels[prefix + "revision"])
    assert datetime.fromisoformat(labels[prefix + "created"]) < datetime.now(UTC)
