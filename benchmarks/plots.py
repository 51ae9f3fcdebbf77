"""A run's results as pictures, one PNG a question."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import Report, RowResult
from benchmarks.rounds import Verdict

_SIZE = (8.0, 4.5)
_DPI = 110
_FAR = 8.0
_TICKS = (0.125, 0.25, 0.5, 0.75, 1, 1.5, 2, 4, 8)
_OURS, _OTHERS = "#1f77b4", "#b0b0b0"


def write(report: Report, folder: Path) -> list[Path]:
    """Draw what the report holds; rows that were not measured are left out."""
    rows = {row.name: row for row in report.rows if not row.trouble}
    drawn: list[Path] = []
    if any(verdict.claim.target is not None for row in rows.values() for verdict in row.verdicts):
        drawn.append(_save(folder / "promises.png", partial(_promises, list(rows.values()))))
    for name, (file, draw) in _PLOTS.items():
        if name in rows:
            drawn.append(_save(folder / file, partial(draw, rows[name])))
    return drawn


def _save(path: Path, draw: Callable[[Axes], None]) -> Path:
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    draw(figure.add_subplot())
    figure.savefig(path)
    return path


def _promises(rows: Sequence[RowResult], axes: Axes) -> None:
    """Every number with a target, divided by it, so that 1 is the target and right of it is better; what is
    far off stands at the edge.
    """
    lines = [
        (row.name, verdict) for row in rows for verdict in row.verdicts if verdict.claim.target is not None
    ][::-1]
    for place, (_, verdict) in enumerate(lines):
        shares = [
            min(max(_share(verdict, value), 1 / _FAR), _FAR)
            for value in (min(verdict.values), verdict.median, max(verdict.values))
        ]
        colour = "#2ca02c" if verdict.is_met else "#d62728"
        axes.plot([shares[0], shares[2]], [place, place], color=colour, linewidth=1)
        axes.plot(shares[1], place, "o", color=colour)
    axes.set_xscale("log")
    axes.set_xlim(0.9 / _FAR, 1.1 * _FAR)
    axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.minorticks_off()
    axes.set_yticks(
        range(len(lines)), [f"{name}  {verdict.claim.what}" for name, verdict in lines], fontsize=6
    )
    axes.axvline(1.0, color="black", linewidth=1)
    axes.grid(alpha=0.3)
    axes.set_xlabel("measured / target (of upper bounds: target / measured)")
    axes.set_title("Promises: median, least and most of the rounds; right of 1 is kept")


def _horizontal(axes: Axes, values: Sequence[Sequence[float]], colours: list[str]) -> None:
    """A bar a line up to its median, from the bottom up, with a whisker from least to most."""
    middles = [median(one) for one in values]
    below = [middle - min(one) for middle, one in zip(middles, values, strict=True)]
    above = [max(one) - middle for middle, one in zip(middles, values, strict=True)]
    axes.barh(
        range(len(values)),
        middles,
        color=colours,
        xerr=[below, above],
        error_kw={"ecolor": "#404040", "capsize": 2},
    )


def _is_ours(contestant: str) -> bool:
    return contestant.startswith(("engine", "ours", "gRPC", "through", "Forecast"))


def _share(verdict: Verdict, value: float) -> float:
    target = verdict.claim.target
    assert target is not None, "expected a claim with a target"
    return target / value if verdict.claim.is_at_most and value > 0 else value / target


def _bars(row: RowResult, axes: Axes) -> None:
    names = list(row.contestants)[::-1]
    _horizontal(
        axes,
        [row.contestants[name].values for name in names],
        [_OURS if _is_ours(name) else _OTHERS for name in names],
    )
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(row.unit)
    axes.set_title(row.title)


def _by_number(row: RowResult) -> list[int]:
    return [int(name) for name in row.contestants]


def _line(row: RowResult, axes: Axes, x_label: str) -> None:
    found = list(row.contestants.values())
    axes.plot(_by_number(row), [one.median for one in found], marker="o", color=_OURS)
    axes.fill_between(
        _by_number(row),
        [min(one.values) for one in found],
        [max(one.values) for one in found],
        alpha=0.2,
        color=_OURS,
    )
    axes.set_xscale("log")
    axes.set_xticks(_by_number(row), list(row.contestants))
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(row.unit)
    axes.set_title(row.title)
    axes.grid(alpha=0.3)


def _slots(row: RowResult, axes: Axes) -> None:
    _line(row, axes, "slots")


def _lengths(row: RowResult, axes: Axes) -> None:
    _line(row, axes, "length of every sequence, steps")


def _streams(row: RowResult, axes: Axes) -> None:
    for note in (
        "first token p50 ms",
        "first token p99 ms",
        "between tokens p50 ms",
        "between tokens p99 ms",
    ):
        style = "-" if "p50" in note else "--"
        axes.plot(
            _by_number(row),
            [one.notes[note] for one in row.contestants.values()],
            style,
            marker="o",
            label=note.removesuffix(" ms"),
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(_by_number(row), list(row.contestants))
    axes.minorticks_off()
    axes.set_xlabel("streams")
    axes.set_ylabel("ms")
    axes.set_title(row.title)
    axes.grid(alpha=0.3)
    axes.legend()


def _ticks(row: RowResult, axes: Axes) -> None:
    kinds: dict[str, list[tuple[int, float]]] = {}
    for name, one in row.contestants.items():
        kind, _, rows = name.partition(", ")
        kinds.setdefault(kind, []).append((int(rows.split()[0]), one.median))
    for kind, points in kinds.items():
        axes.plot([rows for rows, _ in points], [us for _, us in points], marker="o", label=kind)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rows in a tick")
    axes.set_ylabel(row.unit)
    axes.set_title(row.title)
    axes.grid(alpha=0.3)
    axes.legend()


_PLOTS: Mapping[str, tuple[str, Callable[[RowResult, Axes], None]]] = {
    "S1": ("classification.png", _bars),
    "S1r": ("reviews.png", _bars),
    "S4": ("generation.png", _bars),
    "S10": ("forecasts.png", _bars),
    "streams": ("streams.png", _streams),
    "slots": ("slots.png", _slots),
    "lengths": ("lengths.png", _lengths),
    "ticks": ("ticks.png", _ticks),
}
