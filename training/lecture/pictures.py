"""Draws the lessons as small PNG files for docs/lecture.md."""

from collections.abc import Callable, Sequence
from functools import singledispatch
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.lecture.dynamic import VOCABULARY, WORDS, Padded
from training.lecture.lesson import Taught
from training.lecture.longseq import EPOCHS as WINDOW_EPOCHS
from training.lecture.longseq import Contest, targets
from training.lecture.recital import EPOCHS, Recital
from training.lecture.stock import CLOSE, Market
from training.writing import replaced

# Told apart without colour vision, too (Okabe & Ito).
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"
RIGHT, WRONG = "#cfe6f5", "#f9d9c4"
DOTS_PER_INCH = 72
SPACE = "␣"
SHOWN_EPOCHS = range(0, 60, 2)
SHOWN_DAYS = 150


def draw(name: str, taught: Taught, folder: Path) -> list[Path]:
    """Draw what a lesson shows, as <name>.png.

    Returns:
        The files written; none for a lesson without a picture.
    Raises:
        WriteError: the folder cannot be written.
    """
    figure = figure_of(taught)
    if figure is None:
        return []
    path = folder / f"{name}.png"
    with replaced(path) as beside:
        # Without the version of matplotlib, the same picture is the same bytes.
        figure.savefig(beside, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return [path]


@singledispatch
def figure_of(taught: object) -> Figure | None:  # noqa: ARG001
    """Return the picture of what was taught; None: numbers are enough."""
    return None


@figure_of.register
def _(taught: Recital) -> Figure:
    """Draw the likeliest letter at every step, epoch by epoch, and the loss."""
    figure, (left, right) = _figure((8.4, 5.4), columns=2)
    predicted = [taught.predicted(epoch).replace(" ", SPACE) for epoch in SHOWN_EPOCHS]
    steps = range(len(taught.text) - 1)
    is_wrong = np.array(
        [
            [one != other for one, other in zip(row, taught.text[1:].replace(" ", SPACE), strict=True)]
            for row in predicted
        ]
    )
    _cells(left, is_wrong, lambda row, step: predicted[row][step])
    left.set_yticks(range(0, len(SHOWN_EPOCHS), 5), [str(epoch) for epoch in SHOWN_EPOCHS[::5]])
    left.set(xlabel="input", ylabel="epoch", title="likeliest next letter")
    left.set_xticks(steps, taught.text[:-1].replace(" ", SPACE))
    right.plot(range(EPOCHS), taught.history.losses, color=BLUE)
    right.axvline(taught.learned_at, color=GREY, linestyle=":")
    right.annotate(
        f" all right from epoch {taught.learned_at} on",
        (taught.learned_at, taught.history.losses[0]),
        color=GREY,
        va="top",
    )
    right.set(xlabel="epoch", ylabel="loss, nats a letter", title="loss")
    return figure


@figure_of.register
def _(taught: Contest) -> Figure:
    """Draw the loss and the windows right of every net by epoch."""
    figure, (left, right) = _figure((8.4, 3.6), columns=2)
    for net in taught.nets:
        colour, stroke = BLUE if net.has_head else ORANGE, "-" if net.layers > 1 else "--"
        left.plot(range(WINDOW_EPOCHS), net.history.losses, color=colour, linestyle=stroke)
        rights = [net.right(epoch) for epoch in range(WINDOW_EPOCHS)]
        right.plot(range(WINDOW_EPOCHS), rights, color=colour, linestyle=stroke, label=net.title)
    left.set(xlabel="epoch", ylabel="loss, nats a letter", title="loss", ylim=(0, None))
    right.set(xlabel="epoch", title=f"windows right, of {len(targets())}", ylim=(0, len(targets()) + 4))
    left.legend(
        *right.get_legend_handles_labels(),
        frameon=False,
        loc="upper right",
        bbox_to_anchor=(1, 0.6),
        fontsize=8,
    )
    return figure


@figure_of.register
def _(taught: Padded) -> Figure:
    """Draw every output of every word."""
    figure, axes = _figure((8.4, 2.9), columns=len(taught.outputs))
    for one, word, outputs in zip(axes, WORDS, taught.outputs, strict=True):
        shades = one.imshow(outputs.numpy(), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
        one.axhline(len(word) - 0.5, color="black", linewidth=1)
        one.set(title=f"length {len(word)}", xlabel="output")
        one.set_xticks(range(len(VOCABULARY)), [*VOCABULARY[:-1], "end"], fontsize=8)
        one.set_yticks(range(len(outputs)), word.ljust(len(outputs), "-"))
    axes[0].set(ylabel="input")
    figure.colorbar(shades, ax=list(axes), fraction=0.03)
    return figure


@figure_of.register
def _(taught: Market) -> Figure:
    """Draw all days with both forecasts, and the last ones closer."""
    figure, (left, right) = _figure((8.4, 3.6), columns=2)
    days = taught.history.eighth
    for axes, part, last in ((left, slice(None), "none"), (right, slice(-SHOWN_DAYS, None), ":")):
        axes.plot(days[part], taught.truth[part], color="black", linewidth=1, label="truth")
        axes.plot(
            days[part], taught.levels.forecast[part], color=ORANGE, linewidth=1, label=taught.levels.title
        )
        axes.plot(
            days[part],
            taught.changes.forecast[part],
            color=BLUE,
            linewidth=1,
            linestyle="--",
            label=taught.changes.title,
        )
        if last != "none":
            axes.plot(
                days[part], taught.naive[part], color=GREY, linewidth=1, linestyle=last, label="last value"
            )
        axes.set(xlabel="day")
    left.axvline(taught.history.train, color=GREY, linewidth=1)
    left.axhline(taught.history.most[CLOSE], color=GREY, linewidth=1, linestyle=":")
    left.set(ylabel="close, USD", title="right of the line: held out")
    right.set(title=f"the last {SHOWN_DAYS} days")
    right.legend(frameon=False, fontsize=8)
    return figure


def _figure(size: tuple[float, float], columns: int) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, columns, squeeze=False)[0]
    return figure, axes


def _cells(
    axes: Axes, is_wrong: np.ndarray[tuple[int, int], np.dtype[np.bool_]], letter: Callable[[int, int], str]
) -> None:
    """Draw a letter in each cell, the first epoch on top; wrong letters have another background."""
    grounds = np.where(is_wrong[..., None], _rgb(WRONG), _rgb(RIGHT))
    axes.imshow(grounds, aspect="auto")
    for row, step in np.ndindex(is_wrong.shape):
        axes.text(step, row, letter(row, step), ha="center", va="center", fontsize=7, family="monospace")


def _rgb(colour: str) -> list[float]:
    return [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
