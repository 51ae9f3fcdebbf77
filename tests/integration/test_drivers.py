"""What calls an engine's turns, a thread or the event loop, changes no bit of an answer."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import text_classification_pb2 as classification
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess

MODELS = ("letters", "letters-gru", "moods", "prices")
TEXTS = ["good", "a film not very good", "bad " * 50, "the the the"]
DAY = (10.0, 11.0, 9.0, 10.5, 1000.0)


def days(count: int, factor: float) -> list[list[float]]:
    """Return a series whose every day differs."""
    return [[value * factor * (1 + 0.01 * day + 0.001 * day * day) for value in DAY] for day in range(count)]


SERIES = [days(7 + 5 * index, 1.0 + index) for index in range(6)]


async def forecast_stream(calls: Calls, series: Sequence[Sequence[float]]) -> list[Any]:
    """Push a series day by day after its first week, and return what answers."""
    messages = [
        forecasting.ForecastStreamRequest(
            observations=[forecasting.Observation(values=values) for values in part], id="mine"
        )
        for part in (series[:7], *([day] for day in series[7:]))
    ]
    messages[0].model = "prices"
    return [one async for one in calls.forecasting.ForecastStream(iter(messages))]


async def classify_stream(calls: Calls) -> list[Any]:
    requests = [classification.ClassifyRequest(model="moods", texts=[text], id=text) for text in TEXTS]
    answers = [one async for one in calls.classification.ClassifyStream(iter(requests))]
    return sorted(answers, key=lambda one: one.id)


async def answers_of(server: ServerProcess) -> list[Any]:
    """Ask for everything at once, so that requests of every task and length share ticks."""
    async with server.channel() as channel:
        calls = Calls(channel)
        return await asyncio.gather(
            *(calls.forecast([one]) for one in SERIES),
            calls.forecast(SERIES),
            *(forecast_stream(calls, one) for one in SERIES),
            *(calls.classify([text]) for text in TEXTS),
            calls.classify(TEXTS),
            classify_stream(calls),
            calls.score(["abcd", "ba" * 30]),
            *(
                _text(calls, prompt="abc"[: 1 + seed % 3], seed=seed, max_tokens=40, logprobs=True)
                for seed in range(8)
            ),
        )


async def _text(calls: Calls, **fields: Any) -> tuple[str, tuple[float, ...]]:
    found = await calls.generate(**fields)
    return found.text, found.logprobs


async def drivers_of(server: ServerProcess) -> dict[str, str]:
    async with server.channel() as channel:
        calls = Calls(channel)
        return {name: (await calls.get_model(name)).driver for name in MODELS}


@pytest.mark.parametrize("kind", ["thread", "loop"])
async def test_driver_that_is_set_is_told(tiny_repository: Path, kind: str) -> None:
    async with ServerProcess(tiny_repository, {"ENGINE_DRIVER": kind}) as server:
        assert await drivers_of(server) == dict.fromkeys(MODELS, kind)
        ready = [event for event in server.events if event["event"] == "model ready"]
        assert [event["driver"] for event in ready] == [kind] * len(MODELS)


async def test_driver_that_is_measured_is_one_of_them(tiny_server: ServerProcess) -> None:
    assert set((await drivers_of(tiny_server)).values()) <= {"thread", "loop"}


async def test_driver_is_told_in_the_list_too(tiny: Calls) -> None:
    assert {one.driver for one in await tiny.list_models()} <= {"thread", "loop"}


async def test_answers_are_the_same_bit_for_bit_whatever_calls_the_turns(tiny_repository: Path) -> None:
    async with (
        ServerProcess(tiny_repository, {"ENGINE_DRIVER": "thread"}) as thread,
        ServerProcess(tiny_repository, {"ENGINE_DRIVER": "loop"}) as loop,
    ):
        right = await answers_of(thread)
        assert await answers_of(loop) == right


@pytest.mark.parametrize("kind", ["thread", "loop"])
async def test_caller_who_leaves_frees_his_rows(tiny_repository: Path, kind: str) -> None:
    settings = {"ENGINE_DRIVER": kind, "SLOTS": "1"}
    async with ServerProcess(tiny_repository, settings) as server, server.channel() as channel:
        calls = Calls(channel)
        for _ in range(5):
            leaving = asyncio.create_task(calls.generate(prompt="a", max_tokens=100_000))
            await asyncio.sleep(0.05)
            leaving.cancel()
        async with asyncio.timeout(20):
            assert len((await calls.generate(prompt="a", max_tokens=5, seed=1)).text) == 5


@pytest.mark.parametrize("kind", ["thread", "loop"])
async def test_server_stops_with_streams_that_run(tiny_repository: Path, kind: str) -> None:
    settings = {"ENGINE_DRIVER": kind, "DRAIN_SECONDS": "0.2"}
    async with ServerProcess(tiny_repository, settings) as server, server.channel() as channel:
        calls = Calls(channel)
        running = asyncio.create_task(calls.generate(prompt="a", max_tokens=100_000))
        await asyncio.sleep(0.2)
        assert await server.stop() == 0
        found = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(found[0], Exception)
