"""Specs and small networks for tests of forecasting, and an engine that answers as soon as it is asked."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.contract import spec
from service.engine.cell import Shape
from service.engine.request import Row
from service.errors import ModelFailure
from service.runtime import Chunk
from tests.service.engine.fakes import Bench

HORIZON, QUANTILES = 3, [0.1, 0.5, 0.9]
SCALES = [0.5, 1.0, 2.0]
OUTPUTS = HORIZON * len(QUANTILES)


def column(name: str, transform: str, reference: str, scale: float) -> spec.Column:
    return spec.Column.model_validate(
        {"name": name, "unit": "", "transform": transform, "reference": reference, "scale": scale}
    )


def spec_of(columns: list[spec.Column], target: str) -> spec.ForecastSpec:
    return spec.ForecastSpec(
        columns=columns,
        target=target,
        horizon=HORIZON,
        quantiles=QUANTILES,
        scales=SCALES,
        least_observations=2,
    )


MIXED = spec_of(
    [
        column("high", "log", "close", 0.02),
        column("close", "log", "close", 0.01),
        column("mood", "none", "mood", 3.0),
    ],
    "close",
)
PLAIN = spec_of([column("mood", "none", "mood", 1.0)], "mood")


class ConstantCell:
    """A feature network whose head always gives the same output."""

    def __init__(self, output: Sequence[float]) -> None:
        self.output = output

    def bind(self, chunk: Chunk) -> "ConstantBound":
        return ConstantBound(self, chunk)


class ConstantBound:
    """A chunk of the constant cell."""

    def __init__(self, cell: ConstantCell, chunk: Chunk) -> None:
        self.cell = cell
        self.chunk = chunk

    def run(self) -> None:
        self.chunk.output[:] = self.cell.output


class SummingCell:
    """A network whose state is a leaky sum of its inputs, so that each step, and their order, changes every
    output.

    Attributes:
        failures: runs that are still to fail.
        output: what the head gives instead, unless it is NaN.
        steps: time steps that have been run.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.output = math.nan
        self.steps = 0

    def bind(self, chunk: Chunk) -> "SummingBound":
        return SummingBound(self, chunk)


class SummingBound:
    """A chunk of the summing cell."""

    def __init__(self, cell: SummingCell, chunk: Chunk) -> None:
        self.cell = cell
        self.chunk = chunk

    def run(self) -> None:
        chunk, cell = self.chunk, self.cell
        if cell.failures:
            cell.failures -= 1
            raise ModelFailure("told to fail")
        rows, steps = chunk.inputs.shape[:2]
        seen = np.zeros((rows, steps, chunk.state[0].shape[1]), np.float32)
        for row in range(rows):
            state = chunk.state[0][row].copy()
            for step in range(int(chunk.lengths[row])):
                state = state * np.float32(0.5) + chunk.inputs[row, step]
                seen[row, step] = state
                cell.steps += 1
            chunk.after[0][row] = state
        for place, position in enumerate(chunk.wanted.tolist()):
            row, step = divmod(position, steps)
            chunk.output[place] = (
                np.tanh(np.resize(seen[row, step], OUTPUTS)) if math.isnan(cell.output) else cell.output
            )


class AtOnce:
    """An engine whose turns run, until it is idle, whenever something is submitted.

    Args:
        cell: computes.
        features: width of its inputs.
        outputs: width of its head.

    Attributes:
        is_held: submitted rows wait until `bench` is driven.
    """

    def __init__(self, cell: Any, features: int, outputs: int = OUTPUTS) -> None:
        self.bench = Bench(4, 4, 8, cell, Shape(features, outputs, (features,)))
        self.is_held = False

    def submit(self, rows: list[Row]) -> None:
        self.bench.group.submit(rows)
        if not self.is_held:
            self.bench.tick_until_idle()

    def cancel(self, rows: list[Row]) -> None:
        self.bench.group.cancel(rows)

    def resume(self, row: Row) -> None:
        self.bench.group.resume(row)
