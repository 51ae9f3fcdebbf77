"""Forecast plots in the terminal."""

from collections.abc import Sequence

import plotext

from seqserve.results import Forecast

HEIGHT = 18
MAX_WIDTH = 100


def draw_forecast(
    history: Sequence[float], forecast: Forecast, *, width: int, subject: str, colors: bool
) -> str:
    """Draw the observed values of the target, then the median and the outermost quantiles.

    Args:
        history: Observed values, oldest first, including the last one.
        forecast: The forecast after them.
        width: Width of the terminal in columns.
        subject: Name and unit of the target; may be empty.
        colors: Whether to emit escape sequences for colors.

    Returns:
        Lines of text.
    """
    figure = plotext.figure
    figure.clear()
    figure.theme("simple")
    figure.canvas("default")
    figure.plot_size(min(width, MAX_WIDTH), HEIGHT)
    figure.title(_title(subject, forecast))  # a legend would cover part of the plot
    figure.ruler("x", "lower").ticks(
        [1 - len(history), 0, len(forecast.steps)], [str(1 - len(history)), "now", f"+{len(forecast.steps)}"]
    )
    _draw(range(1 - len(history), 1), history, "braille", "cyan")
    ahead = range(len(forecast.steps) + 1)  # from step 0, the last observation, where all lines meet
    for position in sorted({0, len(forecast.steps[0].quantiles) - 1} if forecast.steps[0].quantiles else ()):
        edge = [
            sorted(step.quantiles, key=lambda quantile: quantile.level)[position] for step in forecast.steps
        ]
        _draw(ahead, [forecast.last_value, *(quantile.value for quantile in edge)], "·", "magenta")
    _draw(ahead, [forecast.last_value, *(step.value for step in forecast.steps)], "braille", "yellow")
    return str(figure.build().string(colorless=not colors))


def _title(subject: str, forecast: Forecast) -> str:
    levels = sorted(quantile.level for quantile in forecast.steps[0].quantiles)
    band = f", {100 * levels[0]:g} % to {100 * levels[-1]:g} %" if len(levels) > 1 else ""
    return f"{subject or 'observed'}, then the median{band}"


def _draw(steps: Sequence[int], values: Sequence[float], symbol: str, color: str) -> None:
    signal = plotext.figure.signal(list(steps), list(values), marker=plotext.marker(symbol, color))
    signal.lines()
    plotext.figure.draw(signal)
