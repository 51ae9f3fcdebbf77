"""Draws pictures of a run as small PNG files; the same run gives the same bytes.

It knows numbers alone: no network, no recipe.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from training.loop.checkpoint import Epoch

CURVES_FILE = "training.png"
LABELS_FILE = "labels.png"
FORECAST_FILE = "forecast.png"
# Told apart without colour vision, too (Okabe & Ito).
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"
SIZE = (7.2, 3.6)
DOTS_PER_INCH = 90
COLOURS = 64
# More classes than this get no numbers in their cells, and numbers for names.
MOST_NUMBERED = 10
LONGEST_LABEL = 18


@dataclass(frozen=True, slots=True)
class Labels:
    """Results of a classifier.

    Attributes:
        labels: of the classes.
        counts: texts by true label (rows) and label given.
        confidence, accuracy, texts: of each bin of the confidence that holds texts.
        error: expected calibration error, %.
    """

    labels: list[str]
    counts: list[list[int]]
    confidence: list[float]
    accuracy: list[float]
    texts: list[int]
    error: float


@dataclass(frozen=True, slots=True)
class LabelledParts(Labels):
    """Results of a classifier of something other than texts.

    Attributes:
        parts: what was labelled, in the plural: windows, words.
    """

    parts: str


@dataclass(frozen=True, slots=True)
class Fans:
    """Forecasts beside what came, over held-out days.

    Attributes:
        target: what is forecast, with its unit.
        share: of what comes that should lie inside, %.
        first: number of the first day shown, 1 being the first held out.
        truth: by day.
        starts: days, 0 being the first shown, after which a forecast begins.
        low, median, high: by start and step ahead.
    """

    target: str
    share: int
    first: int
    truth: list[float]
    starts: list[int]
    low: list[list[float]]
    median: list[list[float]]
    high: list[list[float]]


def curves(history: Sequence[Epoch]) -> bytes:
    """Draw training and development loss by epoch; the epoch kept is marked."""
    figure, axes = _figure(1)
    epochs = range(1, len(history) + 1)
    develop = [epoch.develop for epoch in history]
    best = min(range(len(history)), key=develop.__getitem__)
    axes[0].plot(
        epochs,
        [epoch.train for epoch in history],
        "o-",
        color=GREY,
        markersize=3,
        label="training (with dropout)",
    )
    axes[0].plot(epochs, develop, "o-", color=BLUE, markersize=3, label="development")
    axes[0].plot(
        [best + 1],
        [develop[best]],
        "o",
        color=ORANGE,
        markersize=8,
        fillstyle="none",
        label=f"kept: epoch {best + 1}, {develop[best]:.4f}",
    )
    axes[0].set(xlabel="epoch", ylabel="loss")
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(frameon=False)
    return _png(figure)


def labels(found: Labels) -> bytes:
    """Draw the confusion matrix, and accuracy by confidence."""
    parts = found.parts if isinstance(found, LabelledParts) else "texts"
    figure, (left, right) = _figure(2)
    is_crowded = len(found.labels) > MOST_NUMBERED
    shares = [[count / max(1, sum(row)) for count in row] for row in found.counts]
    left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if not is_crowded:
        names = [_plain(name) for name in found.labels]
        left.set_xticks(range(len(names)), names, rotation=30 if len(names) > 2 else 0)
        left.set_yticks(range(len(names)), names)
    left.set(xlabel="label given", ylabel="true label", title=f"held-out {parts}")
    if not is_crowded:
        for row, counts in enumerate(found.counts):
            for column, count in enumerate(counts):
                colour = "white" if shares[row][column] > 0.5 else "black"
                left.text(
                    column,
                    row,
                    f"{count:,}\n{100 * shares[row][column]:.0f} %",
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=8,
                )
    right.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="calibrated")
    right.scatter(
        found.confidence,
        found.accuracy,
        [8 + 200 * count / sum(found.texts) for count in found.texts],
        color=BLUE,
        label=f"{parts}, by area",
    )
    right.plot(found.confidence, found.accuracy, color=BLUE, linewidth=1)
    right.set(
        xlabel="confidence",
        ylabel="share that is right",
        title=f"calibration error {found.error:.1f} %",
        ylim=(0, 1.02),
    )
    right.set_xlim(max(0, min(found.confidence) - 0.1), 1.02)
    right.legend(frameon=False, loc="lower right")
    return _png(figure)


def fans(found: Fans) -> bytes:
    """Draw what came, and forecasts with their intervals, one every few days."""
    figure, axes = _figure(1)
    axes[0].plot(
        range(found.first, found.first + len(found.truth)),
        found.truth,
        color="black",
        linewidth=1,
        label="what came",
    )
    for index, (start, low, median, high) in enumerate(
        zip(found.starts, found.low, found.median, found.high, strict=True)
    ):
        steps = range(found.first + start, found.first + start + len(low) + 1)
        last = found.truth[start]
        axes[0].fill_between(
            steps,
            [last, *low],
            [last, *high],
            color=BLUE,
            alpha=0.3,
            linewidth=0,
            label="" if index else f"{found.share} % interval",
        )
        axes[0].plot(steps, [last, *median], color=BLUE, linewidth=1, label="" if index else "median")
    axes[0].set(xlabel="step of the held-out part", ylabel=_plain(found.target))
    axes[0].legend(frameon=False)
    return _png(figure)


def _figure(columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(SIZE, dpi=DOTS_PER_INCH, layout="constrained")
    axes = [figure.add_subplot(1, columns, column + 1) for column in range(columns)]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plain(text: str) -> str:
    """Shorten a text, and take the signs of mathematics out of it."""
    return (text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…").replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    written = io.BytesIO()
    with warnings.catch_warnings():
        # The user's labels may be in any script; what the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(written, format="png")
    # A third of the bytes.
    small = io.BytesIO()
    Image.open(written).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
        small, format="png", optimize=True
    )
    return small.getvalue()
