"""Latency plots in the terminal."""

from collections.abc import Sequence

import plotext

from seqserve.bench.histogram import Histogram
from seqserve.bench.result import Result

HEIGHT = 18
MAX_WIDTH = 100
# The slowest 0.5 % are left out, because they would compress the rest of the curve.
_SHARES = [number / 200 for number in range(1, 200)]


def draw_latencies(latency: Histogram, *, width: int, colors: bool) -> str:
    """Draw the share of answers over the latency.

    Args:
        latency: Latencies in seconds; not empty.
        width: Width of the terminal in columns.
        colors: Whether to emit escape sequences for colors.

    Returns:
        Lines of text.
    """
    _prepare("share of answers (%) within so many milliseconds", width)
    _line([1000 * latency.quantile(share) for share in _SHARES], [100 * share for share in _SHARES], "cyan")
    return _text(colors)


def draw_sweep(results: Sequence[Result], *, width: int, colors: bool) -> str:
    """Draw the median and the 99th percentile of the latency over the rate or concurrency.

    Args:
        results: One or more results that have answers.
        width: Width of the terminal in columns.
        colors: Whether to emit escape sequences for colors.

    Returns:
        Lines of text.
    """
    is_closed = results[0].plan.rate is None
    _prepare(f"milliseconds by {'concurrency' if is_closed else 'requests/s'}: p99 above p50", width)
    loads = [
        float(result.plan.concurrency if result.plan.rate is None else result.plan.rate) for result in results
    ]
    for level, color in ((0.99, "magenta"), (0.5, "cyan")):
        _line(loads, [1000 * result.record.latency.quantile(level) for result in results], color)
    return _text(colors)


def _prepare(title: str, width: int) -> None:
    figure = plotext.figure
    figure.clear()
    figure.theme("simple")
    figure.canvas("default")
    figure.plot_size(min(width, MAX_WIDTH), HEIGHT)
    figure.title(title)


def _line(x: Sequence[float], y: Sequence[float], color: str) -> None:
    signal = plotext.figure.signal(list(x), list(y), marker=plotext.marker("braille", color))
    signal.lines()
    plotext.figure.draw(signal)


def _text(colors: bool) -> str:
    return str(plotext.figure.build().string(colorless=not colors))
