"""Measures whether a sequence's outputs and states have the same bits alone and in any batch.

What model.json claims does not count. A graph with an operator whose results are known to differ between
batches is not measured: the vanilla RNN's differ too rarely, and only by the last bit, to be found each time.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from service.errors import ModelFailure, ModelRefused
from service.models.runs import Runs, Trace
from service.models.samples import Sample, Samples
from service.runtime import Session

# Operators whose results depend on the other rows of a batch: the CPU's kernel of RNN takes other
# instructions for other batches; the scale of a dynamic quantization is that of all rows together.
VARYING_OPERATORS = frozenset(
    {"RNN", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul"}
)
# Rows of the batches, in the order in which they are run; the last ones are left out where time is short. Of
# a network with a window, whose sequences cannot be short, so are the largest ones.
_ROWS = (64, 2, 33, 7, 16, 3, 48, 5)
_LEAST_ROWS = 2
# Sequences that are compared; the others are beside them.
_COMPARED = 6
_MIN_STEPS, _MAX_STEPS = 2, 16
# Time steps of rows that share a batch, to be compared with each of them alone. Kernels may add up in another
# order for other numbers of time steps: the CPU's convolution takes other blocks from 65 steps on (measured:
# the bits of a row of 64 steps differ beside one of 70, and those of rows of up to 16 steps do not).
_LONG = ((33, 64, 70), (100, 130, 260))
# Seconds in all, and those that one batch is sized for.
_MAX_S, _BATCH_S = 0.25, 0.1
# A graph that takes longer for the first of the long batches is not measured.
_MAX_LONG_S = 2.0
_SEED = 3


def is_batch_invariant(
    session: Session,
    runs: Runs,
    samples: Samples,
    steps_per_second: float,
    clock: Callable[[], float] = time.perf_counter,
) -> bool:
    """Return whether the bits of a few sequences are the same alone and in batches of up to 64 rows.

    The sequences are golden examples, cut and varied, and random ones; the batches have mixed lengths, in
    chunks of unequal lengths or with garbage behind the ends; a few have long ones. A graph that is too slow
    to be measured is said not to be.

    Args:
        session: the graph.
        runs: runs them on it.
        samples: gives them.
        steps_per_second: time steps of all rows that the graph runs in full batches; it sizes the batches.
        clock: returns seconds.

    Raises:
        ModelRefused: the graph fails on sequences like the golden ones.
    """
    if session.operators & VARYING_OPERATORS or sum(_LONG[0]) > _MAX_LONG_S * steps_per_second:
        return False
    until = clock() + _MAX_S
    try:
        crowds = _Crowds(runs, samples, _BATCH_S * steps_per_second)
        for is_needed, agrees in crowds.comparisons():
            if not is_needed and clock() > until:
                break
            if not agrees():
                return False
    except ModelFailure as failure:
        raise ModelRefused("invariance", "outputs for random sequences", str(failure)) from failure
    return True


class _Crowds:
    """Compares a few sequences, run alone, with themselves among others.

    Args:
        runs: runs them on the graph.
        samples: gives them.
        budget: time steps of all rows that a batch should have at most.

    Raises:
        ModelFailure: the graph fails; so does `agree`.
    """

    def __init__(self, runs: Runs, samples: Samples, budget: float) -> None:
        self._runs = runs
        self._samples = samples
        self._random = np.random.default_rng(_SEED)
        fitting = int(min(max(budget / _ROWS[0], _MIN_STEPS), _MAX_STEPS))
        self._longest = samples.fixed_length or fitting
        self._max_rows = budget / self._longest if samples.fixed_length else math.inf
        self._compared = [self._draw() for _ in range(_COMPARED)]
        self._expected = [runs.alone(one) for one in self._compared]

    def sizes(self) -> list[int]:
        """Return the numbers of rows of the batches to run, in order."""
        return [one for one in _ROWS if one <= max(_LEAST_ROWS, self._max_rows)]

    def comparisons(self) -> Iterator[tuple[bool, Callable[[], bool]]]:
        """Yield what to compare, in order, each with whether it must be whatever time it takes."""
        first, *others = self.sizes()
        yield True, partial(self.agree, first)
        if self._samples.fixed_length is None:
            for number, lengths in enumerate(_LONG):
                yield number == 0, partial(self.agree_long, lengths)
        for rows in others:
            yield False, partial(self.agree, rows)

    def agree_long(self, lengths: Sequence[int]) -> bool:
        """Run a batch of rows of so many time steps; return whether each has the same bits as alone."""
        longest = max(lengths)
        batch = [
            self._samples.draw(self._random, longest if self._runs.needs_equal else length)
            for length in lengths
        ]
        # A step at a time takes as long as all else, and shorter sequences have shown that it gives the same.
        expected = [self._runs.alone(one, is_stepped=False) for one in batch]
        found = self._runs.together(batch, self._random)
        return all(map(_is_same, found, expected))

    def agree(self, rows: int) -> bool:
        """Run a batch of so many rows; return whether the compared sequences have the same bits as alone."""
        batch = [self._draw() for _ in range(rows)]
        places = self._random.permutation(rows)[:_COMPARED].tolist()
        chosen = self._random.permutation(_COMPARED)[: len(places)].tolist()
        for place, number in zip(places, chosen, strict=True):
            batch[place] = self._compared[number]
        found = self._runs.together(batch, self._random)
        return all(
            _is_same(found[place], self._expected[number])
            for place, number in zip(places, chosen, strict=True)
        )

    def _draw(self) -> Sample:
        equal = self._runs.needs_equal
        return self._samples.draw(
            self._random, self._longest if equal else int(self._random.integers(1, self._longest + 1))
        )


def _is_same(found: Trace, expected: Sequence[Trace]) -> bool:
    """Return whether a trace has the bits of all others."""
    own = _bits(found)
    return all(_bits(one) == own for one in expected)


def _bits(trace: Trace) -> list[bytes]:
    return [trace.outputs.tobytes(), *(row.tobytes() for row in trace.state)]
