"""The command `series`: a model that gives a class or numbers for sequences of rows."""

from pathlib import Path
from typing import Annotated

import typer

from seqserve.tables.files import UTF8
from training.commands.options import Defaults, Delimiter, Encoding, with_common
from training.commands.running import named_after, names, own_table, run
from training.data.feature_rows import RowsChoice, rows_source
from training.data.windows import Cut, Kind, Steps
from training.recipes import series
from training.recipes.run import RunOptions

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="your CSV file with a header line, .parquet, or .npz with values, sequence and target",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command("series", help="your sequences of rows -> a model that gives each a class or numbers")(
        train_series
    )


@with_common(Defaults(name="", cell="gru", layers=1, hidden=64, epochs=40), has_classes=True)
def train_series(
    options: RunOptions,
    file: File,
    target: Annotated[
        str, typer.Option(help="column to be learnt; several numbers with commas", show_default=False)
    ],
    sequence: Annotated[
        str, typer.Option(help="column that says to which sequence a row belongs")
    ] = "sequence",
    columns: Annotated[
        str, typer.Option(help="features of a row, with commas [default: all other columns]")
    ] = "",
    kind: Annotated[Kind, typer.Option(help="of the target; auto: told by its values")] = "auto",
    steps: Annotated[Steps, typer.Option(help="one target a sequence, or one for every row")] = "last",
    window: Annotated[
        int, typer.Option(min=0, help="cut longer sequences into windows of so many rows; 0: never")
    ] = 0,
    stride: Annotated[int, typer.Option(min=0, help="rows from window to window; 0: those of a window")] = 0,
    direction: Annotated[
        series.Direction,
        typer.Option(help="forward: sequences can be streamed; both: whole ones, often better"),
    ] = "forward",
    encoding: Encoding = UTF8,
    delimiter: Delimiter = "",
) -> None:
    """Train on sequences of rows of the user's own."""
    options = named_after(options, file)
    source = rows_source(file, encoding, delimiter, own_table)
    rows = RowsChoice(source, sequence, tuple(names(target)), tuple(names(columns)) if columns else ())
    chosen = series.SeriesChoice(rows, Cut(window, stride), kind, steps, direction)
    run(options, lambda: series.train(options, chosen))
