"""Measures the recipe `forecast` on both series of benchmarks/series: `python -m benchmarks.forecasts`.

Each series is trained on with each seed at the command's defaults, and once more with the transform that
`auto` did not take. Finished runs are kept in runs/forecasts and are not repeated. The tables go to
benchmarks/results/noted.json, from where `python -m tools.measured` writes them into docs/quality.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
RUNS: Final = ROOT / "runs" / "forecasts"
NOTED: Final = ROOT / "benchmarks" / "results" / "noted.json"
SEEDS: Final = (0, 1, 2)
STEPS: Final = (1, 6, 24)
# Keys of the metrics in model.json, and what the tables call them.
CONTENDERS: Final[Mapping[str, str]] = {
    "held_out": "network",
    "baseline_seasonal": "a day ago",
    "baseline_linear": "ridge: lags, hour and weekday dummies",
}
_LOSS: Final = re.compile(r"^transform (\w+), \w+ levels: development pinball loss (\S+) after", re.MULTILINE)
_SECONDS: Final = re.compile(r"^trained in ([\d.,]+) s of processor time", re.MULTILINE)

Table = dict[str, Any]


class Series(NamedTuple):
    """A file of benchmarks/series: its name, which is the target's, and the unit of its values."""

    name: str
    unit: str

    @property
    def file(self) -> str:
        """Return its path from the root of the repository."""
        return f"benchmarks/series/{self.name}.csv"


SERIES: Final = (Series("load", "MW"), Series("temperature", "degrees F"))


class Run(NamedTuple):
    """A finished run.

    Attributes:
        metrics: of its model.json.
        transform: of the target, as it was chosen or given.
        said: what the command printed.
    """

    metrics: Mapping[str, float]
    transform: str
    said: str


def finished(series: Series, seed: int, transform: str = "auto") -> Run:
    """Train unless that was done before, and return what came of it.

    Raises:
        RuntimeError: the command failed.
    """
    name = f"{series.name}-{transform}-{seed}"
    spec, log = RUNS / "models" / name / "1" / "model.json", RUNS / f"{name}.txt"
    if not (spec.exists() and log.exists()):
        RUNS.mkdir(parents=True, exist_ok=True)
        command = ("-m", "training", "forecast", series.file, "--target", series.name)
        options = ("--transform", transform, "--seed", str(seed), "--name", name)
        ended = subprocess.run(
            [sys.executable, *command, *options, "--repository", str(RUNS / "models")],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f"{name}: expected status 0, found {ended.returncode}:\n{ended.stdout}")
        log.write_text(ended.stdout)
    model = json.loads(spec.read_text())
    columns = {column["name"]: column for column in model["forecasting"]["columns"]}
    return Run(model["metrics"], columns[series.name]["transform"], log.read_text())


def quality(found: Mapping[Series, Sequence[Run]]) -> Table:
    """Return the table of errors by steps ahead.

    Args:
        found: runs of each series, one a seed.
    """
    rows = []
    for series, runs in found.items():
        for title, suffix in (*((f"{step} ahead", f"_{step}") for step in STEPS), ("all 24 steps", "")):
            for key, contender in CONTENDERS.items():
                cells = [
                    _cell([run.metrics[f"{key}_{measure}{suffix}"] for run in runs], form)
                    for measure, form in (("rmse", ".4g"), ("pinball", ".4g"), ("coverage", ".1f"))
                ]
                rows.append([f"{series.name}, {series.unit}: {title}", contender, *cells])
    return _table(
        "by `python -m benchmarks.forecasts`: mean (seeds 0, 1, 2) of `python -m training forecast` at its "
        "defaults, on the last 30 % of the rows",
        ["held out", "forecast by", "RMSE", "pinball loss", "in 80 % interval, %"],
        rows,
    )


def transforms(found: Mapping[Series, Sequence[Run]], others: Mapping[Series, Run]) -> Table:
    """Return the table of what `--transform auto` saw and took, beside what the other transform gives.

    Args:
        found: runs of each series whose transform was chosen, one a seed.
        others: with the first seed and the transform that was not taken.
    """
    rows = []
    for series, other in others.items():
        for seed, run in enumerate(found[series]):
            losses = dict(_LOSS.findall(run.said))
            held = {run.transform: run.metrics["held_out_pinball"]}
            if seed == SEEDS[0]:
                held[other.transform] = other.metrics["held_out_pinball"]
            rows.append(
                [
                    f"{series.name}, seed {seed}",
                    *(losses.get(kind, "") for kind in ("log", "none")),
                    run.transform,
                    *(f"{held[kind]:.4g}" if kind in held else "" for kind in ("log", "none")),
                ]
            )
    return _table(
        "by `python -m benchmarks.forecasts`; the other transform was trained in full with seed 0 alone",
        [
            "`--transform auto`",
            "log: development pinball loss",
            "none: development pinball loss",
            "taken",
            "log: held-out pinball loss",
            "none: held-out pinball loss",
        ],
        rows,
    )


def false_alarms(found: Mapping[Series, Sequence[Run]]) -> Table:
    """Return the table of held-out values above the threshold of anomalies, and of the time of a run."""
    rows = [
        [
            series.name,
            _cell([run.metrics["held_out_false_alarms"] for run in runs], ".2f"),
            _cell([sum(map(_number, _SECONDS.findall(run.said))) for run in runs], ".0f"),
        ]
        for series, runs in found.items()
    ]
    return _table(
        "by `python -m benchmarks.forecasts`",
        ["seeds 0, 1, 2", "held-out values above the threshold, % (1 % of development)", "CPU s a run"],
        rows,
    )


def _cell(values: Sequence[float], form: str) -> str:
    """Return the mean, and behind it the values of the seeds unless they are alike."""
    every = [format(value, form) for value in values]
    mean = format(fmean(values), form)
    return mean if set(every) == {mean} else f"{mean} ({', '.join(every)})"


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _table(how: str, columns: list[str], rows: list[list[str]]) -> Table:
    is_numbers = [any(cell[:1].isdigit() for cell in column) for column in zip(*rows, strict=True)]
    align = ["right" if index and is_right else "left" for index, is_right in enumerate(is_numbers)]
    recorded = datetime.now(UTC).date().isoformat()
    return {"recorded": recorded, "how": how, "columns": columns, "align": align, "rows": rows}


def as_text(noted: Mapping[str, Table]) -> str:
    """Return tables as noted.json has them: a line for each field and for each row."""

    def field(name: str, value: object) -> str:
        if name != "rows":
            return f"  {_json(name)}: {_json(value)}"
        assert isinstance(value, list)
        rows = ",\n".join(f"   {_json(row)}" for row in value)
        return f'  "rows": [\n{rows}\n  ]'

    tables = (
        f" {_json(name)}: {{\n" + ",\n".join(field(*one) for one in table.items()) + "\n }"
        for name, table in noted.items()
    )
    return "{\n" + ",\n".join(tables) + "\n}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    """Train what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--noted", type=Path, default=NOTED, help="file that the tables are added to")
    where = parser.parse_args().noted
    found = {series: [finished(series, seed) for seed in SEEDS] for series in SERIES}
    # Logarithms of temperatures at or below 0 are not a choice, so that only one transform was tried.
    both = [series for series in SERIES if len(_LOSS.findall(found[series][0].said)) > 1]
    others = {
        series: finished(series, SEEDS[0], "none" if found[series][0].transform == "log" else "log")
        for series in both
    }
    tables = {
        "forecasts": quality(found),
        "forecasts-transform": transforms(found, others),
        "forecasts-anomalies": false_alarms(found),
    }
    where.write_text(as_text({**json.loads(where.read_text()), **tables}))


if __name__ == "__main__":
    main()
