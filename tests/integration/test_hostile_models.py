"""Versions that hang or grow, and callers who keep replaced ones, against a real server."""

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import models_pb2 as models
from seqserve.v1 import text_generation_pb2 as generation
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.service.builders import edit_graph, replace_file
from tests.service.models.slow_graphs import grow_above, loop_above
from tests.tiny import edit_spec, export_classifier, export_forecaster, export_generator

SIZES = {"SLOTS": "64", "CHUNK": "8", "CHUNK_ROWS": "64", "ENGINES": "1", "WATCH_SECONDS": "0.1"}
# More than the golden examples, fewer than the warm-up.
ROWS = 40
LIMIT_S = 60


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with letters 1 and 2, of which 2 loops in wide ticks without end."""
    folder = tmp_path / "repository"
    export_generator(folder, seed=0)
    edit_graph(export_generator(folder, seed=1)[0], loop_above(ROWS))
    return folder


def children_of(pid: int) -> list[int]:
    """Return the running children of a process."""
    return [child for child, parent, state in processes() if parent == pid and state != "Z"]


def is_running(pid: int) -> bool:
    return any(child == pid and state != "Z" for child, _, state in processes())


def processes() -> Iterator[tuple[int, int, str]]:
    """Yield the id, the parent's id and the state of each process."""
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal():
            continue
        try:
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        yield int(path.name), int(parent), state


async def child_of(server: ServerProcess) -> int:
    """Wait until a trial runs, and return its process."""
    async with asyncio.timeout(LIMIT_S):
        while not (found := await asyncio.to_thread(children_of, server.pid)):  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.02)
    return found[0]


async def is_gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while await asyncio.to_thread(is_running, pid):  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.02)


async def refused(calls: Calls, version: int) -> str:
    """Wait until a version of letters is refused, and return why."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            for found in await calls.list_models():
                if (found.version, found.status) == (version, models.MODEL_STATUS_FAILED):
                    return found.message
            await asyncio.sleep(0.05)


async def test_version_that_hangs_or_grows_in_wide_ticks_leaves_the_older_one_serving(root: Path) -> None:
    """It passed the trial, and hung the start or took the server's memory."""
    settings = SIZES | {"ADMISSION_SECONDS": "10", "ADMISSION_BYTES": str(1 << 28)}
    async with ServerProcess(root, settings) as server, server.channel() as channel:
        calls = Calls(channel)
        assert "no end within that time" in await refused(calls, 2)
        edit_graph(export_generator(root, seed=2)[0], grow_above(ROWS, 1 << 28))
        assert "check 'trial' failed" in await refused(calls, 3)
        assert (await calls.generate(prompt="abc", max_tokens=5)).last.version == 1
        assert (await calls.get_model("letters")).version == 1


@asynccontextmanager
async def starting(root: Path) -> AsyncIterator[tuple[ServerProcess, int]]:
    """A server that is loading, and the process of its trial; the server is killed at the end."""
    server = ServerProcess(root, SIZES)
    await server.start()
    try:
        yield server, await child_of(server)
    finally:
        if server.is_running:
            server.kill()
            await server.ended()


async def test_trial_ends_with_a_server_that_is_killed(root: Path) -> None:
    async with starting(root) as (server, child):
        server.kill()
        await server.ended()
        await is_gone(child)


async def test_sigterm_ends_a_trial_that_hangs(root: Path) -> None:
    async with starting(root) as (server, child):
        started = time.monotonic()
        assert await server.stop() == 0
        assert time.monotonic() - started < 20
        await is_gone(child)


async def test_bomb_of_a_spec_holds_nobody_up_and_its_words_forge_no_line(root: Path) -> None:
    """8 MB of zeros silenced the server for 16 s, since the watcher read them."""
    shutil.rmtree(root / "letters" / "2")
    (root / "no\nmodel" / "1").mkdir(parents=True)
    os.makedirs(os.fsencode(root) + b"/not-utf8-\xff/1")
    async with ServerProcess(root, SIZES) as server, server.channel() as channel:
        calls = Calls(channel)
        waiting = asyncio.create_task(refused(calls, 3))
        folder = shutil.copytree(root / "letters" / "1", root / ".3")
        described = json.loads((folder / "model.json").read_text())
        forged = json.dumps(described | {"golden": "HERE", "a\n[error] forged": 1})
        (folder / "model.json").write_text(forged.replace('"HERE"', "[" + "0," * 1_900_000 + "0]"))
        folder.rename(root / "letters" / "3")
        longest = 0.0
        while not waiting.done():
            started = time.monotonic()
            await calls.get_model("letters")
            longest = max(longest, time.monotonic() - started)
        assert "golden[0]: expected an object" in await waiting
        assert longest < 5
        assert "\n" not in await waiting
        listed = {one.name for one in await calls.list_models()}
        assert listed == {"letters", r"'no\nmodel'", r"'not-utf8-\udcff'"}
        assert server.other_output == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"padding": {"strategy": {"Fixed": 20_000_000}}}, "expected no padding, found"),
        (
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "^(a+)+$"}}},
            "expected a Split at a string, found",
        ),
    ],
    ids=["padding", "expression"],
)
async def test_tokenizer_that_would_hold_every_call_is_refused(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    """The trial gives it no text: a caller's first one held all calls for seconds, or panicked."""
    more = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}
    further = {"padding": more, "pre_tokenizer": {"behavior": "Isolated", "invert": False}}
    root = tmp_path / "repository"
    export_generator(root)
    version, _ = export_classifier(root)
    described = json.loads((version / "tokenizer.json").read_text())
    hostile = described | {part: change | further[part] for part, change in changes.items()}
    replace_file(version, "tokenizer.json", json.dumps(hostile).encode())
    async with ServerProcess(root, SIZES) as server, server.channel() as channel:
        found = await Calls(channel).get_model("moods")
        assert found.status == models.MODEL_STATUS_FAILED
        assert found.message.startswith("check 'tokenizer' failed: ")
        assert expected in found.message


async def replace(calls: Calls, source: Path, version: int) -> None:
    """Put a copy of a version in place under a newer number, and wait until it serves."""
    name = source.parent.name
    edit_spec(shutil.copytree(source, source.parents[1] / ".part"), version=version)
    (source.parents[1] / ".part").rename(source.parent / str(version))
    async with asyncio.timeout(LIMIT_S):
        while (await calls.get_model(name)).version != version:  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.05)


async def versions_of(calls: Calls, count: int) -> list[int]:
    """Wait until so many versions are known, and return them."""
    async with asyncio.timeout(LIMIT_S):
        while len(known := await calls.list_models()) != count:  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.05)
    return [one.version for one in known]


async def test_caller_who_never_reads_keeps_no_more_than_two_replaced_versions(tmp_path: Path) -> None:
    source = export_generator(tmp_path / "repository", seed=0)[0]
    settings = SIZES | {"STREAM_BUFFER": "4", "ENGINE_DRIVER": "thread"}
    async with ServerProcess(source.parents[1], settings) as server, server.channel() as channel:
        calls = Calls(channel)
        request = generation.GenerateRequest(model="letters", prompt="abc", max_tokens=100_000)
        streams = []
        for version in range(2, 6):
            streams.append(stream := calls.generation.Generate(request))
            await stream.read()
            await replace(calls, source, version)
        assert await versions_of(calls, 3) == [5, 4, 3]
        # One who reads late learns that the call is over; the text so far and the seed let it go on.
        async with asyncio.timeout(LIMIT_S):
            with suppress(grpc.aio.AioRpcError):
                while await streams[0].read() is not grpc.aio.EOF:
                    pass
            assert await streams[0].code() is grpc.StatusCode.UNAVAILABLE
        for stream in streams:
            stream.cancel()
        assert await versions_of(calls, 1) == [5]


async def test_open_series_keep_no_more_than_two_replaced_versions(tmp_path: Path) -> None:
    source = export_forecaster(tmp_path / "repository")[0]
    async with ServerProcess(source.parents[1], SIZES) as server, server.channel() as channel:
        calls = Calls(channel)
        observed = [forecasting.Observation(values=[1.0] * 5)] * 9
        streams = []
        for version in range(2, 5):
            streams.append(stream := calls.forecasting.ForecastStream())
            for series in ("a", "b"):
                await stream.write(
                    forecasting.ForecastStreamRequest(id=series, model="prices", observations=observed)
                )
                assert (await stream.read()).version == version - 1
            await replace(calls, source, version)
        assert await versions_of(calls, 3) == [4, 3, 2]
        async with asyncio.timeout(LIMIT_S):
            assert await streams[0].code() is grpc.StatusCode.UNAVAILABLE
        for stream in streams:
            stream.cancel()
