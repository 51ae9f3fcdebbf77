"""Tests of service.engine.chunks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.chunks import plan_chunk, steps_for

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["scored", "every", "answered", "neither"]), st.integers(1, 9), st.integers(0, 500)
    ),
    min_size=1,
    max_size=8,
)


def rows_of(drawn: list[tuple[str, int, int]], kind: str) -> NDArray[np.int64]:
    return np.array([row for row, (one, _, _) in enumerate(drawn) if one == kind], np.int64)


@given(ROWS)
def test_head_is_asked_for_all_steps_of_scored_and_every_rows_and_the_last_of_answered_ones(
    drawn: list[tuple[str, int, int]],
) -> None:
    lengths, starts = (np.array([row[index] for row in drawn], np.int64) for index in (1, 2))
    plan = plan_chunk(starts, lengths, *(rows_of(drawn, kind) for kind in ("scored", "every", "answered")))
    assert plan.steps == max(lengths)
    scored, every = (
        [
            (row, step)
            for row, (kind, length, _) in enumerate(drawn)
            if kind == wished
            for step in range(length)
        ]
        for wished in ("scored", "every")
    )
    answered = [(row, length - 1) for row, (kind, length, _) in enumerate(drawn) if kind == "answered"]
    assert plan.wanted.tolist() == [row * plan.steps + step for row, step in scored + every + answered]
    assert plan.targets.tolist() == [starts[row] + step + 1 for row, step in scored]
    assert plan.wanted.dtype == plan.targets.dtype == np.int64


@pytest.mark.parametrize("rows", [1, 5, 64, 300])
@pytest.mark.parametrize(("mean", "overhead"), [(5.0, 2.0), (50.0, 10.0), (50.0, 40.0), (2000.0, 20.0)])
def test_steps_cost_the_least_by_the_model_they_come_from(rows: int, mean: float, overhead: float) -> None:
    def cost(steps: int) -> float:
        return mean * (1 + overhead / (rows * steps)) + (steps - 1) / 2

    chosen = steps_for(rows, mean, overhead, 10_000)
    assert cost(chosen) <= 1.01 * min(cost(steps) for steps in range(1, 10_000))


@given(st.integers(1, 1000), st.floats(1, 1e6), st.floats(0, 1e6), st.integers(1, 1000))
def test_steps_stay_within_their_bounds(rows: int, mean: float, overhead: float, max_steps: int) -> None:
    assert 1 <= steps_for(rows, mean, overhead, max_steps) <= max_steps


def test_fewer_rows_run_more_steps_a_tick() -> None:
    steps = [steps_for(rows, 50.0, 10.0, 64) for rows in (64, 16, 4, 1)]
    assert steps == sorted(steps)
    assert steps[0] < steps[-1]
