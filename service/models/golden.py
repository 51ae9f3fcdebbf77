"""Checks that the golden examples give their outputs, however they are batched, cut in time and padded."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from service.contract import spec
from service.errors import ModelFailure, ModelRefused
from service.models.runs import Runs, Trace, Way
from service.models.samples import Sample, Samples

# Default chunk length of the chunked golden run, in time steps.
GOLDEN_CHUNK = 4
# Sequences that share a batch with the golden examples, of at most so many steps where lengths may differ.
_COMPANIONS = 3
_MAX_COMPANION = 16
# Examples of so few steps may be run in one chunk in every way, which does not show that a state is carried.
# Then random sequences of more steps are run, and compared with themselves alone.
_SHORT, _DRAWN, _DRAWN_STEPS = 3, 3, 12
_SEED = 1


def check_golden(
    model: spec.ModelSpec, runs: Runs, samples: Samples, tolerance: float, chunk: int = GOLDEN_CHUNK
) -> float:
    """Check the golden examples in all ways that the graph is run in.

    In every batch a few other sequences share it, so that rows that depend on each other are found by a
    single example, too.

    Args:
        model: spec with the golden examples.
        runs: runs them on the graph.
        samples: their inputs.
        tolerance: largest allowed absolute difference.
        chunk: chunk length of the chunked way of a chunk cell, in time steps.

    Returns:
        The largest absolute difference found.

    Raises:
        ModelRefused: an output differs by more than the tolerance, or the runtime fails.
    """
    worst = 0.0
    for way in runs.ways(chunk):
        for rows in _batches(samples.golden, way, runs.needs_equal):
            batch = [samples.golden[row] for row in rows]
            if not way.is_alone:
                batch += _companions(batch, samples, runs.needs_equal)
            try:
                traces = way.run(batch)
            except ModelFailure as failure:
                raise ModelRefused("golden", "outputs for the golden examples", str(failure)) from failure
            for row, trace in zip(rows, traces, strict=False):  # companions have no outputs to compare with
                worst = max(worst, _error(model, row, trace, tolerance, way))
    if max(len(one.inputs) for one in samples.golden) <= _SHORT:
        _check_drawn(runs, samples, tolerance, chunk)
    return worst


def _check_drawn(runs: Runs, samples: Samples, tolerance: float, chunk: int) -> None:
    """Check that random sequences have the same outputs in all ways, within the tolerance.

    Raises:
        ModelRefused: an output differs by more, or the runtime fails.
    """
    random = np.random.default_rng(_SEED)
    drawn = [samples.draw(random, _DRAWN_STEPS) for _ in range(_DRAWN)]
    alone, *ways = runs.ways(chunk)
    try:
        expected = [alone.run([one])[0].outputs for one in drawn]
        for way in ways:
            rows = [[one] for one in drawn] if way.is_alone else [drawn]
            found = [trace.outputs for row in rows for trace in way.run(row)]
            error = max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))
            if not error <= tolerance:
                raise ModelRefused(
                    "golden",
                    f"outputs of random sequences of {len(drawn[0].inputs)} steps, {way.name}, "
                    f"within {tolerance} of those alone",
                    f"{error:.3g} off" + (f": {way.advice}" if way.advice else ""),
                )
    except ModelFailure as failure:
        raise ModelRefused("golden", "outputs for random sequences", str(failure)) from failure


def _batches(golden: Sequence[Sample], way: Way, needs_equal: bool) -> Iterator[list[int]]:
    """Yield the indexes of the examples of each batch."""
    rows = range(len(golden))
    if way.is_alone:
        yield from ([row] for row in rows)
    elif needs_equal:
        lengths = [len(one.inputs) for one in golden]
        for _, equal in groupby(sorted(rows, key=lengths.__getitem__), lengths.__getitem__):
            yield list(equal)
    else:
        yield list(rows)


def _companions(batch: Sequence[Sample], samples: Samples, needs_equal: bool) -> list[Sample]:
    random = np.random.default_rng(_SEED)
    longest = len(batch[0].inputs)
    return [
        samples.draw(random, longest if needs_equal else int(random.integers(1, _MAX_COMPANION)))
        for _ in range(_COMPANIONS)
    ]


def _error(model: spec.ModelSpec, row: int, trace: Trace, tolerance: float, way: Way) -> float:
    """Return the largest difference of an example's outputs."""
    golden, worst = model.golden[row], 0.0
    for step, expected in zip(golden.steps, golden.outputs, strict=True):
        output = trace.outputs[0 if model.network.is_pooled else step]
        error = float(np.abs(output - np.array(expected, np.float32)).max())
        if not error <= tolerance:
            raise ModelRefused(
                "golden",
                f"outputs of example {row}, step {step}, {way.name}, within {tolerance} of the golden ones",
                f"{error:.3g} off" + (f": {way.advice}" if way.advice else ""),
            )
        worst = max(worst, error)
    return worst
