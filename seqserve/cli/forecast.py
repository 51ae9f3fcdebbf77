"""`seqserve forecast`: forecasts a series from a CSV file, as a table and a plot."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from seqserve.cli.anomalies import anomaly_table, score_rows
from seqserve.cli.choosing import FORECASTING, ModelOption, choose_model
from seqserve.cli.inputs import FileOption, should_read_input
from seqserve.cli.observations import checked_delimiter, read_series, series_name
from seqserve.cli.output import escape_controls
from seqserve.cli.session import (
    JsonOption,
    ModelVersion,
    ServerOption,
    Session,
    TimeoutOption,
    UsageError,
    print_json,
    session,
)
from seqserve.cli.table_options import DateFormat, Delimiter, OldestFirst
from seqserve.cli.tables import Column, print_plot, print_table
from seqserve.errors import InvalidArgument
from seqserve.frames import Rows
from seqserve.results import Forecast, ModelInfo
from seqserve.tables.dates import utc_now
from seqserve.tables.files import UTF8
from seqserve.tables.observations import Reading

PLOTTED_HISTORY = 60
_MEDIAN = 0.5
_QUANTILE = re.compile(r"quantiles\[\d+\]")
_COUNTED = re.compile(r"(\d) observations\b")


@dataclass(frozen=True, slots=True)
class _ModelColumns:
    """The meaning of a forecasting model's numbers, from model.json; empty if model.json does not give it.

    Attributes:
        columns: Names of an observation's values, in order.
        target: Name of the forecast column.
        unit: Unit of the target.
        calendar: Name of the column whose values are the seconds since 1970 of the dates; "": there is none.
        threshold: Score above which a value is an anomaly; None: the model has none.
        least: Rows that the model needs.
        is_relative: Whether the target is positive by its transform (log), so that a change of it is a share.
    """

    columns: Sequence[str]
    target: str
    unit: str
    calendar: str
    threshold: float | None
    least: int
    is_relative: bool

    @classmethod
    def from_model(cls, model: ModelInfo) -> "_ModelColumns":
        spec = model.spec.get("forecasting") or {}
        columns = {column["name"]: column for column in spec.get("columns", ())}
        target = spec.get("target", "")
        about = columns.get(target, {})
        calendar = next((name for name, column in columns.items() if column.get("calendar")), "")
        threshold = (spec.get("anomaly") or {}).get("threshold")
        is_log = about.get("transform") == "log"
        return cls(
            list(columns),
            target,
            about.get("unit", ""),
            calendar,
            threshold,
            spec.get("least_observations", 1),
            is_log,
        )


def forecast(  # noqa: PLR0913 - one parameter per option
    context: typer.Context,
    *,
    file: FileOption = None,
    last: Annotated[
        int | None, typer.Option(min=1, help="Use only this many of the newest rows.", show_default=False)
    ] = None,
    date_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Name or number of the column of dates; '' is --oldest-first. Default: found by itself.",
            show_default=False,
        ),
    ] = None,
    date_format: DateFormat = "",
    oldest_first: OldestFirst = False,
    allow_future_dates: Annotated[
        bool, typer.Option("--allow-future-dates", help="Accept dates that are after today.")
    ] = False,
    encoding: Annotated[str, typer.Option(help="Encoding of the file: utf-8, cp1252, utf-16, ...")] = UTF8,
    delimiter: Delimiter = "",
    model: ModelOption = None,
    version: ModelVersion = 0,
    horizon: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Number of steps ahead; 0 means the model's horizon.")
    ] = 0,
    quantile: Annotated[
        list[float] | None,
        typer.Option(
            help="Quantile level in (0, 1), such as 0.9. Repeatable; default: all that the model has."
        ),
    ] = None,
    plot: Annotated[
        bool | None,
        typer.Option(
            "--plot/--no-plot", help="Also draw a plot; the default on a terminal.", show_default=False
        ),
    ] = None,
    anomaly: Annotated[
        bool,
        typer.Option(
            "--anomaly", help="Score each row by its forecast one step before, and show those out of range."
        ),
    ] = False,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast after the last row of a CSV file, oldest row first.

    With a header, columns are matched by the model's names for them (`seqserve models NAME --json`), and
    others are ignored. Without a header, the columns must be in the model's order, after a date column if
    there is one. Rows that are not oldest first by their dates, and dates that cannot be understood, are
    refused.
    """
    with session(context, server, timeout, as_json) as current:
        should_read_input([], file)
        name = choose_model(current.client, FORECASTING, model)
        meaning = _ModelColumns.from_model(current.client.model(name, version))
        reading = Reading(
            meaning.columns,
            date_column or "",
            date_format,
            oldest_first or date_column == "",
            None if allow_future_dates else utc_now(),
            checked_delimiter(delimiter),
            meaning.calendar,
        )
        found = read_series(file, reading, encoding)
        for note in found.notes:
            typer.echo(f"note: {note}", err=True)
        rows = found.values[-(last or 0) :]
        if anomaly:
            if horizon or quantile:
                raise UsageError("--anomaly: expected without --horizon and --quantile, found one of them")
            _print_anomalies(current, name, version, meaning, rows, series_name(file))
            return
        with _explained(series_name(file)):
            (result,) = current.client.forecast(
                [rows], model=name, version=version, horizon=horizon, quantiles=quantile or ()
            )
        if current.as_json:
            print_json(
                asdict(result) | {"target": meaning.target, "unit": meaning.unit, "notes": list(found.notes)}
            )
            return
        print_table(*_table(result, meaning.is_relative))
        if sys.stdout.isatty() if plot is None else plot:
            _print_plot(rows, result, meaning)


def _print_anomalies(
    current: Session, model: str, version: int, meaning: _ModelColumns, rows: Rows, file: str
) -> None:
    """Score the rows, and print the anomalies, or all scores as JSON.

    Raises:
        UsageError: The model has no threshold, or there are too few rows.
    """
    if meaning.threshold is None:
        raise UsageError(
            f"--anomaly: expected a model with a threshold, as `python -m training forecast` makes them, "
            f"found none in {model}"
        )
    target = meaning.columns.index(meaning.target)
    with _explained(file), current.client.forecast_stream(model=model, version=version, horizon=1) as stream:
        scored = score_rows(stream, rows, target, meaning.least, meaning.threshold)
    if current.as_json:
        print_json({"threshold": meaning.threshold, "rows": [asdict(one) for one in scored]})
        return
    count = sum(one.is_anomaly for one in scored)
    typer.echo(f"{count:,} of {len(scored):,} rows have a score above {meaning.threshold:.4g}")
    print_table(*anomaly_table(scored))


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Convert a refusal of the rows or of an option to an error in the terms of the command.

    Args:
        name: What messages call the file.

    Raises:
        UsageError: The request was refused for these alone.
    """
    try:
        yield
    except InvalidArgument as error:
        places = {
            "series[0].observations": name,
            "observations": name,
            "horizon": "--horizon",
            "quantiles": "--quantile",
        }
        told = [
            (
                places.get(_QUANTILE.sub("quantiles", field), ""),
                _COUNTED.sub(r"\1 rows", escape_controls(description)),
            )
            for field, description in error.violations
        ]
        if not told or not all(place for place, _ in told):
            raise
        raise UsageError("\n".join(f"{place}: {description}" for place, description in told)) from error


def _table(forecast: Forecast, is_relative: bool) -> tuple[list[Column], list[list[str]]]:
    """Build the table, one row per step ahead.

    Each row has the median, the other quantiles, the naive forecast, and the change from it: in percent if
    `is_relative`, otherwise in the target's unit, as percents of a value that may be 0 or negative mislead.
    """
    levels = [quantile.level for quantile in forecast.steps[0].quantiles if quantile.level != _MEDIAN]
    titles = ["ahead", "median", *(f"{level:.6g}" for level in levels), "naive"]
    titles.append("change %" if is_relative else "change")
    rows = [
        [
            str(ahead),
            _number(step.value),
            *(_number(quantile.value) for quantile in step.quantiles if quantile.level != _MEDIAN),
            _number(forecast.last_value),
            _change(step.value, forecast.last_value, is_relative),
        ]
        for ahead, step in enumerate(forecast.steps, start=1)
    ]
    return [Column(title, is_number=True) for title in titles], rows


def _change(value: float, last: float, is_relative: bool) -> str:
    """Format the change from the last value; its sign is the direction in either form."""
    if not is_relative:
        return f"{value - last:+.6g}"
    return f"{100 * (value - last) / abs(last):+.2f}" if last else ""


def _print_plot(rows: Sequence[Sequence[float]], result: Forecast, meaning: _ModelColumns) -> None:
    # Importing plotext takes a quarter of a second.
    from seqserve.cli.plot import draw_forecast  # noqa: PLC0415

    history = (
        [row[meaning.columns.index(meaning.target)] for row in rows[-PLOTTED_HISTORY:]]
        if meaning.target
        else [result.last_value]
    )
    subject = f"{meaning.target} ({meaning.unit})" if meaning.unit else meaning.target
    subject, colors = escape_controls(subject), sys.stdout.isatty()
    print_plot(lambda width: draw_forecast(history, result, width=width, subject=subject, colors=colors))


def _number(value: float) -> str:
    return f"{value:.6g}"
