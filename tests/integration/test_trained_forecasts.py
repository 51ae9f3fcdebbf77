"""A forecaster with levels, a calendar and lags from end to end: trained by the command, served, followed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from seqserve.cli.app import app
from seqserve.v1 import forecasting_pb2 as forecasting
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.training.conftest import Command, command
from training.evaluate.scorer import Own
from training.evaluate.scoring import held_out, score
from training.evaluate.version import find_version

__all__ = ["command"]

KEY = "7c" * 32
ROWS, PERIOD = 400, 12
SPIKE = 15.0
HOURS = np.datetime64("2024-01-01T00:00") + np.arange(ROWS) * np.timedelta64(1, "h")
OPTIONS = ("--target", "x", "--horizon", 3, "--window", 24, "--period", PERIOD, "--epochs", 2, "--hidden", 4)


def values() -> list[float]:
    noise = np.random.default_rng(0).normal(0, 0.2, ROWS)
    found: list[float] = (20 + 5 * np.sin(2 * np.pi * np.arange(ROWS) / PERIOD) + noise).round(3).tolist()
    return found


def csv(series: list[float]) -> str:
    return "date,x\n" + "".join(f"{hour},{value}\n" for hour, value in zip(HOURS, series, strict=False))


def observations() -> list[list[float]]:
    seconds = HOURS.astype("datetime64[s]").astype(np.int64).tolist()
    return [[value, float(second)] for value, second in zip(values(), seconds, strict=True)]


@pytest.fixture
def trained(command: Command, tmp_path: Path) -> Path:
    """The folder with own.csv and the repository `exported`."""
    (tmp_path / "own.csv").write_text(csv(values()))
    assert command("forecast", "own.csv", *OPTIONS, "--calendar", "hour") == 0
    return tmp_path


@pytest_asyncio.fixture
async def servers(trained: Path) -> AsyncIterator[list[ServerProcess]]:
    """Two servers that share a key, with ticks of unlike sizes."""
    (keys := trained / "keys").write_text(KEY)
    common = {"STATE_KEYS": str(keys), "ENGINES": "1"}
    sizes = [{"SLOTS": "4", "CHUNK": "4", "CHUNK_ROWS": "4"}, {"SLOTS": "7", "CHUNK": "3"}]
    async with AsyncExitStack() as stack:
        started = [ServerProcess(trained / "exported", common | one) for one in sizes]
        await asyncio.gather(*(stack.enter_async_context(one) for one in started))
        yield started


def pushed(start: int, end: int, **fields: Any) -> forecasting.ForecastStreamRequest:
    rows = [forecasting.Observation(values=row) for row in observations()[start:end]]
    return forecasting.ForecastStreamRequest(observations=rows, **fields)


async def answers(
    calls: Calls, *requests: forecasting.ForecastStreamRequest
) -> list[forecasting.ForecastStreamResponse]:
    return [one async for one in calls.forecasting.ForecastStream(iter(requests))]


async def test_series_in_any_cut_and_on_another_server_is_forecast_as_the_whole(
    servers: list[ServerProcess],
) -> None:
    async with servers[0].channel() as one, servers[1].channel() as other:
        first, second = Calls(one), Calls(other)
        rows = observations()
        [whole] = await first.forecast([rows[:60]], "own")
        [beside, _, _] = await second.forecast([rows[:60], rows[100:131], rows[:24]], "own")
        assert beside == whole
        cut = await answers(first, pushed(0, 24, model="own"), pushed(24, 25), pushed(25, 60))
        assert cut[-1].forecast == whole
        # Sealed on one server, opened on the other, whose ticks are of another size.
        begun = await answers(first, pushed(0, 37, model="own", return_state=True))
        rest = await answers(second, pushed(37, 60, model="own", state=begun[-1].state))
        assert rest[-1].forecast == whole


async def test_command_fills_the_calendar_and_marks_what_was_put_in(
    servers: list[ServerProcess], trained: Path
) -> None:
    series = values()[:120]
    series[90] += SPIKE
    (trained / "spike.csv").write_text(csv(series))
    (trained / "plain.csv").write_text(csv(values()[:60]))
    address = servers[0].address

    def asked(*arguments: str) -> Any:
        found = CliRunner().invoke(app, ["--server", address, "--json", "forecast", *arguments])
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)

    marked = await asyncio.to_thread(asked, "--anomaly", "--file", str(trained / "spike.csv"))
    assert len(marked["rows"]) == 120 - 24
    assert 91 in [one["row"] for one in marked["rows"] if one["is_anomaly"]]
    assert max(marked["rows"], key=lambda one: one["score"])["row"] == 91
    shown = await asyncio.to_thread(asked, "--file", str(trained / "plain.csv"))
    async with servers[0].channel() as channel:
        [expected] = await Calls(channel).forecast([observations()[:60]], "own")
    assert [step["value"] for step in shown["steps"]] == [step.value for step in expected.steps]


def test_version_is_scored_as_its_run_measured_it(trained: Path, command: Command) -> None:
    version = find_version(str(trained / "exported/own/1"), trained)
    own = Own(csv=trained / "own.csv")
    part = held_out(version, own)
    [loss] = score(version, part, "fp32")
    assert float(loss.values.mean()) == pytest.approx(version.model.metrics["held_out_pinball"], rel=1e-3)
    assert version.model.provenance.choices is not None
    assert version.model.provenance.choices["window"] == "24"
    assert {"baseline_seasonal_pinball", "baseline_linear_pinball", "beats_baselines"} <= set(
        version.model.metrics
    )
    assert "beyond chance" in (version.folder / "README.md").read_text()
    assert command("forecast", "own.csv", *OPTIONS, "--calendar", "hour", "--seed", 1) == 0
    assert command("compare", "own@1", "own@2", "--csv", "own.csv") == 0
