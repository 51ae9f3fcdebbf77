"""Interface of forecasting."""

import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from service.api.open_inference.interfaces.interface import FLOAT_BYTES, Outcome, StatefulInterface, num_rows
from service.api.open_inference.interfaces.values import require, rows_of, tensor_errors
from service.api.open_inference.parameters import Parameters
from service.api.open_inference.tensors import Encoded, Tensor, TensorSpec
from service.engine.request import Caller
from service.errors import InvalidArgument
from service.models.loading import Served
from service.tasks.forecasting import MAX_LISTED_OBSERVATIONS, Forecast, ForecastingTask, Observations
from service.tasks.limits import Limits

# Bytes of a column's level, which a series keeps beside its recurrent state.
_LEVEL_BYTES: Final = 8


class ForecastingInterface(StatefulInterface):
    """Maps series to forecast values and quantiles; a sequence is a series that comes in several requests."""

    parameters = ("horizon",)

    def __init__(self, served: Served) -> None:
        assert isinstance(served.task, ForecastingTask)
        assert served.spec.forecasting is not None
        self._task = served.task
        self._details = details = served.spec.forecasting
        self.inputs = (
            TensorSpec("input", "FP32", ("n", "time", len(details.columns))),
            TensorSpec("lengths", "INT32", ("n",)),
        )
        self.outputs = (
            TensorSpec("value", "FP32", ("n", "horizon")),
            TensorSpec("quantiles", "FP32", ("n", "horizon", len(details.quantiles))),
        )
        limits = self.limits
        self.max_sizes = {"n": limits.items, "time": limits.observations}
        widths = sum(state.size for state in served.spec.network.states)
        self.state_bytes = FLOAT_BYTES * widths + _LEVEL_BYTES * len(details.columns)

    @property
    def limits(self) -> Limits:
        """Sizes of requests and answers, those of the task."""
        return self._task.limits

    @property
    def properties(self) -> Mapping[str, object]:
        """Meaning of the tensors, for the metadata."""
        return {
            "columns": [column.name for column in self._details.columns],
            "target": self._details.target,
            "horizon": self._details.horizon,
            "quantiles": self._details.quantiles,
            "least_observations": self._details.least_observations,
        }

    def answer_bytes(
        self, outputs: Collection[str], tensors: Mapping[str, Tensor], parameters: Parameters
    ) -> int:
        """Return the bytes of the medians, and of all quantiles."""
        steps = min(parameters.whole("horizon", 32) or self._task.horizon, self._task.horizon)
        numbers = {"value": 1, "quantiles": self._task.num_quantiles}
        return FLOAT_BYTES * num_rows(tensors) * steps * sum(numbers[name] for name in outputs)

    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """Forecast each row."""
        require("input", tensors)
        horizon = parameters.whole("horizon", 32) or 0
        with tensor_errors():
            forecasts = await self._task.forecast(_series(tensors), horizon, (), caller)
        return _outcome(forecasts)

    async def advance(
        self, state: Any, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller
    ) -> tuple[Outcome, Any]:
        """Forecast after further observations of one series; a new series needs some to begin with."""
        require("input", tensors)
        selection = self._task.select(parameters.whole("horizon", 32) or 0, ())
        [observations] = _series(tensors)
        with tensor_errors():
            forecast, after = await self._task.advance(state, observations, selection, caller)
        return _outcome([forecast]), after


def _outcome(forecasts: Sequence[Forecast]) -> Outcome:
    """Return the response of forecasts that have the same steps and quantiles.

    Raises:
        InvalidArgument: a number does not fit 32 bits.
    """
    if len(forecasts) > 1:
        return _outcome_of_many(forecasts)
    [forecast] = forecasts
    steps, numbers = forecast.selection.steps, forecast.numbers
    stride = len(numbers) // steps
    quantiles = list(numbers)
    del quantiles[::stride]
    try:
        value = struct.pack(f"<{steps}f", *numbers[::stride])
        rest = struct.pack(f"<{len(quantiles)}f", *quantiles)
    except OverflowError:
        raise _too_large(0, forecast) from None
    return Outcome({"value": Encoded((1, steps), value), "quantiles": Encoded((1, steps, stride - 1), rest)})


def _outcome_of_many(forecasts: Sequence[Forecast]) -> Outcome:
    """Return the response of several forecasts, as `_outcome` does."""
    steps = forecasts[0].selection.steps
    with np.errstate(over="ignore"):
        numbers = (
            np.array([forecast.numbers for forecast in forecasts])
            .reshape(len(forecasts), steps, -1)
            .astype(np.float32)
        )
    if len(wrong := np.argwhere(~np.isfinite(numbers))):
        index = int(wrong[0][0])
        raise _too_large(index, forecasts[index])
    return Outcome({"value": numbers[:, :, 0], "quantiles": numbers[:, :, 1:]})


def _too_large(index: int, forecast: Forecast) -> InvalidArgument:
    return InvalidArgument(
        f"input[{index}]",
        f"expected a last value whose forecast fits 32 bits, found {forecast.last_value}",
    )


def _series(tensors: Mapping[str, Tensor]) -> list[Observations]:
    """Return the rows of `input` as the observations of series."""
    rows = rows_of(tensors)
    if sum(map(len, rows)) <= MAX_LISTED_OBSERVATIONS:
        return [one.tolist() for one in rows]
    return [one.astype(np.float64) for one in rows]
