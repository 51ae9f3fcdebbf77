"""Step ticks of several steps: a generation graph runs them, with the sampler in it.

The state before a tick stays where it was until the tick counts. A tick whose draws are not clear, or within
which a row ends whose state is asked for, is run again with fewer steps from there. So a row has the tokens
and the state of single steps, bit for bit.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.cell import BoundChunk, Generator, Shape, StepSize
from service.engine.draws import clear_steps, greedy_uniform, set_options, tolerance
from service.engine.sampling import Options, uniforms
from service.engine.slots import Pool
from service.errors import ModelFailure
from service.runtime import StepRun

MAX_STEPS = 64
# The logits of all steps of a tick stay small: they are there for log-probabilities.
_MAX_LOGITS_BYTES = 4 << 20
_MAX_BINDINGS = 256


class Drawn(NamedTuple):
    """The result of a tick.

    Attributes:
        tokens: int64 (K, B).
        counts: int64 (B,), how many of its tokens each row has; rows with fewer than K have ended.
        logits: float32 (K, B, V).
    """

    tokens: NDArray[np.int64]
    counts: NDArray[np.int64]
    logits: NDArray[np.float32]


class _Bound(NamedTuple):
    run: StepRun
    binding: BoundChunk


class MultiStep:
    """Runs ticks of several steps for the decode pool.

    Args:
        generator: runs steps.
        shape: widths of its tensors.
        rows: rows of a tick at most.
        sizes: steps of a tick by the number of rows, which rises.
        is_end: bool (V,), tokens that end their row; None: there are none.
    """

    def __init__(
        self,
        generator: Generator,
        shape: Shape,
        rows: int,
        sizes: tuple[StepSize, ...],
        is_end: NDArray[np.bool_] | None,
    ) -> None:
        self._generator = generator
        self._sizes = sizes
        self._is_end = is_end
        self._vocabulary = shape.outputs
        self._epsilon = tolerance(shape.outputs)
        self._max_logits = max(1, _MAX_LOGITS_BYTES // (4 * shape.outputs))  # rows of logits in a tick
        self._arrays = _arrays(rows, shape.outputs, self._max_logits)
        self._bindings: OrderedDict[tuple[int, int, int], _Bound] = OrderedDict()
        self._greedy: NDArray[np.int64] = np.zeros(0, np.int64)
        self._prepared: Options | None = None
        self._wait = self._penalty = 0

    def steps(self, columns: Mapping[str, NDArray[Any]], options: Options, room: int) -> int:
        """Return the steps of the next tick; 1: a single step is to be run.

        Args:
            columns: of the rows in the decode pool.
            options: of these rows.
            room: tokens that each row may take.
        """
        if self._wait:
            self._wait -= 1
            return 1
        remaining, needs_state = columns["remaining"], columns["needs_state"]
        rows = len(remaining)
        size = next((size for size in self._sizes if rows <= size.rows), None)
        usual = 1 if size is None else size.steps if options.cut is None else size.cut_steps
        usual = min(usual, self._max_logits // rows)
        most = min(usual, room, int(remaining.max()))
        if needs_state.any():
            most = min(most, int(remaining[needs_state].min()))
        if most == usual:
            return max(1, most)
        # Shorter ticks are rounded down to a power of two, which keeps the shapes few.
        return 1 << (most.bit_length() - 1) if most > 1 else 1

    def run(
        self, pool: Pool, columns: Mapping[str, NDArray[Any]], options: Options, steps: int
    ) -> Drawn | None:
        """Run a tick.

        Args:
            pool: the generating rows; their state is changed if there is a result.
            columns: of these rows.
            options: of these rows; the same object as long as they are the same rows.
            steps: from `steps`, more than 1.

        Returns:
            The tokens; None: the first step's draws are not clear, and a single step is to be run.

        Raises:
            ModelFailure: from the generator, or it has drawn no token; the state of all rows is lost.
        """
        bound = self._filled(pool, columns, options, steps)
        bound.binding.run()
        usable = clear_steps(bound.run, self._epsilon)
        # As unsigned numbers the negative ones are the largest.
        if bound.run.picked[:usable].view(np.uint64).max(initial=0) >= self._vocabulary:
            raise ModelFailure("the generation graph has drawn numbers that are no tokens")
        counts = self._counts(columns, bound.run.picked, usable)
        if (is_kept := columns["needs_state"]).any():
            usable = min(usable, int(counts[is_kept].min()))
        if usable == 0:
            # Rows whose draws are never clear cost a tick now and then, not every second one.
            self._penalty = min(MAX_STEPS, 2 * self._penalty + 1)
            self._wait = self._penalty
            return None
        self._penalty = 0
        if usable < steps:
            bound = self._filled(pool, columns, options, usable)
            bound.binding.run()
        pool.flip()
        return Drawn(bound.run.picked, np.minimum(counts, usable), bound.run.logits)

    def _counts(
        self, columns: Mapping[str, NDArray[Any]], picked: NDArray[np.int64], usable: int
    ) -> NDArray[np.int64]:
        """Return how many tokens each row may take of the first usable ones, int64 (B,)."""
        counts: NDArray[np.int64] = np.minimum(columns["remaining"], usable)
        if self._is_end is not None and usable:
            ends = self._is_end[picked[:usable]]  # (usable, B)
            counts = np.where(ends.any(axis=0), np.minimum(counts, ends.argmax(axis=0) + 1), counts)
        return counts

    def _filled(
        self, pool: Pool, columns: Mapping[str, NDArray[Any]], options: Options, steps: int
    ) -> _Bound:
        """Return a binding whose inputs have been written."""
        bound = self._bind(pool, steps)
        run = bound.run
        run.tokens[:] = columns["token"]
        if options is not self._prepared:
            self._greedy = set_options(run, options, columns["temperature"], self._vocabulary)
            self._prepared = options
        positions = columns["position"] + np.arange(steps, dtype=np.uint64)[:, None]  # (K, B)
        run.uniforms[:, :, 0] = uniforms(columns["key"], positions)
        if len(self._greedy):
            run.uniforms[:, self._greedy] = greedy_uniform(self._vocabulary)
        return bound

    def _bind(self, pool: Pool, steps: int) -> _Bound:
        """Return the binding of a tick's shape; the least recently used ones are dropped."""
        rows, parity = len(pool), pool.parity
        key = (parity, rows, steps)
        bound = self._bindings.get(key)
        if bound is not None:
            self._bindings.move_to_end(key)
            return bound
        if len(self._bindings) >= _MAX_BINDINGS:
            self._bindings.popitem(last=False)
        before, after = ([tensor[:rows] for tensor in side] for side in (pool.front, pool.back))
        flat = {name: array[: steps * rows] for name, array in self._arrays.drawn.items()}
        run = StepRun(
            state=before,
            after=after,
            has_cuts=self._arrays.has_cuts,
            cut_margins=self._arrays.cut_margins[:steps],
            picked=flat.pop("picked").reshape(steps, rows),
            logits=self._arrays.logits[: steps * rows].reshape(steps, rows, self._vocabulary),
            **{name: array[:rows] for name, array in self._arrays.given.items()},
            **{name: array.reshape(steps, rows, 1) for name, array in flat.items()},
        )
        bound = self._bindings[key] = _Bound(run, self._generator.bind(run))
        return bound


class _Arrays(NamedTuple):
    """The arrays that ticks are bound to; those of `drawn` and `logits` are flat over steps and rows."""

    given: dict[str, NDArray[Any]]
    drawn: dict[str, NDArray[Any]]
    has_cuts: NDArray[np.bool_]
    cut_margins: NDArray[np.float64]
    logits: NDArray[np.float32]


def _arrays(rows: int, vocabulary: int, max_logits: int) -> _Arrays:
    most = min(rows * MAX_STEPS, max(max_logits, rows))
    given = {
        "tokens": np.zeros(rows, np.int64),
        "inverse": np.zeros((rows, 1)),
        "top_k": np.zeros((rows, 1), np.int64),
        "top_p": np.zeros((rows, 1)),
    }
    drawn: dict[str, NDArray[Any]] = {
        name: np.zeros(most) for name in ("uniforms", "reached", "weights", "totals")
    }
    drawn["picked"] = np.zeros(most, np.int64)
    margins, logits = np.zeros((MAX_STEPS, 1, 1)), np.zeros((most, vocabulary), np.float32)
    return _Arrays(given, drawn, np.zeros((), np.bool_), margins, logits)
