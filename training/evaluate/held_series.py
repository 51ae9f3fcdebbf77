"""Scores versions of the recipes stock and forecast: pinball loss over the held-out steps of a series."""

import hashlib
import json
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from training.data import series
from training.data.forecasting import with_calendar
from training.data.observations import Gaps
from training.data.sources import GOOG, Source
from training.evaluate.scorer import Choices, Floats, Loss
from training.evaluate.version import Version
from training.export.chunks import ChunkCell
from training.export.pictures import Fans
from training.recipes import stock

# Forecasts of neighbouring days overlap; blocks of so many are drawn together.
DAYS_A_BLOCK = 20
DAYS_SHOWN = 120


@dataclass(frozen=True, slots=True)
class HeldSeries:
    """A whole series, with the place where it was cut."""

    history: series.History

    @property
    def sha256(self) -> str:
        """Return the hash of the held-out values."""
        held = json.dumps(self.history.values[self.history.held_out :].tolist())
        return hashlib.sha256(held.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{len(self.history.values) - self.history.held_out:,} steps"


class SeriesScorer:
    """Scores forecasters."""

    option = "--csv"

    @property
    def shipped(self) -> Source:
        """Return the prices of GOOG."""
        return GOOG

    def held_out(self, version: Version, source: Source, choices: Choices) -> HeldSeries:
        """Return the series, cut where the recipe cut it."""
        table = series.choose(
            source,
            choices["columns"].split(","),
            choices["target"],
            choices["prices"].split(",") if choices.get("prices") else None,
            choices["dates"],
            date_format=choices.get("date_format", ""),
            gaps=cast(Gaps, choices.get("gaps", "refuse")),
            held_out_from=choices.get("held_out_from", ""),
            allows_future=True,  # training has accepted its dates; a clock may have been set back since
        )
        found = series.read_series(table)
        forecast = version.model.forecasting
        has_calendar = forecast is not None and forecast.calendar != ""
        return HeldSeries(with_calendar(found) if has_calendar else found.history)

    def losses(self, version: Version, part: HeldSeries, variant: spec.Variant) -> list[Loss]:
        """Return the pinball loss of each step, from shortest and from longest windows."""
        cell = version.cell(variant)
        return [_pinball(version, cell, part.history, length) for length in _windows(version)]

    def evidence(self, version: Version, part: HeldSeries) -> Fans:
        """Return forecasts beside what came."""
        return _fans(version, version.cell(), part.history)


class Forecasts(NamedTuple):
    """Quantile forecasts of each held-out day with a whole horizon of known values after it.

    Attributes:
        days: (D,), the last observation of each window.
        quantiles: (D, horizon, levels), in the target's unit, rising.
        future: (D, horizon), what came.
    """

    days: NDArray[np.int64]
    quantiles: Floats
    future: Floats


def forecasts(version: Version, cell: ChunkCell, history: series.History, length: int) -> Forecasts:
    """Forecast from windows of at most so many observations."""
    forecast = version.model.forecasting
    assert forecast is not None
    days = np.arange(history.held_out - 1, len(history.values) - forecast.horizon)
    outputs = stock.served_outputs(cell, history, forecast, stock.Windows(days, np.full(len(days), length)))
    kind = forecast.column(forecast.target).transform
    target = history.values[:, series.target_index(forecast)]
    moved = (
        series.transformed(target[days], kind)[:, None, None]
        + outputs.double().numpy() * np.array(forecast.scales)[:, None]
    )
    in_unit = np.exp(moved) if kind == "log" else moved
    future = target[days[:, None] + np.arange(1, forecast.horizon + 1)]
    return Forecasts(days, np.sort(in_unit, axis=2), future)


def _windows(version: Version) -> tuple[int, ...]:
    """Return the lengths of the windows that a version is measured on: of the recipe forecast its own."""
    own = (version.model.provenance.choices or {}).get("window")
    return (int(own),) if own else (series.LEAST_OBSERVATIONS, stock.LONGEST_WINDOW)


def _pinball(version: Version, cell: ChunkCell, history: series.History, length: int) -> Loss:
    forecast = version.model.forecasting
    assert forecast is not None
    _, quantiles, future = forecasts(version, cell, history, length)
    error = future[:, :, None] - quantiles
    levels = np.array(forecast.quantiles)
    losses = np.maximum(levels * error, (levels - 1) * error).mean(axis=(1, 2))
    unit = forecast.column(forecast.target).unit
    return Loss(f"pinball loss, last {length}{f', {unit}' if unit else ''}", losses, DAYS_A_BLOCK, ".4f")


def _fans(version: Version, cell: ChunkCell, history: series.History) -> Fans:
    forecast = version.model.forecasting
    assert forecast is not None
    days, quantiles, _ = forecasts(version, cell, history, _windows(version)[-1])
    first = max(0, len(days) - DAYS_SHOWN)
    # One forecast ends where the next begins.
    chosen = range(first, len(days), forecast.horizon + 1)
    unit = forecast.column(forecast.target).unit
    truth = history.values[days[first] :, series.target_index(forecast)]
    return Fans(
        target=f"{forecast.target}{f', {unit}' if unit else ''}",
        share=round(100 * (forecast.quantiles[-1] - forecast.quantiles[0])),
        first=first,
        truth=truth.tolist(),
        starts=[index - first for index in chosen],
        low=quantiles[chosen, :, 0].tolist(),
        median=quantiles[chosen, :, forecast.quantiles.index(0.5)].tolist(),
        high=quantiles[chosen, :, -1].tolist(),
    )
