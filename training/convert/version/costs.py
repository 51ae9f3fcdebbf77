"""Measures what a step of a converted network costs, on one thread of this machine."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from service.contract import spec
from training.convert.cases import Drawing
from training.convert.converted import Converted
from training.convert.foreign import Array, Refused
from training.convert.graph.session import Session

BATCHES = (1, 32)
# Time steps of a run of a whole network, about those of a sentence.
_WHOLE_STEPS = 50
# A measurement takes as long as this, and at least so many runs.
_SECONDS = 0.15
_FEWEST, _MOST = 3, 400


@dataclass(frozen=True, slots=True)
class Costs:
    """Time of one time step.

    Attributes:
        step_us: microseconds of a time step of all rows together, by the number of rows.
        original_us: those of a call of the original with one row, where that takes one step a call.
    """

    step_us: Mapping[int, float] = field(default_factory=dict)
    original_us: float | None = None


def measure(converted: Converted, original: Callable[[], object] | None = None) -> Costs:
    """Measure a conversion.

    Args:
        converted: the network.
        original: runs one step of the original; None: it takes whole sequences.

    Raises:
        Refused: a graph does not run.
    """
    folder = Path(converted.weights_folder) if converted.weights_folder else None
    session = Session(converted.graph, folder)
    steps = 1 if converted.kind == "chunk" else converted.window.to if converted.window else _WHOLE_STEPS
    found = {}
    for batch in BATCHES:
        found[batch] = _timed(partial(session.run, _feeds(converted, batch, steps))) / steps
    return Costs(found, None if original is None else _timed(original))


def stepper(graph: onnx.ModelProto, folder: Path) -> Callable[[], object] | None:
    """Return what runs one call of a graph with one row; None if its inputs leave their sizes open."""
    feeds: dict[str, Array] = {}
    weights = {one.name for one in graph.graph.initializer}
    for one in graph.graph.input:
        if one.name in weights:
            continue
        kind = one.type.tensor_type
        sizes = [axis.dim_value or 1 for axis in kind.shape.dim]
        feeds[one.name] = np.zeros(sizes, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    try:
        session = Session(graph, folder)
        session.run(feeds)
    except Refused:  # the measurement is left out; nothing depends on it
        return None
    return lambda: session.run(feeds)


def _feeds(converted: Converted, batch: int, steps: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    cases = [Drawing(converted.input).case(rng, steps) for _ in range(batch)]
    feeds: dict[str, Array] = {
        spec.INPUT: np.stack([case.inputs for case in cases]),
        spec.LENGTHS: np.full(batch, steps, np.int32),
        spec.WANTED: np.arange(batch * steps, dtype=np.int64),
    }
    return feeds | {one.input: np.zeros((batch, one.size), np.float32) for one in converted.states}


def _timed(run: Callable[[], object]) -> float:
    """Return the median time of a call in microseconds; the first call, which allocates, is left out."""
    run()
    end = time.perf_counter() + _SECONDS
    times: list[float] = []
    while len(times) < _FEWEST or (time.perf_counter() < end and len(times) < _MOST):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return median(times) * 1e6
