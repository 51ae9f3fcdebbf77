"""Interface of forecasting."""

from collections.abc import Mapping

import numpy as np

from service.api.open_inference.interfaces.interface import FLOAT_BYTES, Interface, Outcome
from service.api.open_inference.interfaces.values import require, rows_of, tensor_errors
from service.api.open_inference.parameters import Parameters
from service.api.open_inference.tensors import Tensor, TensorSpec
from service.engine.request import Caller
from service.errors import InvalidArgument
from service.models.loading import Served
from service.tasks.forecasting import MAX_LISTED_OBSERVATIONS, ForecastingTask, Observations


class ForecastingInterface(Interface):
    """Maps series to forecast values and quantiles."""

    parameters = ("horizon",)

    def __init__(self, served: Served) -> None:
        assert isinstance(served.task, ForecastingTask)
        assert served.spec.forecasting is not None
        self._task = served.task
        details = served.spec.forecasting
        self.inputs = (
            TensorSpec("input", "FP32", ("n", "time", len(details.columns))),
            TensorSpec("lengths", "INT32", ("n",)),
        )
        self.outputs = (
            TensorSpec("value", "FP32", ("n", "horizon")),
            TensorSpec("quantiles", "FP32", ("n", "horizon", len(details.quantiles))),
        )
        self.limits = limits = self._task.limits
        self.max_sizes = {"n": limits.items, "time": limits.observations}
        self.properties = {
            "columns": [column.name for column in details.columns],
            "target": details.target,
            "horizon": details.horizon,
            "quantiles": details.quantiles,
            "least_observations": details.least_observations,
        }

    def answer_bytes(self, output: str, rows: int, parameters: Parameters) -> int:
        """Return the bytes of the medians, or of all quantiles."""
        steps = min(parameters.whole("horizon", 32) or self._task.horizon, self._task.horizon)
        return FLOAT_BYTES * rows * steps * (1 if output == "value" else self._task.num_quantiles)

    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """Forecast each row."""
        require("input", tensors)
        horizon = parameters.whole("horizon", 32) or 0
        with tensor_errors():
            forecasts = await self._task.forecast(_series(tensors), horizon, (), caller)
        steps = forecasts[0].selection.steps
        with np.errstate(over="ignore"):
            numbers = (
                np.array([forecast.numbers for forecast in forecasts])
                .reshape(len(forecasts), steps, -1)
                .astype(np.float32)
            )
        if len(wrong := np.argwhere(~np.isfinite(numbers))):
            index = wrong[0][0]
            raise InvalidArgument(
                f"input[{index}]",
                f"expected a last value whose forecast fits 32 bits, found {forecasts[index].last_value}",
            )
        return Outcome({"value": numbers[:, :, 0], "quantiles": numbers[:, :, 1:]})


def _series(tensors: Mapping[str, Tensor]) -> list[Observations]:
    """Return the rows of `input` as the observations of series."""
    rows = rows_of(tensors)
    if sum(map(len, rows)) <= MAX_LISTED_OBSERVATIONS:
        return [one.tolist() for one in rows]
    return [one.astype(np.float64) for one in rows]
