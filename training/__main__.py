"""Train a model, measure it on held-out data beside the simplest baseline, export it for the service.

    python -m training charlm                       # Shakespeare, about 40 minutes on 2 cores
    python -m training sentiment                    # movie reviews, a minute
    python -m training stock                        # GOOG, seconds
    python -m training charlm --text my.txt --name mine --hidden 128 --layers 1
    torchrun --nproc-per-node 2 -m training charlm  # two processes

Each run keeps a checkpoint in runs/<name>/; an export becomes the next version,
<repository>/<name>/<version>/.
"""

import sys

from training.interrupts import INTERRUPTED, end_at_interrupt, raise_at_interrupt
from training.supervising import go_on_in_child

if __name__ == "__main__":
    end_at_interrupt()  # before what takes seconds to import
    if sys.argv[1:2] == ["convert"]:
        go_on_in_child("the conversion")

# isort: split
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from service.contract.extras import require

require("python -m training", "train")

import typer
from pydantic import TypeAdapter, ValidationError
from typer.core import TyperGroup

from seqserve.cli.output import standard_streams
from seqserve.tables.dates import ALLOW_FUTURE
from seqserve.tables.files import UTF8
from seqserve.tables.rows import TAB, UNFIT_DELIMITERS
from service.contract import spec
from training.commands import versions
from training.data.observations import Gaps
from training.data.series import choose
from training.data.sources import GOOG, PLAYS, Source, own_data
from training.errors import TrainingError
from training.evaluate.scoring import evidence_of
from training.failures import exit_status
from training.lecture.command import lecture
from training.loop import parallel
from training.loop.environment import deterministic
from training.loop.fit import CHECKPOINT_FILE
from training.loop.precision import PrecisionChoice
from training.networks.network import Cell
from training.recipes import charlm, sentiment, stock
from training.recipes.run import REPOSITORY, RunOptions
from training.shapes.command import shapes
from training.writing import check_writable

# Common to all recipes; each command gives its own defaults.
Name = Annotated[str, typer.Option(help="name of the model, as requests will give it")]
Repository = Annotated[Path, typer.Option(help="folder of models to export to")]
CellChoice = Annotated[Cell, typer.Option(help="recurrence")]
Layers = Annotated[int, typer.Option(min=1, help="recurrent layers")]
Hidden = Annotated[int, typer.Option(min=1, help="width of each layer's state")]
Epochs = Annotated[int, typer.Option(min=1, help="passes over the training part")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="of the split, weights, shuffling and dropout")]
Device = Annotated[str, typer.Option(help="cpu, or cuda where there is one")]
Precision = Annotated[
    PrecisionChoice, typer.Option(help="of the numbers in training; auto: fp32 on a CPU, 16 bits on CUDA")
]
Resume = Annotated[bool, typer.Option("--resume", help="go on from the checkpoint in runs/<name>/")]
Int8 = Annotated[
    bool,
    typer.Option(
        "--int8/--no-int8", help="export int8 weights, too, if they pass their gate; lstm alone has them"
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option(
        "--csv", metavar="FILE", help="your own CSV file with a header line, instead of the shipped data"
    ),
]
Encoding = Annotated[str, typer.Option(help="of your own file: utf-8, cp1252, utf-16, ...")]
Delimiter = Annotated[
    str,
    typer.Option(
        help=(
            "between the cells of your CSV file, or tab: with it, "
            "quotation marks are text [default: found in the header line]"
        )
    ),
]


class _Commands(TyperGroup):
    """Group of the commands, which says where one was interrupted that does not say so itself."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    help=(__doc__ or "").splitlines()[0],
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
versions.register(app)


@app.command("charlm", help="character language model: generates and scores text")
def train_charlm(
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="your own UTF-8 text, instead of the plays of Shakespeare"),
    ] = None,
    more: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="UTF-8 text to train on beside --text; nothing of it is held out"),
    ] = None,
    encoding: Encoding = UTF8,
    name: Name = "charlm",
    repository: Repository = REPOSITORY,
    cell: CellChoice = "lstm",
    layers: Layers = 2,
    hidden: Hidden = 512,
    epochs: Epochs = 6,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Precision = "auto",
    resume: Resume = False,
    int8: Int8 = True,
) -> None:
    """Options to recipe."""
    options = RunOptions(
        name, repository, cell, layers, hidden, epochs, seed, device, resume, int8, precision, evidence_of
    )
    if more and not text:
        raise TrainingError("--more: expected with --text alone; the shipped plays have more of their own")
    if encoding != UTF8 and not text:
        raise TrainingError("--encoding: expected with --text alone; the shipped plays have their own")
    _run(options, lambda: charlm.train(options, own_data(text, more, encoding) if text else PLAYS))


@app.command("sentiment", help="text classifier, many to one")
def train_sentiment(
    csv: Csv = None,
    text_column: Annotated[str, typer.Option(help="column of the texts")] = "text",
    label_column: Annotated[
        str, typer.Option(help="column of their labels, two or more different ones")
    ] = "label",
    encoding: Encoding = UTF8,
    delimiter: Delimiter = "",
    name: Name = "sentiment",
    repository: Repository = REPOSITORY,
    cell: CellChoice = "lstm",
    layers: Layers = 1,
    hidden: Hidden = 128,
    members: Annotated[
        int, typer.Option(min=1, help="networks of that width, trained one after the other and served as one")
    ] = 1,
    epochs: Epochs = 6,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Precision = "auto",
    resume: Resume = False,
    int8: Int8 = True,
) -> None:
    """Options to recipe."""
    options = RunOptions(
        name, repository, cell, layers, hidden, epochs, seed, device, resume, int8, precision, evidence_of
    )
    if not csv and (text_column, label_column) != ("text", "label"):
        raise TrainingError(
            "--text-column and --label-column: expected with --csv alone; "
            "the shipped reviews have columns of their own"
        )
    source = _own_table(csv, encoding, delimiter)
    _run(
        options,
        lambda: sentiment.train(
            options, sentiment.Table(source, text_column, label_column) if source else None, members
        ),
    )


@app.command("stock", help="forecaster of the next steps of a series, with quantiles")
def train_stock(
    csv: Csv = None,
    columns: Annotated[
        str, typer.Option(help="columns of an observation, with commas")
    ] = "open,high,low,close,volume",
    target: Annotated[str, typer.Option(help="the column to forecast")] = "close",
    price_columns: Annotated[
        str | None,
        typer.Option(
            help=(
                "columns in the target's unit, with commas "
                "[default: those of --columns named open, high, low, close]"
            )
        ),
    ] = None,
    date_column: Annotated[
        str, typer.Option(help="column that orders the rows; '' where the file's order is right")
    ] = "date",
    date_format: Annotated[
        str, typer.Option(help="of the dates, as strptime has it: %d/%m/%Y [default: told by the rows]")
    ] = "",
    allow_future_dates: Annotated[
        bool, typer.Option(ALLOW_FUTURE, help="accept dates that are after today")
    ] = False,
    gaps: Annotated[
        Gaps,
        typer.Option(help="missing cells: refuse the file, take the value before (forward), or drop the row"),
    ] = "refuse",
    held_out_from: Annotated[
        str,
        typer.Option(
            metavar="DATE", help="first date held out, as 2012-12-31 [default: the last 30 % of the rows]"
        ),
    ] = "",
    encoding: Encoding = UTF8,
    delimiter: Delimiter = "",
    name: Name = "stock",
    repository: Repository = REPOSITORY,
    cell: CellChoice = "gru",
    layers: Layers = 1,
    hidden: Hidden = 32,
    epochs: Epochs = 20,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Precision = "auto",
    resume: Resume = False,
    int8: Int8 = True,
) -> None:
    """Options to recipe."""
    options = RunOptions(
        name, repository, cell, layers, hidden, epochs, seed, device, resume, int8, precision, evidence_of
    )
    prices = None if price_columns is None else _names(price_columns)
    source = _own_table(csv, encoding, delimiter) or GOOG
    table = choose(
        source,
        _names(columns),
        target,
        prices,
        date_column,
        date_format=date_format,
        gaps=gaps,
        held_out_from=held_out_from,
        allows_future=allow_future_dates,
    )
    _run(options, lambda: stock.train(options, table))


def _own_table(csv: Path | None, encoding: str, delimiter: str) -> Source | None:
    if not csv:
        if encoding != UTF8 or delimiter:
            raise TrainingError(
                "--encoding and --delimiter: expected with --csv alone; the shipped data have their own"
            )
        return None
    delimiter = "\t" if delimiter == TAB else delimiter
    if len(delimiter) > 1 or delimiter in UNFIT_DELIMITERS:
        raise TrainingError(f"--delimiter: expected one character or {TAB}, found {delimiter!r}")
    return own_data(csv, encoding=encoding, delimiter=delimiter)


app.command(
    "lecture", help="six lessons of seconds each, from one letter to a share's price: docs/lecture.md"
)(lecture)
app.command(
    "shapes", help="one to one, one to many, many to one, many to many, and with delay: docs/shapes.md"
)(shapes)


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",")]


def _run(options: RunOptions, recipe: Callable[[], object]) -> None:
    try:
        TypeAdapter(spec.Name).validate_python(options.name)
    except ValidationError as error:
        raise TrainingError(
            "--name: expected up to 64 letters, digits and ._-, "
            f"a letter or digit first, found {options.name!r}"
        ) from error
    for folder in (options.folder, options.repository):
        check_writable(folder)
    try:
        with deterministic(options.device), parallel.joined():
            recipe()
    except KeyboardInterrupt:
        again = shlex.join(
            ["python", "-m", "training", *sys.argv[1:], *([] if options.resume else ["--resume"])]
        )
        checkpoint = options.folder / CHECKPOINT_FILE
        kept = checkpoint.exists()
        hint = f"go on with: {again}" if kept else "no epoch was finished, so nothing was saved"
        print(f"interrupted; {hint}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def main() -> int:
    """Run the command, and return its exit status."""
    raise_at_interrupt()
    return exit_status(
        lambda: app(sys.argv[1:] or ["--help"], prog_name="python -m training", standalone_mode=False)
    )


if __name__ == "__main__":
    with standard_streams():
        sys.exit(main())
