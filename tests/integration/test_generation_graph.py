"""A model with a generation graph answers over the wire what the same weights answer without one."""

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests import tiny
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess

STEPPED, SINGLE = "stepped", "single"
OPTIONS: list[dict[str, Any]] = [
    {"prompt": "abc", "max_tokens": 150, "seed": 1, "temperature": 1.0},
    {"prompt": "hgf", "max_tokens": 97, "temperature": 0.0},
    {"prompt": "a", "max_tokens": 150, "seed": 3, "top_k": 4, "logprobs": True},
    {"prompt": "a b\n" * 40, "max_tokens": 150, "seed": 4, "top_p": 0.8, "temperature": 1.5},
    {"prompt": "dd", "max_tokens": 150, "seed": 5, "stop": ["a", "bc"]},
    {"prompt": "e", "max_tokens": 1, "seed": 6},
]


@pytest_asyncio.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    repository = tmp_path_factory.mktemp("generation")
    tiny.export_generator(repository, STEPPED, has_generation=True)
    tiny.export_generator(repository, SINGLE)
    async with ServerProcess(repository) as server:
        yield server


@pytest_asyncio.fixture
async def calls(server: ServerProcess) -> AsyncIterator[Calls]:
    async with server.channel() as channel:
        yield Calls(channel)


def step_ticks(server: ServerProcess, model: str) -> tuple[int, int]:
    """Return the step ticks of a model, and the tokens that it has generated."""
    with urllib.request.urlopen(f"{server.http}/metrics") as answer:  # noqa: S310 - http on this machine
        page = answer.read().decode()

    def value(name: str) -> int:
        [found] = [line for line in page.splitlines() if re.match(name, line) and f'model="{model}"' in line]
        return int(float(found.rpartition(" ")[2]))

    return value(r'seqserve_tick_seconds_count\{.*kind="step"'), value("seqserve_tokens_generated_total")


async def test_texts_and_logprobs_are_those_of_single_steps(server: ServerProcess, calls: Calls) -> None:
    """All at once, so that rows with all options share ticks, join and leave."""
    asked = [(model, one) for one in OPTIONS for model in (STEPPED, SINGLE)]
    found = await asyncio.gather(*(calls.generate(model, **one) for model, one in asked))
    for (_, one), stepped, single in zip(asked[::2], found[::2], found[1::2], strict=True):
        assert stepped.text == single.text, one
        assert stepped.logprobs == single.logprobs, one
    ticks, tokens = await asyncio.to_thread(step_ticks, server, STEPPED)
    assert ticks < tokens / 8
    single_ticks, _ = await asyncio.to_thread(step_ticks, server, SINGLE)
    assert ticks < single_ticks


@pytest.mark.parametrize("count", [1, 30, 99])
async def test_generation_goes_on_exactly_where_a_shorter_one_ended(calls: Calls, count: int) -> None:
    whole = await calls.generate(STEPPED, prompt="abc", max_tokens=100, seed=9)
    begun = await calls.generate(STEPPED, prompt="abc", max_tokens=count, seed=9)
    rest = await calls.generate(STEPPED, prompt="abc" + begun.text, max_tokens=100 - count, seed=9)
    assert begun.text + rest.text == whole.text


async def test_state_after_any_count_of_tokens_is_that_of_single_steps(calls: Calls) -> None:
    for count in (1, 7, 33):
        whole = await calls.generate(SINGLE, prompt="abc", max_tokens=count + 20, seed=9)
        begun = await calls.generate(STEPPED, prompt="abc", max_tokens=count, seed=9, return_state=True)
        rest = await calls.generate(STEPPED, state=begun.last.state, max_tokens=20)
        assert begun.text + rest.text == whole.text


def test_server_says_nothing_but_its_log(server: ServerProcess) -> None:
    """Neither onnxruntime nor a warning writes beside it."""
    assert server.other_output == []


def test_graph_is_in_the_version_folder(tmp_path: Path) -> None:
    folder, _ = tiny.export_generator(tmp_path, STEPPED, has_generation=True)
    assert (folder / "generation.onnx").stat().st_size < 30_000
