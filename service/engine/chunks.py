"""Plans of chunk ticks: how many steps, and where the head is asked for. Pure, vectorised over rows."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """One chunk tick of B rows.

    Attributes:
        steps: T, the longest row's steps.
        wanted: int64 (W,), flat positions row * T + step at which the head is asked for: those of scored rows
            first, row by row, then those of rows whose every output is kept, then the last steps of answered
            ones.
        targets: int64, positions in the prefill buffer of the tokens that follow the scored rows' steps, in
            the order of `wanted`.
    """

    steps: int
    wanted: NDArray[np.int64]
    targets: NDArray[np.int64]


_NONE = np.zeros(0, np.int64)


def steps_for(rows: int, mean_steps: float, overhead: float, max_steps: int) -> int:
    """Return how many time steps a chunk tick should run.

    More steps spread the tick's fixed cost o (in steps of one row); fewer leave less padding behind rows that
    end within it, (t - 1) / 2 steps each. A sequence of L steps among B rows costs about L (1 + o / (B t)) +
    (t - 1) / 2, which is least at t = sqrt(2 L o / B).

    Args:
        rows: B, rows of the tick.
        mean_steps: L, steps of a sequence.
        overhead: o, the tick's fixed cost.
        max_steps: upper bound.
    """
    return max(1, min(max_steps, round(math.sqrt(2.0 * mean_steps * overhead / rows))))


def plan_chunk(
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    scored: NDArray[np.int64],
    every: NDArray[np.int64],
    answered: NDArray[np.int64],
) -> ChunkPlan:
    """Find where the head is asked for.

    Args:
        starts: int64 (B,), positions of the rows' next steps in the prefill buffer.
        lengths: int64 (B,), steps that each row runs.
        scored: rows whose log-probabilities are wanted.
        every: rows whose outputs at each step are wanted.
        answered: rows whose last step is in this chunk and whose output is the answer.
    """
    steps = int(lengths.max())
    wanted = answered * steps + (lengths[answered] - 1) if len(answered) else _NONE
    if not len(scored) and not len(every):
        return ChunkPlan(steps, wanted, _NONE)
    within = np.arange(steps)
    stepwise = np.concatenate([scored, every])
    positions = (stepwise[:, None] * steps + within)[within < lengths[stepwise, None]]
    targets = (starts[scored, None] + 1 + within)[within < lengths[scored, None]]
    return ChunkPlan(steps, np.concatenate([positions, wanted]), targets)
