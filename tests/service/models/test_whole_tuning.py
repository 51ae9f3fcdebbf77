"""service.models.whole_tuning, on a clock that a made-up machine moves."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.cell import Shape
from service.models.tuning import Tuning, Wish
from service.models.whole_tuning import full_seconds, seconds_of_one, tune_whole
from tests.service.engine.whole_fakes import FakeWholeCell

SHAPE = Shape(None, 7, ())


@dataclass
class Machine:
    """Time passes as a batch's rows and steps cost; each reading of the clock takes 1 us.

    Attributes:
        row_s: of one row's step.
        step_s: of a time step, whatever the rows.
        crowding: how much dearer a row gets with each beyond 8.
        takes_lengths: rows of a run may have different lengths.
    """

    row_s: float
    step_s: float = 0.0
    crowding: float = 0.0
    takes_lengths: bool = True
    now: float = 0.0
    rows: set[int] = field(default_factory=set)

    def run(self, inputs: NDArray[Any], lengths: NDArray[np.int32] | None) -> NDArray[np.float32]:
        assert (lengths is not None) == self.takes_lengths
        rows, steps = inputs.shape
        self.rows.add(rows)
        crowd = 1 + self.crowding * max(0, rows - 8)
        self.now += steps * (self.step_s + rows * self.row_s * crowd)
        return np.zeros((rows, 7), np.float32)

    def clock(self) -> float:
        self.now += 1e-6
        return self.now

    def tuned(self, wish: Wish | None = None) -> Tuning:
        return tune_whole(self, SHAPE, wish or Wish(), self.clock)


@pytest.mark.parametrize(
    ("machine", "rows"),
    [
        (Machine(row_s=1e-5), 4),
        (Machine(row_s=1e-6, step_s=1e-6), 16),
        (Machine(row_s=1e-6, step_s=1e-5), 32),
        (Machine(row_s=1e-6, step_s=1e-5, crowding=0.5), 8),
    ],
    ids=["nothing is shared", "little is shared", "much is shared", "a crowd is dear"],
)
def test_batch_has_the_fewest_rows_beyond_which_a_step_gets_no_cheaper(machine: Machine, rows: int) -> None:
    tuning = machine.tuned()
    assert (tuning.chunk_rows, tuning.slots) == (rows, rows)


def test_fixed_cost_of_a_step_is_found_in_rows() -> None:
    assert Machine(row_s=1e-6, step_s=5e-6).tuned().overhead == pytest.approx(5.0, rel=0.01)
    assert Machine(row_s=1e-6).tuned().overhead == pytest.approx(0.0, abs=0.1)


def test_throughput_is_that_of_full_batches() -> None:
    tuning = Machine(row_s=1e-5).tuned()
    assert tuning.steps_per_second == pytest.approx(1e5, rel=0.01)


def test_batch_takes_no_longer_than_a_short_sequence_may_wait() -> None:
    tuning = Machine(row_s=1e-5).tuned()
    assert tuning.chunk_steps / tuning.steps_per_second == pytest.approx(0.05, rel=0.01)


def test_large_model_runs_usual_sequences_side_by_side_all_the_same() -> None:
    tuning = Machine(row_s=1e-2).tuned()
    assert tuning.chunk_steps == 64 * tuning.chunk_rows


def test_arrays_of_a_batch_stay_small() -> None:
    machine = Machine(row_s=1e-9)
    wide = Shape(None, 1 << 14, ())
    assert tune_whole(machine, wide, Wish(), machine.clock).chunk_steps == 1024


def test_large_model_is_not_measured_in_wide_batches() -> None:
    machine = Machine(row_s=1e-2, step_s=1.0)
    machine.tuned()
    assert machine.rows == {1, 4}


@pytest.mark.parametrize(
    ("wish", "rows"),
    [(Wish(chunk_rows=6), 6), (Wish(slots=3), 3), (Wish(slots=10), 8), (Wish(slots=2, chunk_rows=6), 2)],
)
def test_rows_that_are_set_are_not_exceeded(wish: Wish, rows: int) -> None:
    assert Machine(row_s=1e-6, step_s=1e-5).tuned(wish).chunk_rows == rows


def test_cell_without_lengths_is_measured() -> None:
    assert Machine(row_s=1e-5, takes_lengths=False).tuned().chunk_rows == 4


def test_long_sequence_decides_whether_the_event_loop_may_run_the_turns() -> None:
    assert Machine(row_s=1e-5).tuned().tick_s == pytest.approx(4096e-5, rel=0.01)


def test_full_batch_is_as_long_as_its_rows_take() -> None:
    tuning = Machine(row_s=1e-5).tuned()
    machines = Machine(row_s=1e-5), Machine(row_s=2e-5)
    fast, slow = (full_seconds(one, SHAPE, tuning, one.clock) for one in machines)
    assert slow == pytest.approx(2 * fast, rel=0.01)


def test_engines_are_as_many_as_their_own_code_keeps_busy() -> None:
    """Own code is measured in real turns, whose clock here takes 1 us a reading."""
    assert Machine(row_s=1e-4).tuned().max_engines > Machine(row_s=1e-6).tuned().max_engines >= 1


def test_real_clock_warms_a_cell_up() -> None:
    cell = FakeWholeCell()
    tune_whole(cell, SHAPE, Wish(slots=4))
    assert {len(lengths) for lengths in cell.runs} == {1, 4}


def test_a_window_is_measured_at_its_own_length() -> None:
    seen: set[int] = set()

    class OneLength:
        takes_lengths = False

        def run(self, inputs: NDArray[Any], lengths: NDArray[np.int32] | None) -> NDArray[np.float32]:
            assert lengths is None
            seen.add(inputs.shape[1])
            return np.zeros((len(inputs), 2), np.float32)

    shape = Shape(None, 2, ())
    tuning = tune_whole(OneLength(), shape, Wish(), steps=7)
    full_seconds(OneLength(), shape, tuning, steps=7)
    seconds_of_one(OneLength(), shape, steps=7)
    assert seen == {7}
