"""Forecasts as a model of Triton's Python backend: one vectorised run for all requests of a batch.

Runs in Triton's stub. Inputs and outputs are those of docs/open-inference.md, of one series each: `input`
FP32 [1, time, columns]; `value` FP32 [1, horizon] and `quantiles` FP32 [1, horizon, levels].
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from benchmarks.models import read_model
from benchmarks.peers.series import SeriesForecaster


class Forecasts:
    """Forecasts a batch of series of one length: Triton batches requests of one shape alone."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._forecaster = SeriesForecaster(read_model(Path(parameters["folder"]["string_value"])))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests together."""
        given = [pb_utils.get_input_tensor_by_name(request, "input").as_numpy() for request in requests]
        values, quantiles = self._forecaster.forecast(np.concatenate(given))
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor("value", values[row : row + 1]),
                    pb_utils.Tensor("quantiles", quantiles[row : row + 1]),
                ]
            )
            for row in range(len(requests))
        ]
