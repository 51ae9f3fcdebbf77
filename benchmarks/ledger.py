"""Measure what each optimisation of the serving core gains.

python -m benchmarks.ledger                         # about six minutes; fills docs/performance.md
python -m benchmarks.ledger --only idle --rounds 1  # parts: writes runs/ledger/

Each contest has the same load with the optimisation and without it (`benchmarks.optimisations`); the gain is
the part of the cost without it that it saves.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

from service.contract.extras import require

require("python -m benchmarks.ledger", "train")

import typer
from rich.console import Console

from benchmarks import report
from benchmarks.__main__ import RESULTS, ROUNDS, measure
from benchmarks.machine import choose_cores, describe
from benchmarks.optimisations import LEDGER, Optimisation, Referred
from benchmarks.report import amount
from benchmarks.results import Report, RowResult
from benchmarks.rounds import Sample, Verdict
from benchmarks.rows.contests import WITH, WITHOUT, Measure
from benchmarks.workshop import Workshop

PAGE: Final = Path(__file__).parents[1] / "docs/performance.md"
PARTIAL: Final = Path("runs") / "ledger"
BEGIN, END = "<!-- measured: make ledger writes from here -->", "<!-- measured: to here -->"
TO_BE_MEASURED: Final = "to be measured"
# An optimisation that gains less, in percent of a request's cost, is deleted.
LEAST_GAIN: Final = 5.0
HEADS: Final = ("optimisation", "taken out by", "load", "number", "with", "without", "gain")


@dataclass(frozen=True, slots=True)
class Line:
    """One number of the ledger.

    Attributes:
        optimisation, taken_out, load, what: as the ledger names them; `what` has the unit.
        ours, theirs: medians with the optimisation and without it; None: not measured.
        gain: median gain over the rounds, percent; None: not measured.
        gains: one a round.
        remark: why the gain is missing, or by what clock it is told.
    """

    optimisation: str
    taken_out: str
    load: str
    what: str
    ours: float | None = None
    theirs: float | None = None
    gain: float | None = None
    gains: tuple[float, ...] = ()
    remark: str = ""

    @property
    def is_small(self) -> bool:
        """Whether it gains less than what keeps an optimisation."""
        return self.gain is not None and self.gain < LEAST_GAIN

    def cells(self) -> tuple[str, ...]:
        """As the table has them, in the order of `HEADS`."""
        sides = ("" if side is None else amount(side) for side in (self.ours, self.theirs))
        return (self.optimisation, self.taken_out, self.load, self.what, *sides, self._gain())

    def _gain(self) -> str:
        if self.gain is None:
            return self.remark or TO_BE_MEASURED
        spread = f" ({min(self.gains):.0f}..{max(self.gains):.0f})" if len(self.gains) > 1 else ""
        words = [f"{self.gain:.1f} %{spread}", "**under 5 %**" if self.is_small else "", self.remark]
        return ", ".join(word for word in words if word)


def saved(ratio: float) -> float:
    """Return what is saved of a cost that became so many times smaller, percent."""
    return 100 * (1 - 1 / ratio)


def lines_of(found: Mapping[str, RowResult], others: Mapping[str, Any]) -> list[Line]:
    """Return every line of the ledger.

    Args:
        found: rows that have been measured, by name of the optimisation.
        others: rows of results.json, by name.
    """
    lines: list[Line] = []
    for one in LEDGER:
        if isinstance(one, Referred):
            lines.append(_referred(one, others.get(one.row)))
        else:
            lines += _measured(one, found.get(one.name))
    return lines


def _measured(one: Optimisation, row: RowResult | None) -> Iterator[Line]:
    if row is None or row.trouble:
        for of in one.measures:
            yield Line(one.title, one.taken_out, of.load, of.what, remark=row.trouble if row else "")
        return
    for of, verdict in zip(one.measures, row.verdicts, strict=True):
        ours, theirs = (_median(row, of, side) for side in (WITH, WITHOUT))
        gain, remark = _told(verdict)
        gains = tuple(map(saved, verdict.values))
        yield Line(one.title, one.taken_out, of.load, of.what, ours, theirs, saved(gain), gains, remark)


def _told(verdict: Verdict) -> tuple[float, str]:
    """Return how many times cheaper, and by what clock where wall time does not tell."""
    if verdict.by_cpu is not None and verdict.doubt:
        return verdict.by_cpu, f"by CPU time: {verdict.doubt}"
    return verdict.median, verdict.doubt


def _median(row: RowResult, of: Measure, side: str) -> float:
    """Return the number of a load's medians."""
    measured = row.contestants[of.contestant(side)]
    return of.of(Sample(measured.median, measured.by_cpu, measured.notes))


def _referred(one: Referred, row: Any) -> Line:
    """Return the line of a row that `make bench` has measured."""
    line = (one.title, one.taken_out, f"{one.row}: {one.load}", one.unit)
    if row is None or row["trouble"]:
        return Line(*line)
    ours, theirs = (row["contestants"][name]["values"] for name in (one.ours, one.theirs))
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    gains = tuple(map(saved, ratios))
    return Line(*line, median(ours), median(theirs), saved(median(ratios)), gains)


def table(lines: Sequence[Line], machine: Mapping[str, str], rounds: int) -> str:
    """Return the table with what it was measured on; an empty machine: nothing was measured."""
    heading = [
        "Medians with the optimisation and without it, and the median gain with the least and the most of",
        "the rounds. S7 and S9 are rows of [benchmarks/results](../benchmarks/results/results.md).",
    ]
    if machine:
        where = ", ".join((machine["date"][:10], machine["CPU"], machine["pinned to"]))
        heading.insert(0, f"Measured on {where}, {rounds} rounds.")
    return "\n".join([*heading, "", *report.table(HEADS, [line.cells() for line in lines])]).strip()


def write(made: Report, lines: Sequence[Line], rounds: int, folder: Path) -> str:
    """Write ledger.md and ledger.json; return the table."""
    folder.mkdir(parents=True, exist_ok=True)
    text = table(lines, made.machine, rounds)
    page = text.replace("(../benchmarks/results/results.md)", "(results.md)")
    (folder / "ledger.md").write_text(f"# Ledger of optimisations\n\nMade by `make ledger`. {page}\n")
    data = {"rounds": rounds, "lines": list(map(asdict, lines)), **made.to_dict()}
    (folder / "ledger.json").write_text(json.dumps(data, indent=1) + "\n")
    return text


def read_results() -> dict[str, Any]:
    """Return the rows that `make bench` has measured, by name."""
    rows = json.loads((RESULTS / "results.json").read_text())["rows"]
    return {row["name"]: row for row in rows}


def _chosen(only: str) -> list[Optimisation]:
    """Return the entries to measure.

    Raises:
        typer.BadParameter: a name is unknown, or another row measures it.
    """
    measured = [one for one in LEDGER if isinstance(one, Optimisation)]
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = [one.name for one in measured]
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"expected names among {', '.join(known)}, found {', '.join(unknown)}")
    return [one for one in measured if not names or one.name in names]


def main(
    only: Annotated[str, typer.Option(help="which optimisations, with commas [default: all]")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="how often each side runs")] = ROUNDS,
    quick: Annotated[
        bool, typer.Option("--quick", help="small loads: to see that it works, not what it gains")
    ] = False,
) -> None:
    """Measure the ledger; a full run writes benchmarks/results/ledger.*, and the table into the page."""
    console = Console(highlight=False, width=180)
    chosen, cores = _chosen(only), choose_cores()
    machine = describe(cores)
    found: dict[str, RowResult] = {}
    with (
        tempfile.TemporaryDirectory(prefix="seqserve-ledger-") as folder,
        Workshop(Path(folder), cores, quick) as workshop,
    ):
        for one in chosen:
            found[one.name] = measure(one.row, workshop, rounds, console)
            report.show(found[one.name], console)
    is_full = not only and not quick and rounds >= ROUNDS
    target = RESULTS if is_full else PARTIAL
    settings = {"size": "quick: not to be published" if quick else "full"}
    lines = lines_of(found, read_results())
    text = write(Report(machine, settings, list(found.values())), lines, rounds, target)
    if is_full:
        PAGE.write_text(report.replace_between(PAGE.read_text(), BEGIN, END, text))
    console.print(text, markup=False, soft_wrap=True)
    console.print(f"written to {target}")
    if any(row.has_failed for row in found.values()):
        raise typer.Exit(1)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(main)

if __name__ == "__main__":
    app()
