"""Forecasts batches of series of one length with bare onnxruntime and numpy. Knows nothing of Triton."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.graph import Graph
from benchmarks.models import Model, empty_state

MAX_ROWS = 64


class SeriesForecaster:
    """One forecasting model.

    Args:
        model: whose spec has the section forecasting.
    """

    def __init__(self, model: Model) -> None:
        section = model.spec.forecasting
        assert section is not None, "expected a forecasting model"
        self._graph = Graph(model)
        names = [column.name for column in section.columns]
        self._is_log = np.array([column.transform == "log" for column in section.columns])
        self._references = [names.index(column.reference) for column in section.columns]
        self._scales = np.array([column.scale for column in section.columns])
        self._target = names.index(section.target)
        self._step_scales = np.array(section.scales)[:, None]  # (H, 1)
        self._median = section.quantiles.index(0.5)
        self._shape = (section.horizon, len(section.quantiles))
        # Zeros that are only read, and a place for states that nobody wants: made once.
        self._before, self._after = empty_state(model, MAX_ROWS), empty_state(model, MAX_ROWS)
        self._firsts = np.arange(MAX_ROWS)

    def forecast(self, series: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Forecast series side by side.

        Args:
            series: float32 (B, T, C), oldest observation first, B at most 64.
        Returns:
            Medians float32 (B, H) and quantiles float32 (B, H, Q).
        """
        rows, steps, _ = series.shape
        levels = self._levels(series.astype(np.float64))  # (B, T, C)
        earlier = np.concatenate([levels[:, :1], levels[:, :-1]], axis=1)[:, :, self._references]
        # The graph reads it by address, and numpy may have laid out a selection of columns by columns.
        features = np.ascontiguousarray((levels - earlier) / self._scales, np.float32)
        ends = self._firsts[:rows] * steps + steps - 1
        outputs = np.empty((rows, self._shape[0] * self._shape[1]), np.float32)
        before, after = [one[:rows] for one in self._before], [one[:rows] for one in self._after]
        self._graph.bind(features, np.full(rows, steps, np.int32), before, ends, outputs, after).run()
        changes = outputs.reshape(rows, *self._shape) * self._step_scales  # (B, H, Q)
        values = levels[:, -1, self._target, None, None] + changes
        if self._is_log[self._target]:
            values = np.exp(values)
        quantiles = np.sort(values, axis=2).astype(np.float32)
        return np.ascontiguousarray(quantiles[:, :, self._median]), quantiles

    def _levels(self, series: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithms of the columns that the model takes them of, and the others as they are."""
        return np.where(self._is_log, np.log(np.where(self._is_log, series, 1.0)), series)
