"""Classifying a file of texts: an engine in each of two Ray Data workers, against `seqserve classify --file`.

    python -m benchmarks.bulk            # measures in rounds: benchmarks/results/bulk.json, docs/bulk.md
    python -m benchmarks.bulk --quick    # one round of few texts, to see that it works: writes runs/bulk/

Both are whole commands, started anew for each measurement; two sizes of file tell apart what they cost to
start. CPU time is that of all their processes, the server's included. Ray has an environment of its own,
.venv-ray.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

from service.contract.extras import require

require("python -m benchmarks.bulk", "train")

import typer

from benchmarks.loads import review_texts
from benchmarks.machine import choose_cores, describe
from benchmarks.report import replace_between
from benchmarks.report import table as table_of
from benchmarks.servers import Server, cpu_seconds_of, serve

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/bulk.md"
RESULTS: Final = ROOT / "benchmarks/results/bulk.json"
QUICK_OUT: Final = ROOT / "runs/bulk"
BEGIN, END = "<!-- measured: make bulk writes from here -->", "<!-- measured: to here -->"
RAY_PYTHON: Final = ROOT / ".venv-ray/bin/python"
MODEL: Final = ROOT / "exported/sentiment/4"
SIZES: Final = (5_000, 25_000)
QUICK_SIZES: Final = (200, 400)
MOST_LOAD_BEFORE: Final = 0.5
_SAMPLE_S: Final = 0.02
_RAY, _COMMAND = "Ray Data, two workers", "`seqserve classify --file` and a server"


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of the clock and of all processors that a command took."""

    seconds: float
    cpu_seconds: float


# By size of the file, the cost in each round.
Costs = dict[int, list[Cost]]


def tree_of(pid: int) -> Iterator[int]:
    """Yield a process and those below it."""
    yield pid
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return
    for child in children:
        yield from tree_of(child)


def cost_of(command: list[str], output: Path, environment: dict[str, str]) -> Cost:
    """Run a command and return its cost; the CPU time of a process is what it had when it was last seen.

    Raises:
        CalledProcessError: it failed.
    """
    used: dict[int, float] = {}
    started = time.monotonic()
    with output.open("wb") as sink, (output.parent / "errors").open("wb") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sink, stderr=errors)
        while process.poll() is None:
            for pid in list(tree_of(process.pid)):
                try:
                    used[pid] = cpu_seconds_of(pid)
                except OSError:  # it has ended
                    continue
            time.sleep(_SAMPLE_S)
    seconds = time.monotonic() - started
    if process.returncode != 0:
        told = (output.parent / "errors").read_text(errors="backslashreplace")
        raise subprocess.CalledProcessError(process.returncode, command, stderr=told)
    return Cost(seconds, sum(used.values()))


def command_cost(server: Server, texts: Path, folder: Path) -> Cost:
    """Return the cost of the command, with what its server used meanwhile."""
    before = server.cpu_seconds()
    cost = cost_of(
        [
            str(Path(sys.executable).with_name("seqserve")),
            *("--server", server.address, "classify", "--model", "sentiment", "--file", str(texts)),
        ],
        folder / "output",
        os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return Cost(cost.seconds, cost.cpu_seconds + server.cpu_seconds() - before)


def ray_cost(texts: Path, folder: Path) -> Cost:
    """Return the cost of the example of examples/ray."""
    return cost_of(
        [
            str(RAY_PYTHON),
            "examples/ray/classify.py",
            str(MODEL),
            str(texts.parent),
            str(folder / "labelled"),
        ],
        folder / "output",
        os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"},
    )


def measure(sizes: tuple[int, ...], rounds: int) -> dict[str, Costs]:
    """Return the costs of both, whose measurements alternate."""
    found: dict[str, Costs] = {name: {size: [] for size in sizes} for name in (_RAY, _COMMAND)}
    cores = choose_cores()
    with serve(ROOT / "exported", cores.both) as server:
        for _ in range(rounds):
            for size in sizes:
                for name, run in _contestants(server).items():
                    found[name][size].append(_with_texts(size, run))
    return found


def _contestants(server: Server) -> dict[str, Callable[[Path, Path], Cost]]:
    return {_RAY: ray_cost, _COMMAND: lambda texts, folder: command_cost(server, texts, folder)}


def _with_texts(size: int, run: Callable[[Path, Path], Cost]) -> Cost:
    """Run a contestant with a file of so many review sentences, in folders that are removed afterwards."""
    sentences = review_texts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "texts").mkdir()
        lines = (sentences[number % len(sentences)] for number in range(size))
        texts = folder / "texts" / "reviews.txt"
        texts.write_text("".join(f"{line}\n" for line in lines))
        return run(texts, folder)


def tables(report: dict[str, Any]) -> str:
    """Return the measured part of the page."""
    machine = report["machine"]
    sizes = sorted({int(size) for costs in report["costs"].values() for size in costs})
    heads = (
        "",
        *(f"{size:,} texts, s (CPU s)" for size in sizes),
        "each further 1,000 texts, s (CPU s)",
        "further texts/s",
    )
    lines = [(name, *_cells(costs, sizes)) for name, costs in report["costs"].items()]
    head = (
        f"Measured on {machine['date'][:10]}, {machine['CPU']}, two cores, commit {machine['commit'][:7]}, "
        f"{_rounds(report['rounds'])}. Load average before: {report['load_before']:.1f}."
    )
    if report["load_before"] > MOST_LOAD_BEFORE:
        head += " **Others used the machine: not to be relied on, measure again.**"
    return "\n".join((head, "", *table_of(heads, lines)))


def _rounds(count: int) -> str:
    return f"medians of {count} rounds" if count > 1 else "one round"


def _cells(costs: dict[str, list[dict[str, float]]], sizes: list[int]) -> Iterator[str]:
    medians = {
        size: Cost(*(median(one[kind] for one in costs[str(size)]) for kind in ("seconds", "cpu_seconds")))
        for size in sizes
    }
    for one in medians.values():
        yield f"{one.seconds:.1f} ({one.cpu_seconds:.1f})"
    few, many = medians[sizes[0]], medians[sizes[-1]]
    thousands = (sizes[-1] - sizes[0]) / 1000
    seconds = (many.seconds - few.seconds) / thousands
    yield f"{seconds:.2f} ({(many.cpu_seconds - few.cpu_seconds) / thousands:.2f})"
    yield f"{1000 / seconds:,.0f}" if seconds > 0 else "not measurable"


def report_of(costs: dict[str, Costs], load_before: float) -> dict[str, Any]:
    """Return what the results file holds."""
    return {
        "machine": describe(choose_cores()),
        "load_before": load_before,
        "rounds": min(len(one) for sizes in costs.values() for one in sizes.values()),
        "costs": {
            name: {str(size): [asdict(one) for one in rounds] for size, rounds in sizes.items()}
            for name, sizes in costs.items()
        },
    }


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="one round of few texts; writes runs/bulk/ and leaves docs/ alone")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="of both commands and both sizes")] = 3,
) -> None:
    """Measure, and write the results and the page."""
    if not RAY_PYTHON.exists():
        raise typer.BadParameter("ray's environment is missing: make .venv-ray/stamp")
    load_before = os.getloadavg()[0]
    costs = measure(QUICK_SIZES if quick else SIZES, 1 if quick else rounds)
    report = report_of(costs, load_before)
    text = tables(report)
    if quick:
        QUICK_OUT.mkdir(parents=True, exist_ok=True)
        (QUICK_OUT / "bulk.md").write_text(f"{text}\n")
    else:
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")
        PAGE.write_text(replace_between(PAGE.read_text(), BEGIN, END, text))
    typer.echo(text)


if __name__ == "__main__":
    app()
