"""Scores the rows of a series: how far each lies from its forecast one step before."""

from collections.abc import Sequence
from dataclasses import dataclass

from seqserve.calls import ForecastStream
from seqserve.cli.session import UsageError
from seqserve.cli.tables import Column
from seqserve.results import Forecast


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row beside its forecast.

    Attributes:
        row: Its number, 1 being the first row of values.
        value: The target's value.
        median: Its median forecast.
        low, high: The outermost quantiles forecast.
        score: Distance of the value from the median, in distances of the quantile on its side.
        is_anomaly: Whether the score is above the model's threshold.
    """

    row: int
    value: float
    median: float
    low: float
    high: float
    score: float
    is_anomaly: bool


def score_rows(
    stream: ForecastStream, rows: Sequence[Sequence[float]], target: int, least: int, threshold: float
) -> list[ScoredRow]:
    """Forecast each row from those before it, over one stream, and score it.

    Args:
        stream: A new stream of the model.
        rows: The series, oldest first.
        target: Index of the target's value in a row.
        least: Rows that the model needs before its first forecast.
        threshold: Scores above it are anomalies.

    Raises:
        UsageError: There is no row to score.
    """
    if len(rows) <= least:
        raise UsageError(f"--anomaly: expected at least {least + 1} rows, found {len(rows)}")
    forecast, found = stream.push(rows[:least]), []
    for number, row in enumerate(rows[least:], least + 1):
        found.append(_scored(number, row[target], forecast, threshold))
        if number < len(rows):
            forecast = stream.push([row])
    return found


def anomaly_table(scored: Sequence[ScoredRow]) -> tuple[list[Column], list[list[str]]]:
    """Build the table of the anomalies."""
    titles = ["row", "value", "median", "low", "high", "score"]
    rows = [
        [
            str(one.row),
            *(f"{number:.6g}" for number in (one.value, one.median, one.low, one.high)),
            f"{one.score:.2f}",
        ]
        for one in scored
        if one.is_anomaly
    ]
    return [Column(title, is_number=True) for title in titles], rows


def _scored(number: int, value: float, forecast: Forecast, threshold: float) -> ScoredRow:
    step = forecast.steps[0]
    low, high = step.quantiles[0].value, step.quantiles[-1].value
    reach = high - step.value if value >= step.value else step.value - low
    distance = abs(value - step.value)
    score = distance / reach if reach > 0 else (float("inf") if distance else 0.0)
    return ScoredRow(number, value, step.value, low, high, score, score > threshold)
