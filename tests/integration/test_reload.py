"""Versions that come and go while a real server answers."""

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from seqserve.v1 import models_pb2 as models
from seqserve.v1 import text_generation_pb2 as generation
from tests.integration.calls import Calls, refusal
from tests.integration.process import ServerProcess
from tests.integration.test_generation import torch_greedy
from tests.tiny import edit_spec, export_classifier, export_generator, generator_network

RELOADS = 12
LOOPS = 8
TOKENS = 20
# Versions take turns with so many sets of weights.
SEEDS = 3
# Nothing is measured at load, which others' work on the machine would stretch.
SIZES = {"SLOTS": "16", "CHUNK": "8", "CHUNK_ROWS": "8", "ENGINES": "1"}
LIMIT_S = 120


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1..13 of letters and one of moods. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    for seed in range(SEEDS):
        export_generator(folder, seed=seed)
    for version in range(SEEDS + 1, RELOADS + 2):
        copied = shutil.copytree(folder / "letters" / str(version - SEEDS), folder / "letters" / str(version))
        edit_spec(copied, version=version)
    export_classifier(folder)
    return folder


@pytest.fixture
def root(exported: Path, tmp_path: Path) -> Path:
    """A repository with letters 1 and moods 1."""
    for version in ("letters/1", "moods/1"):
        shutil.copytree(exported / version, tmp_path / "repository" / version)
    return tmp_path / "repository"


def put(exported: Path, root: Path, version: int) -> Path:
    """A version of letters in place, whole at once."""
    shutil.copytree(exported / "letters" / str(version), root / ".part")
    return (root / ".part").rename(root / "letters" / str(version))


def answer_of(version: int, prompt: str) -> str:
    """What a version says, by PyTorch."""
    return torch_greedy(generator_network(seed=(version - 1) % SEEDS), prompt, TOKENS)


@asynccontextmanager
async def watching(root: Path, **settings: str) -> AsyncIterator[tuple[ServerProcess, Calls]]:
    async with (
        ServerProcess(root, SIZES | {"WATCH_SECONDS": "0.1"} | settings) as server,
        server.channel() as channel,
    ):
        yield server, Calls(channel)


async def serves(calls: Calls, version: int) -> None:
    """Wait until a version of letters is the one that serves."""
    async with asyncio.timeout(LIMIT_S):
        while (await calls.get_model("letters")).version != version:  # noqa: ASYNC110  # the server tells nobody of it
            await asyncio.sleep(0.05)


async def has_status(calls: Calls, version: int, status: int) -> models.Model:
    """Wait until a version of letters is known and has a status."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            for found in await calls.list_models():
                if (found.name, found.version, found.status) == ("letters", version, status):
                    return found
            await asyncio.sleep(0.05)


class Load:
    """Loops of requests until `end`; every answer is kept.

    Args:
        calls: to the server.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._is_ending = False
        self.answers: list[tuple[str, str, int]] = []
        self.classified = 0
        self._loops = [
            asyncio.create_task(self._generate(prompt)) for prompt in itertools.islice(prompts(), LOOPS - 2)
        ]
        self._loops += [asyncio.create_task(self._classify()) for _ in range(2)]

    async def _generate(self, prompt: str) -> None:
        while not self._is_ending:
            found = await self._calls.generate(prompt=prompt, max_tokens=TOKENS, temperature=0.0)
            self.answers.append((prompt, found.text, found.last.version))

    async def _classify(self) -> None:
        while not self._is_ending:
            [found] = await self._calls.classify(["a good film"])
            self.classified += 1
            assert found.label in ("negative", "positive")

    async def end(self) -> None:
        """Let every loop finish its request; the first failure of one of them is raised."""
        self._is_ending = True
        await asyncio.gather(*self._loops)


def prompts() -> Iterator[str]:
    return map("".join, itertools.permutations("abcd", 3))


async def test_twelve_reloads_under_load_fail_no_request_and_mix_no_answer(
    exported: Path, root: Path
) -> None:
    async with watching(root) as (server, calls):
        load = Load(calls)
        for version in range(2, RELOADS + 2):
            put(exported, root, version)
            await serves(calls, version)
        await load.end()
        assert [
            (one.name, one.status)
            for one in await calls.list_models()
            if one.status == models.MODEL_STATUS_READY
        ] == [
            ("letters", models.MODEL_STATUS_READY),
            ("moods", models.MODEL_STATUS_READY),
        ]
        assert server.is_running
    versions = {version for _, _, version in load.answers}
    assert versions >= {2, RELOADS}
    assert load.classified
    texts = {
        (prompt, seed): answer_of(seed + 1, prompt)
        for prompt in {prompt for prompt, _, _ in load.answers}
        for seed in range(SEEDS)
    }
    assert all(text == texts[prompt, (version - 1) % SEEDS] for prompt, text, version in load.answers)


async def test_bad_version_is_refused_while_the_old_one_serves(exported: Path, root: Path) -> None:
    async with watching(root) as (server, calls):
        bad = put(exported, root, 2)
        (bad / "model.onnx").write_bytes(b"spoilt")
        found = await has_status(calls, 2, models.MODEL_STATUS_FAILED)
        assert "sha256 of model.onnx" in found.message
        assert (await calls.generate(prompt="abc", max_tokens=TOKENS, temperature=0.0)).text == answer_of(
            1, "abc"
        )
        await server.wait_for_health("model/letters")
        # Mended, it is taken after all.
        shutil.copy(exported / "letters" / "2" / "model.onnx", bad)
        await serves(calls, 2)


async def test_half_written_version_is_not_picked_up_until_it_is_whole(exported: Path, root: Path) -> None:
    async with watching(root) as (_, calls):
        source, version = exported / "letters" / "2", root / "letters" / "2"
        graph = (source / "model.onnx").read_bytes()
        version.mkdir()
        shutil.copy(source / "model.json", version)
        for length in range(0, len(graph), max(1, len(graph) // 40)):
            (version / "model.onnx").write_bytes(graph[:length])
            await asyncio.sleep(0.03)
            assert [one.version for one in await calls.list_models() if one.name == "letters"] == [1]
        shutil.copy(source / "model.onnx", version)
        await serves(calls, 2)


async def test_version_whose_folder_is_gone_is_unloaded(exported: Path, root: Path) -> None:
    put(exported, root, 2)
    async with watching(root) as (server, calls):
        assert (await calls.get_model("letters")).version == 2
        shutil.rmtree(root / "letters" / "2")
        await serves(calls, 1)
        shutil.rmtree(root / "moods")
        await server.wait_for_health("model/moods", 2)
        found = await refusal(calls.classify(["a good film"]))
        assert found.code is grpc.StatusCode.NOT_FOUND


async def test_load_and_unload_by_hand(exported: Path, root: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("admin keeper secret-keeper-0123456789\n")
    tokens.chmod(0o600)
    metadata = (("authorization", "Bearer secret-keeper-0123456789"),)
    async with (
        ServerProcess(root, SIZES | {"TOKENS": str(tokens), "STREAM_BUFFER": "4"}) as server,
        server.channel() as channel,
    ):
        api: Any = Calls(channel)
        put(exported, root, 2)
        request = generation.GenerateRequest(model="letters", prompt="abc", max_tokens=2000, temperature=0.0)
        stream = aiter(api.generation.Generate(request, metadata=metadata))
        first = await anext(stream)
        loaded = await api.models.Load(models.LoadModelRequest(model="letters"), metadata=metadata)
        assert (loaded.version, loaded.status) == (2, models.MODEL_STATUS_READY)
        # What runs on the old version ends there.
        rest = [first, *[one async for one in stream]]
        assert {one.version for one in rest if one.version} == {1}
        assert sum(one.token_count for one in rest) == 2000
        put(exported, root, 3)
        path = root / "letters" / "3" / "model.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden": 1 << 20}))
        refused = await refusal(
            api.models.Load(models.LoadModelRequest(model="letters", version=3), metadata=metadata)
        )
        assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
        assert "hidden" in refused.text
        missing = await refusal(
            api.models.Load(models.LoadModelRequest(model="letters", version=9), metadata=metadata)
        )
        assert missing.code is grpc.StatusCode.NOT_FOUND
        request.max_tokens = 100_000
        call = api.generation.Generate(request, metadata=metadata)
        await call.read()
        unloading = asyncio.ensure_future(
            api.models.Unload(models.UnloadModelRequest(model="letters"), metadata=metadata)
        )
        await server.wait_for_health("model/letters", 2)
        assert not unloading.done()
        call.cancel()
        await unloading
        gone = await refusal(
            api.models.Get(models.GetModelRequest(model="letters", version=2), metadata=metadata)
        )
        assert gone.code is grpc.StatusCode.NOT_FOUND
