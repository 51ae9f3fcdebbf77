"""Checks the options of `seqserve bench`, and converts them to plans and a workload."""

import math
from collections.abc import Iterator
from pathlib import Path

from seqserve.arguments import MAX_TIMEOUT_S
from seqserve.bench.distribution import Distribution, parse_distribution
from seqserve.bench.loops import Plan
from seqserve.bench.result import Bound, parse_bounds
from seqserve.bench.workload import (
    TASKS,
    USUAL_LENGTHS,
    Rpc,
    Source,
    WorkloadError,
    series_source,
    text_source,
)
from seqserve.cli.observations import read_series
from seqserve.cli.session import UsageError
from seqserve.cli.texts import read_lines
from seqserve.results import ModelInfo
from seqserve.tables.observations import Reading

DEFAULT_DURATION_S = 10.0
_DRAIN_OVER_DEADLINE_S = 1.0  # lets every call in flight reach its deadline


def make_plans(  # noqa: PLR0913 - one keyword per option
    *,
    rate: str | None,
    constant: bool,
    concurrency: str | None,
    max_in_flight: int,
    warm_up_s: float,
    duration_s: float | None,
    requests: int | None,
    deadline_s: float,
    goal_s: float | None,
    seed: int,
) -> list[Plan]:
    """Build one plan for each rate or each concurrency.

    Raises:
        UsageError: The options contradict each other, or a number is out of range.
    """
    if rate is not None and concurrency is not None:
        raise UsageError("give either --rate, for an open loop, or --concurrency, for a closed one")
    if constant and rate is None:
        raise UsageError("--constant is about the arrivals of --rate")
    _check_seconds("--warmup", warm_up_s)
    _check_seconds("--duration", duration_s or 0.0)
    rates: list[float | None] = [None] if rate is None else [*_numbers("--rate", rate)]
    concurrencies = [
        _whole("--concurrency", number) for number in _numbers("--concurrency", concurrency or "1")
    ]
    return [
        Plan(
            rate=each_rate,
            constant=constant,
            concurrency=each_concurrency,
            max_in_flight=max_in_flight,
            warm_up_s=warm_up_s,
            duration_s=DEFAULT_DURATION_S if duration_s is None and requests is None else duration_s,
            requests=requests,
            drain_s=deadline_s + _DRAIN_OVER_DEADLINE_S,
            goal_s=math.inf if goal_s is None else goal_s,
            seed=seed,
        )
        for each_rate in rates
        for each_concurrency in concurrencies
    ]


def _check_seconds(option: str, seconds: float) -> None:
    if not seconds <= MAX_TIMEOUT_S:
        raise UsageError(f"{option}: expected at most {MAX_TIMEOUT_S:g} seconds, found {seconds:g}")


def make_bounds(over: list[str] | None, under: list[str] | None) -> list[Bound]:
    """Parse the bounds of --fail-over and --fail-under.

    Raises:
        UsageError: A bound cannot be parsed.
    """
    try:
        return [*parse_bounds(over or (), is_upper=True), *parse_bounds(under or (), is_upper=False)]
    except ValueError as error:
        raise UsageError(str(error)) from error


def read_distribution(option: str, text: str | None) -> Distribution | None:
    """Parse the value of an option as a distribution; None stays None.

    Raises:
        UsageError: The value cannot be parsed.
    """
    if text is None:
        return None
    try:
        return parse_distribution(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def make_source(
    rpc: Rpc, model: ModelInfo, file: Path | None, lengths: Distribution | None, seed: int
) -> Source:
    """Build the source of the inputs.

    Raises:
        UsageError: The model is for another task, or the file has no usable input.
    """
    if model.task != TASKS[rpc]:
        found = f"{model.name} {model.version} ({model.status})"
        raise UsageError(f"{rpc} wants a model for {TASKS[rpc]}, and {found} is one for {model.task or '?'}")
    try:
        if rpc is Rpc.FORECAST:
            return series_source(model.spec, _read_rows(file, model), lengths or USUAL_LENGTHS, seed)
        return text_source(rpc, model.spec, _read_texts(file), lengths)
    except WorkloadError as error:
        raise UsageError(str(error)) from error


def _read_rows(file: Path | None, model: ModelInfo) -> list[list[float]]:
    if file is None:
        return []
    columns = [column["name"] for column in (model.spec.get("forecasting") or {}).get("columns", ())]
    # What is measured is time, which the order of the rows does not change.
    return read_series(file, Reading(columns, is_oldest_first=True)).values


def _read_texts(file: Path | None) -> list[str]:
    if file is None:
        return []
    texts = [line.text for line in read_lines(file) if line.text.strip()]
    if not texts:
        raise UsageError(f"{file}: no line has text")
    return texts


def _numbers(option: str, text: str) -> Iterator[float]:
    for each in text.split(","):
        try:
            number = float(each)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise UsageError(
                f"{option}: expected a number above 0, or several with commas between them, found {text!r}"
            )
        yield number


def _whole(option: str, number: float) -> int:
    if number != int(number):
        raise UsageError(f"{option}: expected a whole number, found {number:g}")
    return int(number)
