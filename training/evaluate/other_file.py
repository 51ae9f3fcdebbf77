"""Measures exported forecasters on a file that none of them was trained on, such as a later and calmer time.

    python -m training.evaluate.other_file FILE.csv exported/stock/2

The file has a header with the columns of the models, in any case and order, and a row an observation, oldest
first unless --newest-first says otherwise. Lines that begin with # count as the header where they hold its
names, and as comments elsewhere.
"""

import csv
import sys
from pathlib import Path
from typing import Annotated

from service.contract.extras import require

require("python -m training.evaluate.other_file", "train")

import numpy as np
import typer

from seqserve.cli.output import standard_streams
from service.contract.spec import ForecastSpec
from training.data.files import read_utf8
from training.data.series import History
from training.errors import TrainingError
from training.evaluate.held_series import forecasts
from training.evaluate.version import Version, find_version
from training.failures import exit_status
from training.recipes.run import REPOSITORY, use_one_thread
from training.recipes.stock import LONGEST_WINDOW


def read_other(path: Path, forecast: ForecastSpec, *, is_newest_first: bool) -> History:
    """Read a model's columns, all of them as held-out observations after a first whole window.

    Raises:
        TrainingError: a column is missing, a cell is no number, a row has too few, or rows are too few.
    """
    rows = list(csv.reader(line.lstrip("# ") for line in read_utf8(path).splitlines()))
    names = [column.name for column in forecast.columns]
    heads = [[cell.strip().lower() for cell in row] for row in rows]
    first = next((index for index, head in enumerate(heads) if {*names} <= {*head}), None)
    if first is None:
        raise TrainingError(f"{path}: expected a header with {', '.join(names)}, found none")
    places = [heads[first].index(name) for name in names]
    values = np.array(
        [_numbers(path, index + 1, row, places) for index, row in enumerate(rows) if index > first]
    )
    fewest = LONGEST_WINDOW + forecast.horizon
    if len(values) <= fewest:
        raise TrainingError(f"{path}: expected more than {fewest} rows, found {len(values)}")
    return History(values[::-1].copy() if is_newest_first else values, 0, LONGEST_WINDOW)


def _numbers(path: Path, line: int, row: list[str], places: list[int]) -> list[float]:
    try:
        numbers = [float(row[place]) for place in places]
    except (ValueError, IndexError) as error:
        raise TrainingError(f"{path}: line {line}: expected numbers, found {','.join(row)}") from error
    if not np.isfinite(numbers).all():
        raise TrainingError(f"{path}: line {line}: expected finite numbers, found {','.join(row)}")
    return numbers


def line_of(version: Version, history: History, length: int) -> str:
    """Return a row of the table: pinball loss, coverage of the interval in all and by step ahead."""
    forecast = version.model.forecasting
    assert forecast is not None
    _, quantiles, future = forecasts(version, version.cell(), history, length)
    levels = np.array(forecast.quantiles)
    error = future[:, :, None] - quantiles
    pinball = float(np.maximum(levels * error, (levels - 1) * error).mean())
    inside = 100.0 * ((quantiles[:, :, 0] <= future) & (future <= quantiles[:, :, -1]))
    steps = ", ".join(f"{share:.1f}" for share in inside.mean(axis=0))
    return f"| {version.title} | {length} | {pinball:.4f} | {inside.mean():.1f} | {steps} |"


def main(
    file: Annotated[Path, typer.Argument(help="CSV file with a header")],
    versions: Annotated[list[str], typer.Argument(help="folders, or name@version")],
    newest_first: Annotated[
        bool, typer.Option("--newest-first", help="the file's first row is its newest")
    ] = False,
) -> None:
    """Measure forecasters on a file that they were not trained on."""
    use_one_thread()
    print("| version | window | pinball | in the interval, % | by step ahead |")
    print("| --- | ---: | ---: | ---: | --- |")
    for where in versions:
        version = find_version(where, REPOSITORY)
        forecast = version.model.forecasting
        if forecast is None:
            raise TrainingError(f"{where}: expected a forecaster, found a model of {version.model.task}")
        history = read_other(file, forecast, is_newest_first=newest_first)
        for length in (forecast.least_observations, LONGEST_WINDOW):
            print(line_of(version, history, length))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(main)

if __name__ == "__main__":
    with standard_streams():
        sys.exit(exit_status(lambda: app(standalone_mode=False)))
