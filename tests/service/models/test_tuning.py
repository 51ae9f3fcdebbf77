"""service.models.tuning, on a clock that a made-up machine moves."""

from dataclasses import dataclass, field, replace

import pytest

from service.engine.cell import Shape
from service.engine.driver import MAX_HOLD_S
from service.models.tuning import Tuning, Wish, full_seconds, is_clearly_less, tune
from service.runtime import Chunk

SHAPE = Shape(None, 7, (4, 4))
OWN_S = 1e-4


@dataclass
class Machine:
    """Time passes as a tick's rows and steps cost; the engine's own code takes OWN_S a tick.

    Attributes:
        step_s: of one row.
        fixed_s: of each run, whatever its size.
        crowding: how much dearer a step gets with each row beyond 64.
    """

    step_s: float
    fixed_s: float = 0.0
    crowding: float = 0.0
    now: float = 0.0
    shapes: set[tuple[int, int]] = field(default_factory=set)

    def bind(self, chunk: Chunk) -> "Bound":
        return Bound(self, chunk)

    def clock(self) -> float:
        self.now += OWN_S
        return self.now

    def tuned(self, generates: bool = True, wish: Wish | None = None) -> Tuning:
        return tune(self, SHAPE, generates, wish or Wish(), self.clock)


@dataclass
class Bound:
    machine: Machine
    chunk: Chunk

    def run(self) -> None:
        rows, steps = self.chunk.inputs.shape
        machine = self.machine
        machine.shapes.add((rows, steps))
        machine.now += machine.fixed_s + rows * steps * machine.step_s * (
            1 + machine.crowding * max(0, rows - 64)
        )


def test_rows_are_added_while_they_make_a_step_cheaper() -> None:
    assert Machine(step_s=1e-7, fixed_s=1e-3).tuned().chunk_rows == 256
    assert Machine(step_s=1e-7, fixed_s=2e-3).tuned().chunk_rows == 256
    assert Machine(step_s=1e-7, fixed_s=1e-4, crowding=0.1).tuned().chunk_rows == 64


def test_no_chunk_tick_gets_too_long_however_much_more_rows_would_bring() -> None:
    assert Machine(step_s=1e-6, fixed_s=0.05).tuned().chunk_rows == 64


@pytest.mark.parametrize(("step_s", "slots"), [(1e-6, 256), (3e-4, 256), (7e-4, 128), (1e-2, 64)])
def test_generating_rows_are_as_many_as_a_step_tick_serves_in_time(step_s: float, slots: int) -> None:
    assert Machine(step_s).tuned().slots == slots


def test_model_that_does_not_generate_has_the_slots_of_its_chunk_ticks() -> None:
    tuning = Machine(step_s=1e-5).tuned(generates=False)
    assert tuning.slots == tuning.chunk_rows


def test_overhead_is_the_fixed_cost_in_steps_of_a_row() -> None:
    tuning = Machine(step_s=1e-5, fixed_s=2e-4).tuned()
    assert tuning.overhead == pytest.approx((2e-4 + OWN_S) / 1e-5, rel=0.25)


def test_overhead_is_no_less_than_the_code_of_a_tick_takes_behind_a_graph() -> None:
    """A difference of two noisy measurements may come out as nothing, or less."""
    tuning = Machine(step_s=1e-5).tuned()
    assert tuning.overhead >= 2 * OWN_S / 1.1e-5


def test_overhead_is_no_more_than_the_code_of_a_tick_can_take() -> None:
    tuning = Machine(step_s=1e-5, fixed_s=0.1).tuned()
    assert tuning.overhead * (0.1 + 256e-5) / 256 <= 4 * OWN_S * 1.01


@pytest.mark.parametrize(
    "wish",
    [
        Wish(slots=7),
        Wish(chunk=3),
        Wish(chunk_rows=9),
        Wish(slots=5, chunk=100, chunk_rows=2),
        Wish(slots=300, chunk_rows=300),
    ],
)
def test_what_is_set_is_not_measured(wish: Wish) -> None:
    tuning = Machine(step_s=1e-5).tuned(wish=wish)
    assert tuning.slots == (wish.slots or tuning.slots)
    assert tuning.chunk == (wish.chunk or tuning.chunk)
    assert tuning.chunk_rows == (wish.chunk_rows or tuning.chunk_rows)
    assert tuning.chunk_rows <= tuning.slots


def test_widest_ticks_have_run_before_anybody_waits_for_them() -> None:
    machine = Machine(step_s=1e-5)
    tuning = machine.tuned()
    assert (tuning.slots, 1) in machine.shapes
    assert tuning.chunk_rows in {rows for rows, steps in machine.shapes if steps > 1}


def test_outputs_of_a_tick_stay_small_however_wide_the_head() -> None:
    machine = Machine(step_s=1e-5)
    tuning = tune(machine, Shape(None, 50_000, (4, 4)), True, Wish(), machine.clock)
    assert tuning.chunk_rows * tuning.chunk * 50_000 * 4 <= 64 << 20


def test_speed_is_that_of_full_chunk_ticks() -> None:
    assert Machine(step_s=1e-5).tuned().steps_per_second == pytest.approx(1e5, rel=0.1)


@pytest.mark.parametrize(("step_s", "least", "most"), [(1e-9, 1, 1), (1e-5, 3, 8), (1e-3, 100, 1000)])
def test_engines_are_as_many_as_the_interpreter_can_serve(step_s: float, least: int, most: int) -> None:
    assert least <= Machine(step_s).tuned().max_engines <= most


def test_tick_that_is_measured_is_the_longest_full_one() -> None:
    slow_chunks, slow_steps = Machine(step_s=1e-5), Machine(step_s=1e-5)
    classifier = slow_chunks.tuned(generates=False)
    assert classifier.tick_s == pytest.approx(classifier.chunk_rows * 4 * 1e-5, rel=0.1)
    generator = slow_steps.tuned(wish=Wish(slots=4000, chunk_rows=10))
    assert generator.tick_s == pytest.approx(4000 * 1e-5, rel=0.1)


# Limits, and turns in the event loop.


TUNING = Tuning(
    slots=8, chunk=16, chunk_rows=4, overhead=2.0, steps_per_second=1e5, max_engines=3, tick_s=1e-4
)


def test_limits_of_an_engine_are_what_was_measured_and_what_is_given() -> None:
    limits = TUNING.limits(0.005, 1000)
    assert (limits.slots, limits.chunk, limits.chunk_rows, limits.chunk_steps) == (8, 16, 4, 0)
    assert (limits.overhead, limits.steps_per_second) == (2.0, 1e5)
    assert (limits.write_interval_s, limits.prompt_cache_bytes) == (0.005, 1000)
    assert limits.write_interval_row_s > 0


def test_event_loop_has_one_engine_whose_chunk_ticks_hold_it_no_longer_than_a_turn_may() -> None:
    tuning = TUNING.for_loop()
    assert (tuning.driver, tuning.max_engines) == ("loop", 1)
    limits = tuning.limits(0.0, 0)
    assert limits.chunk_steps == tuning.chunk_steps
    hold_s = (tuning.overhead + tuning.chunk_steps) / tuning.steps_per_second + limits.budget_s
    assert 0.5 * MAX_HOLD_S < hold_s < MAX_HOLD_S
    assert limits.budget_s < TUNING.limits(0.0, 0).budget_s


def test_slow_model_in_the_event_loop_still_runs_a_step_a_tick() -> None:
    assert replace(TUNING, steps_per_second=10.0).for_loop().chunk_steps == 1


# Threads of the runtime.


def test_cell_is_faster_when_its_full_ticks_are_clearly_shorter() -> None:
    machines = Machine(1e-5), Machine(0.99e-5), Machine(0.6e-5)
    tuning = machines[0].tuned()
    slow, same, fast = (full_seconds(one, SHAPE, tuning, one.clock) for one in machines)
    assert not is_clearly_less(same, slow)
    assert is_clearly_less(fast, slow)
