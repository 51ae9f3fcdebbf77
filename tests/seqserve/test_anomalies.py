"""`seqserve forecast --anomaly`: scores of rows, and what is refused."""

import json
from typing import Any, cast

import pytest

from seqserve.calls import ForecastStream
from seqserve.cli.anomalies import ScoredRow, anomaly_table, score_rows
from seqserve.cli.session import UsageError
from seqserve.results import Forecast, ForecastStep, Quantile
from seqserve.v1 import models_pb2 as models
from tests.seqserve.command import run
from tests.seqserve.scripted_server import ScriptedServer

CSV = "date,close\n" + "\n".join(
    f"2024-01-{day:02},{value}" for day, value in enumerate([9, 10, 10, 20, 1], 1)
)


class Echo:
    """A stream that forecasts the last value, 1 below it and 2 above it, and notes what it was sent."""

    def __init__(self) -> None:
        self.sent: list[list[list[float]]] = []

    def push(self, rows: list[list[float]]) -> Forecast:
        self.sent.append(rows)
        last = rows[-1][0]
        quantiles = (Quantile(0.1, last - 1), Quantile(0.5, last), Quantile(0.9, last + 2))
        return Forecast(steps=(ForecastStep(last, quantiles),), last_value=last, version=1)


def scored(values: list[float], least: int = 2, threshold: float = 1.5) -> tuple[list[ScoredRow], Echo]:
    stream = Echo()
    rows = [[value] for value in values]
    return score_rows(cast(ForecastStream, stream), rows, 0, least, threshold), stream


def test_score_is_the_distance_in_distances_of_the_quantile_on_its_side() -> None:
    found, _ = scored([9, 10, 14, 11])
    assert [(one.row, one.value, one.median, one.score, one.is_anomaly) for one in found] == [
        (3, 14, 10, 2.0, True),
        (4, 11, 14, 3.0, True),
    ]
    assert (found[0].low, found[0].high) == (9, 12)


def test_score_at_the_threshold_is_no_anomaly() -> None:
    [one], _ = scored([9, 10, 13])
    assert (one.score, one.is_anomaly) == (1.5, False)


def test_each_row_is_forecast_from_those_before_it_alone() -> None:
    _, stream = scored([1, 2, 3, 4, 5], least=3)
    assert stream.sent == [[[1], [2], [3]], [[4]]]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_rows_are_refused_with_the_least(count: int) -> None:
    with pytest.raises(UsageError, match=f"--anomaly: expected at least 3 rows, found {count}"):
        scored([1.0] * count)


def test_table_has_the_anomalies_alone() -> None:
    _, rows = anomaly_table(scored([9, 10, 13, 30])[0])
    assert rows == [["4", "30", "13", "12", "15", "8.50"]]


def served(server: ScriptedServer, **changes: Any) -> ScriptedServer:
    about = {
        "columns": [{"name": "close", "unit": "USD"}],
        "target": "close",
        "least_observations": 2,
    } | changes
    server.models.models.add(
        name="stock",
        version=1,
        status=models.MODEL_STATUS_READY,
        task="forecasting",
        spec_json=json.dumps({"forecasting": about}),
    )
    return server


def test_model_without_a_threshold_is_refused(server: ScriptedServer) -> None:
    found = run(served(server), "forecast", "--anomaly", stdin=CSV)
    assert found.exit_code != 0
    assert "--anomaly: expected a model with a threshold" in found.output


@pytest.mark.parametrize("option", [("--horizon", "2"), ("--quantile", "0.5")])
def test_options_of_forecasts_are_refused_beside_anomalies(
    server: ScriptedServer, option: tuple[str, str]
) -> None:
    made = served(server, anomaly={"threshold": 1.5, "false_alarm_rate": 0.01})
    found = run(made, "forecast", "--anomaly", *option, stdin=CSV)
    assert found.exit_code != 0
    assert "--anomaly: expected without --horizon and --quantile" in found.output


def test_command_shows_the_anomalies_and_all_scores_as_json(server: ScriptedServer) -> None:
    """The server forecasts 101, in 97 to 105, whatever comes."""
    made = served(server, anomaly={"threshold": 21.0, "false_alarm_rate": 0.01})
    shown = run(made, "forecast", "--anomaly", stdin=CSV)
    assert shown.exit_code == 0, shown.output
    count, head, *rows = shown.stdout.splitlines()
    assert count == "2 of 3 rows have a score above 21"
    assert head.split() == ["row", "value", "median", "low", "high", "score"]
    assert [row.split() for row in rows] == [
        ["3", "10", "101", "97", "105", "22.75"],
        ["5", "1", "101", "97", "105", "25.00"],
    ]
    found = json.loads(run(made, "--json", "forecast", "--anomaly", stdin=CSV).stdout)
    assert found["threshold"] == 21.0
    assert [(one["row"], one["value"], one["is_anomaly"]) for one in found["rows"]] == [
        (3, 10, True),
        (4, 20, False),
        (5, 1, True),
    ]
