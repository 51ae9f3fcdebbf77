"""Measure what the speed promises rest on.

python -m benchmarks                                  # everything; minutes
python -m benchmarks --rows S1,S4 --rounds 3 --quick  # parts, small
"""

import tempfile
import time
import traceback
from pathlib import Path
from typing import Annotated

from service.contract.extras import require

require("python -m benchmarks", "train")

import typer
from rich.console import Console

from benchmarks import plots, report
from benchmarks.machine import choose_cores, describe, taken
from benchmarks.registry import BY_NAME, ROWS
from benchmarks.results import Report, RowResult, summarise
from benchmarks.rounds import interleave, judge
from benchmarks.workshop import Row, Skipped, Workshop
from seqserve.cli.output import standard_streams
from training.writing import WriteError, check_writable

RESULTS = Path(__file__).parent / "results"
PARTIAL = Path("runs") / "bench"
ROUNDS = 5
_LOG_WIDTH = 180

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(help=(__doc__ or "").splitlines()[0])
def main(
    rows: Annotated[
        str, typer.Option(help=f"which rows, with commas, of {', '.join(BY_NAME)} [default: all]")
    ] = "",
    rounds: Annotated[int, typer.Option(min=1, help="how often each contestant runs")] = ROUNDS,
    quick: Annotated[
        bool, typer.Option("--quick", help="small loads: to see that it works, not how fast it is")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help=(
                "folder for results.md, results.json and plots "
                "[default: benchmarks/results for a full run, else runs/bench]"
            )
        ),
    ] = None,
) -> None:
    """Measure the rows, show each when it is there, write all of them at the end."""
    names = [name.strip() for name in rows.split(",") if name.strip()]
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise typer.BadParameter(
            f"expected rows among {', '.join(BY_NAME)}, found {', '.join(unknown)}", param_hint="--rows"
        )
    chosen = [BY_NAME[name] for name in names] or list(ROWS)
    target = out or (RESULTS if chosen == list(ROWS) and not quick else PARTIAL)
    try:
        check_writable(target)  # now, not after an hour
    except WriteError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from error
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    cores = choose_cores()
    made = Report(describe(cores), _settings(rounds, quick), [])
    results: list[RowResult] = []
    with (
        tempfile.TemporaryDirectory(prefix="seqserve-bench-") as folder,
        Workshop(Path(folder), cores, quick) as workshop,
    ):
        for row in chosen:
            # No progress bar: its thread would take time from what is measured.
            console.print(f"{row.name}: {row.title} ...")
            results.append(measure(row, workshop, rounds, console))
            report.show(results[-1], console)
    made = Report(made.machine, made.settings, results)
    report.write(made, target)
    plots.write(made, target)
    console.print(f"written to {target}")
    if any(result.has_failed for result in results):
        raise typer.Exit(1)


def _settings(rounds: int, is_quick: bool) -> dict[str, str]:
    return {
        "rounds": f"{rounds}, interleaved; ratios within a round, medians over the rounds",
        "engine in process": (
            "slots, chunk and rows of a tick as the server's own tuner "
            "measures them, as with default settings; no prompts kept"
        ),
        "threads": "1 for onnxruntime, 1 for PyTorch, unless a row says otherwise",
        "size": "quick: not to be published" if is_quick else "full",
    }


def measure(row: Row, workshop: Workshop, rounds: int, console: Console) -> RowResult:
    """Run one row; what goes wrong in it does not stop the others."""
    started = time.perf_counter()
    try:
        with taken(), row.open(workshop) as contest:
            found = interleave(contest.contestants, min(rounds, row.most_rounds or rounds))
            verdicts = [judge(claim, found) for claim in contest.claims]
            seconds = time.perf_counter() - started
            return RowResult(
                row.name,
                row.title,
                row.unit,
                contest.load,
                summarise(found),
                verdicts,
                contest.facts,
                seconds,
            )
    except Skipped as reason:
        return RowResult(row.name, row.title, row.unit, trouble=str(reason))
    except Exception as error:
        console.print(traceback.format_exc(), markup=False)
        what = str(error).strip().rpartition("\n")[2]
        return RowResult(
            row.name, row.title, row.unit, trouble=f"{type(error).__name__}: {what}", has_failed=True
        )


if __name__ == "__main__":
    with standard_streams():
        app()
