"""Write README.md's part on speed from the results: `python -m tools.speed_table`, or `make docs`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "README.md"
RESULTS: Final = ROOT / "benchmarks" / "results" / "results.json"
BEGIN: Final = "<!-- begin: speed, written by tools/speed_table.py -->"
END: Final = "<!-- end: speed -->"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: a claim of a row of the benchmarks.

    Attributes:
        row: the row's name.
        claim: the claim's text in results.json.
        what: what is measured.
        against: what it is divided by, or the direction of the ratio.
    """

    row: str
    claim: str
    what: str
    against: str


_TEXTS: Final = "texts of mixed lengths"
_UNARY: Final = f"{_TEXTS}, unary ModelInfer, 64 in flight"
_SHORT: Final = "p99 of texts of <= 20 tokens"
_LARGE, _SMALL = "64 streams of text, 2 x 512 LSTM", "64 streams of text, 1 x 128 LSTM"
_BEST: Final = "Triton's best form"
_INVERSE: Final = f"{_BEST}, *ours / its time*"

LINES: Final[Sequence[Line]] = (
    Line("P1", "P1: ours / Triton's best", _UNARY, f"{_BEST}, sorted inside its model"),
    Line("P1", "P1: ours / Triton's usual form", _UNARY, "Triton's usual form, padded"),
    Line("P1", f"P2: {_SHORT}: Triton's best / ours", f"{_SHORT} there", f"{_BEST}, its time / ours"),
    Line(
        "P1", "P2: p99 of all texts: ours / Triton's best", "p99 of all there", f"{_BEST}, *ours / its time*"
    ),
    Line("P3", "P3: ours / Triton's best", "tiny forecasts, unary ModelInfer, 32 in flight", _BEST),
    Line("P3", "P3: p99: ours / Triton's best", "p99 there", _INVERSE),
    Line(
        "P4",
        "P4: ForecastStream / Triton's ModelStreamInfer",
        "tiny forecasts in 32 streams",
        f"{_BEST}, ModelStreamInfer",
    ),
    Line("P5", "P5: Generate / Triton's best", _LARGE, f"{_BEST}, continuous batching"),
    Line("P5", "P5: Generate / Triton, a message a character", _LARGE, "the same, a message a character"),
    Line("P5s", "P5: Generate / Triton's best", _SMALL, f"{_BEST}, continuous batching"),
    Line("P5s", "P5: Generate / Triton, a message a character", _SMALL, "the same, a message a character"),
    Line(
        "S1",
        "engine / FIFO batches of 32, padded",
        f"{_TEXTS}, engine in process",
        "FIFO batches of 32, padded",
    ),
    Line(
        "S1",
        "engine / sorted offline, batches of 32",
        f"{_TEXTS}, engine in process",
        "batches of 32 sorted by length beforehand, more than a server can know",
    ),
    Line("S1", "engine / PyTorch packed", f"{_TEXTS}, engine in process", "PyTorch on packed sequences"),
    Line(
        "S2",
        "ours / FIFO server, both gRPC, 1 text a message",
        f"{_TEXTS} through gRPC, one text a message",
        "a FIFO server of the same interface",
    ),
    Line(
        "S3",
        f"{_SHORT}: FIFO server / ours",
        f"{_SHORT} at 70 % of that server's capacity",
        "the same server, its time / ours",
    ),
    Line(
        "S4",
        "through gRPC / bare loop",
        f"{_LARGE}, through gRPC",
        "a bare onnxruntime loop with the same sampler, in process",
    ),
    Line(
        "S9",
        "(b) 2 engines, one session of 1 thread / one core",
        f"{_TEXTS}, two cores",
        "one core",
    ),
)


def speed_part(results: Mapping[str, Any]) -> str:
    """Return the part of the page: where it was measured, the table, start and memory.

    Lines of rows that the results do not have are left out: they are of a run without them.

    Raises:
        ValueError: a row has no claim of a line's text.
    """
    rows = {row["name"]: row for row in results["rows"]}
    machine = results["machine"]
    lines = [
        f"Measured by `make bench` on {machine['date'][:10]} at commit {machine['commit']}, on "
        f"{machine['cores']} cores ({machine['CPU']}): the server on one",
        "of them, the load generator on another. Medians of ratios, each taken within one round, with the "
        "least and the most. Above 1 ours is",
        "ahead, but where the line says *ours / its time*. Triton in its best form is what a capable user "
        "would write; `make bench-peers`",
        "builds it and measures against it. All rows, loads and baselines, and what fell short: "
        "[benchmarks/results](benchmarks/results/results.md).",
        "",
        "| what | against | ratio |",
        "| --- | --- | --- |",
        *_table(rows),
        "",
        *_footprint(rows),
    ]
    return "\n".join(lines).rstrip("\n")


def _table(rows: Mapping[str, Row]) -> Iterator[str]:
    before = ""
    for line in LINES:
        if (row := rows.get(line.row)) is None:
            continue
        cell = f"not measured: {row['trouble']}" if row["trouble"] else _ratio(_claim(row, line.claim))
        yield f"| {'' if line.what == before else line.what} | {line.against} | {cell} |"
        before = line.what


def _footprint(rows: Mapping[str, Row]) -> Iterator[str]:
    """Say how fast the server starts and what it holds, where both were measured."""
    if all(name in rows and not rows[name]["trouble"] for name in ("start", "memory")):
        start = _claim(rows["start"], "process start to SERVING, three models")["median"]
        memory = _claim(rows["memory"], "peak resident memory, all three models under load")["median"]
        yield (
            f"At that commit the server was ready {start:.1f} s after its process started, and held three "
            f"models in {memory:.0f} MiB under load."
        )


def _claim(row: Row, what: str) -> Mapping[str, Any]:
    for claim in row["claims"]:
        if claim["what"] == what:
            found: Mapping[str, Any] = claim
            return found
    raise ValueError(f"expected row {row['name']} to have the claim {what!r}, found none: see LINES")


def _ratio(claim: Mapping[str, Any]) -> str:
    """Return the median with the least and the most; by CPU time where the benchmark decides by that."""
    if claim["doubt"] and claim["by_cpu"] is not None:
        return f"{_short(claim['by_cpu'])} by CPU time: {claim['doubt']}"
    values = f" ({_short(claim['least'])} to {_short(claim['most'])})" if len(claim["values"]) > 1 else ""
    return f"{_short(claim['median'])}{values}"


def _short(value: float) -> str:
    return f"{value:.3g}" if value >= 10 else f"{value:.2f}"


def with_speed(text: str, results: Mapping[str, Any]) -> str:
    """Return the page's text with its part on speed made from the results.

    Raises:
        ValueError: a marker is missing.
    """
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:begin]}\n{speed_part(results)}\n{text[end:]}"


def read_results() -> Mapping[str, Any]:
    """Return the results of the last full run."""
    found: Mapping[str, Any] = json.loads(RESULTS.read_text())
    return found


if __name__ == "__main__":
    PAGE.write_text(with_speed(PAGE.read_text(), read_results()))
