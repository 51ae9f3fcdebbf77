"""Measure the recipes *series* and *label* over three seeds: python -m tests.examples.quality [FILE.ts ...].

Made-up activities (`activity`) and made-up sentences with many rare words; and files of sequences in the form
`.ts`, as the Python package aeon carries them (datasets/data/JapaneseVowels, BasicMotions; TRAIN and TEST are
read as one). It writes into the current folder and prints a Markdown table of held-out results.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from tests.examples.activity import AXES, LABELS, rows_of

SEEDS = (0, 1, 2)
_ENDINGS = {
    "NOUN": ("tion", "ness", "er", "s"),
    "VERB": ("izes", "ates", "s", "ed"),
    "ADJ": ("ous", "ful", "al", "er"),
    "ADV": ("ly",),
}
_PATTERNS = (
    ("DET", "ADJ", "NOUN", "VERB", "DET", "NOUN"),
    ("DET", "NOUN", "VERB", "ADV"),
    ("PRON", "VERB", "DET", "ADJ", "ADJ", "NOUN"),
    ("DET", "NOUN", "ADV", "VERB", "PRON"),
)
_CLOSED = {"DET": ("the", "a", "this"), "PRON": ("they", "we", "it")}


def write_activities(path: Path, count: int = 120) -> None:
    """Write made-up activities as rows of a CSV file."""
    generator = np.random.default_rng(0)
    lines = [",".join(["sequence", *AXES, "label"])]
    for index in range(count):
        label = LABELS[index % len(LABELS)]
        for row in rows_of(label, generator):
            lines.append(",".join([str(index), *(f"{value:.5f}" for value in row), label]))
    path.write_text("\n".join(lines) + "\n")


def write_sentences(path: Path, count: int = 1500) -> None:
    """Write sentences whose open words are rare stems with endings, of which some belong to several tags."""
    generator = np.random.default_rng(0)

    def word(tag: str) -> str:
        if tag in _CLOSED:
            return str(generator.choice(_CLOSED[tag]))
        # Stems are drawn by Zipf's law: few are frequent, many occur once.
        stem = min(int(generator.zipf(1.3)), 20_000)
        letters = "".join("bcdfgklmnprst"[stem // 13**place % 13] + "aeiou"[stem % 5] for place in range(2))
        return letters + str(generator.choice(_ENDINGS[tag]))

    blocks = []
    for _ in range(count):
        tags = _PATTERNS[int(generator.integers(len(_PATTERNS)))]
        blocks.append("".join(f"{word(tag)}\t{tag}\n" for tag in tags))
    path.write_text("\n".join(blocks))


def write_ts(files: Sequence[Path], path: Path) -> None:
    """Write the sequences of `.ts` files as rows of a CSV file."""
    lines: list[str] = []
    for index, (*channels, label) in enumerate(_sequences(files)):
        if not lines:
            lines.append(",".join(["sequence", *(f"x{number}" for number in range(len(channels))), "label"]))
        steps = zip(*(channel.split(",") for channel in channels), strict=True)
        lines += [",".join([str(index), *step, label]) for step in steps]
    path.write_text("\n".join(lines) + "\n")


def _sequences(files: Sequence[Path]) -> Iterator[list[str]]:
    for file in files:
        for line in file.read_text().splitlines():
            if line.strip() and line[0] not in "#@":
                yield line.strip().split(":")


def measured(command: Sequence[str], name: str) -> list[dict[str, float]]:
    """Train with each seed, and return the metrics of each model."""
    found = []
    for seed in SEEDS:
        options = ["--name", f"{name}-{seed}", "--repository", "measured", "--seed", str(seed)]
        subprocess.run([sys.executable, "-m", "training", *command, *options], check=True)
        newest = max(Path("measured", f"{name}-{seed}").iterdir(), key=lambda folder: int(folder.name))
        found.append(json.loads((newest / "model.json").read_bytes())["metrics"])
    return found


def row(name: str, found: Sequence[dict[str, float]]) -> str:
    """Return a row of the table: mean and range over the seeds of each metric."""
    cells = []
    for key in sorted(found[0]):
        if key.endswith(("_accuracy", "_macro_f1", "_log_loss")):
            values = [one[key] for one in found if key in one]
            cells.append(f"{key} {fmean(values):.4g} ({min(values):.4g} to {max(values):.4g})")
    return f"| {name} | {'; '.join(cells)} |"


def main(files: Sequence[Path]) -> None:
    """Measure everything and print the table."""
    runs: dict[str, list[str]] = {}
    write_activities(Path("activities.csv"))
    write_sentences(Path("sentences.tsv"))
    for name in sorted({file.name.rpartition("_")[0] for file in files}):
        write_ts([file for file in files if file.name.startswith(f"{name}_")], Path(f"{name}.csv"))
    for path in sorted(Path().glob("*.csv")):
        for direction in ("forward", "both"):
            command = ["series", str(path), "--target", "label", "--direction", direction]
            runs[f"{path.stem}-{direction}"] = command
    for units in ("words", "pieces"):
        for direction in ("both", "forward"):
            command = ["label", "sentences.tsv", "--units", units, "--direction", direction, "--epochs", "8"]
            runs[f"sentences-{units}-{direction}"] = command
    rows = [row(name, measured(command, name)) for name, command in runs.items()]
    print("\n".join(["| run | mean (least to most) of the seeds |", "| --- | --- |", *rows]))


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
