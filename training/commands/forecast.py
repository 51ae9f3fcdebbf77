"""The commands `forecast` and `stock`: a model that forecasts a series."""

from typing import Annotated, Literal

import typer

from seqserve.tables.dates import ALLOW_FUTURE
from seqserve.tables.files import UTF8
from training.commands.options import Csv, Defaults, Delimiter, Encoding, Table, with_common
from training.commands.running import named_after, names, own_table, run, table_or
from training.data.forecasting import parse_quantiles
from training.data.observations import Gaps
from training.data.series import choose
from training.data.sources import GOOG
from training.errors import TrainingError
from training.recipes import forecast, stock
from training.recipes.run import RunOptions

PriceColumns = Annotated[
    str | None,
    typer.Option(
        help=(
            "columns in the target's unit, with commas "
            "[default: those of --columns named open, high, low, close]"
        )
    ),
]
DateColumn = Annotated[
    str, typer.Option(help="column that orders the rows; '' where the file's order is right")
]
DateFormat = Annotated[
    str, typer.Option(help="of the dates, as strptime has it: %d/%m/%Y [default: told by the rows]")
]
AllowFuture = Annotated[bool, typer.Option(ALLOW_FUTURE, help="accept dates that are after today")]
GapsChoice = Annotated[
    Gaps,
    typer.Option(help="missing cells: refuse the file, take the value before (forward), or drop the row"),
]
HeldOutFrom = Annotated[
    str,
    typer.Option(
        metavar="DATE", help="first date held out, as 2012-12-31 [default: the last 30 % of the rows]"
    ),
]

Horizon = Annotated[
    int | None, typer.Option(min=1, help="rows ahead [default: a season, or 5 where there is none]")
]
Quantiles = Annotated[str, typer.Option(help="levels with commas, rising, 0.5 among them")]
TransformChoice = Annotated[
    Literal["auto", "log", "none"],
    typer.Option(help="of the target; auto: what does better on the development part"),
]
Window = Annotated[
    int | None, typer.Option(min=1, help="rows that it looks back over [default: seven seasons, or 64]")
]
Calendar = Annotated[
    str,
    typer.Option(help="hour, weekday and month with commas, none, or auto: those that the dates can show"),
]
Period = Annotated[
    int | None, typer.Option(min=1, help="rows of a season [default: found by autocorrelation]")
]
AnomalyRate = Annotated[
    float, typer.Option(help="share of ordinary values that seqserve forecast --anomaly may mark")
]
ANOMALY_LIMIT = 0.5


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command("forecast", help="your table of numbers -> a model that forecasts one of its columns")(
        train_forecast
    )
    app.command("stock", help="the shipped model of the price of GOOG: forecasts the next days")(train_stock)


@with_common(Defaults(name="", cell="gru", layers=1, hidden=64, epochs=10))
def train_forecast(
    options: RunOptions,
    table: Table,
    target: Annotated[str, typer.Option(help="the column to forecast", show_default=False)],
    columns: Annotated[
        str, typer.Option(help="columns of an observation, with commas [default: the target alone]")
    ] = "",
    horizon: Horizon = None,
    quantiles: Quantiles = "0.1,0.5,0.9",
    transform: TransformChoice = "auto",
    window: Window = None,
    calendar: Calendar = "auto",
    period: Period = None,
    anomaly: AnomalyRate = 0.01,
    price_columns: PriceColumns = None,
    date_column: DateColumn = "date",
    date_format: DateFormat = "",
    allow_future_dates: AllowFuture = False,
    gaps: GapsChoice = "refuse",
    held_out_from: HeldOutFrom = "",
    encoding: Encoding = UTF8,
    delimiter: Delimiter = "",
) -> None:
    """Train a forecaster on a table of the user's own."""
    options = named_after(options, table)
    if not 0 < anomaly < ANOMALY_LIMIT:
        raise TrainingError(f"--anomaly: expected a share above 0 and below {ANOMALY_LIMIT}, found {anomaly}")
    wanted = forecast.ForecastOptions(
        horizon or 0, parse_quantiles(quantiles), transform, window or 0, calendar, period or 0, anomaly
    )
    chosen = choose(
        own_table(table, encoding, delimiter),
        names(columns or target),
        target,
        None if price_columns is None else names(price_columns),
        date_column,
        date_format=date_format,
        gaps=gaps,
        held_out_from=held_out_from,
        allows_future=allow_future_dates,
    )
    run(options, lambda: forecast.train(options, chosen, wanted))


@with_common(Defaults(name="stock", cell="gru", layers=1, hidden=32, epochs=20))
def train_stock(
    options: RunOptions,
    csv: Csv = None,
    columns: Annotated[
        str, typer.Option(help="columns of an observation, with commas")
    ] = "open,high,low,close,volume",
    target: Annotated[str, typer.Option(help="the column to forecast")] = "close",
    price_columns: PriceColumns = None,
    date_column: DateColumn = "date",
    date_format: DateFormat = "",
    allow_future_dates: AllowFuture = False,
    gaps: GapsChoice = "refuse",
    held_out_from: HeldOutFrom = "",
    encoding: Encoding = UTF8,
    delimiter: Delimiter = "",
) -> None:
    """Train the shipped forecaster of prices."""
    chosen = choose(
        table_or(GOOG, csv, encoding, delimiter),
        names(columns),
        target,
        None if price_columns is None else names(price_columns),
        date_column,
        date_format=date_format,
        gaps=gaps,
        held_out_from=held_out_from,
        allows_future=allow_future_dates,
    )
    run(options, lambda: stock.train(options, chosen))
