"""service.models.step_tuning: ticks of several steps are used for numbers of rows for which they are faster.

The fakes take time on a clock of the test and compute nothing.
"""

from collections.abc import Callable

from service.engine.cell import Shape
from service.models.step_costs import StepCost
from service.models.step_tuning import measure_steps
from service.runtime import Chunk, StepRun

SHAPE = Shape(None, 7, (3,))


class Clock:
    """Seconds that pass when something runs."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Taking:
    """Runs chunks and steps, which take as long as a function of rows and steps says; every draw is clear."""

    def __init__(self, clock: Clock, seconds: Callable[[int, int], float]) -> None:
        self._clock, self._seconds = clock, seconds
        self.rows: list[int] = []

    def bind(self, run: Chunk | StepRun) -> "_Bound":
        if isinstance(run, StepRun):
            for array in (run.reached, run.weights, run.totals, run.cut_margins):
                array[:] = 1.0
            steps, rows = run.picked.shape
        else:
            rows, steps = run.inputs.shape
        return _Bound(self, rows, self._seconds(rows, steps), self._clock)


class _Bound:
    def __init__(self, taking: Taking, rows: int, seconds: float, clock: Clock) -> None:
        self._taking, self._rows, self._took, self._clock = taking, rows, seconds, clock

    def run(self) -> None:
        self._taking.rows.append(self._rows)
        self._clock.now += self._took


def test_several_steps_are_used_where_a_step_of_them_is_faster() -> None:
    clock = Clock()
    single = Taking(clock, lambda rows, _: 1e-4 + rows * 1e-6)
    several = Taking(clock, lambda rows, steps: 1e-4 + steps * rows * 2.5e-6)
    costs = measure_steps(single, several, SHAPE, 100, clock)
    assert [one.rows for one in costs] == [1, 4, 16, 64, 100]
    assert [one.seconds > 0 for one in costs] == [True, True, True, False, False]
    assert abs(costs[0].seconds - (1e-4 / 4 + 2.5e-6)) < 1e-9


def test_ticks_in_which_a_row_has_top_p_are_measured_by_themselves() -> None:
    """The graph sorts the logits of all rows for the one, and single steps those of the one."""
    clock = Clock()

    class Sorting(Taking):
        def bind(self, run: Chunk | StepRun) -> "_Bound":
            bound = super().bind(run)
            assert isinstance(run, StepRun)
            return _Sorted(bound, run)

    class _Sorted(_Bound):
        def __init__(self, bound: _Bound, run: StepRun) -> None:
            self._bound, self._sorts = bound, run

        def run(self) -> None:
            clock.now += 1e-5 * self._sorts.picked.size * bool(self._sorts.has_cuts)
            self._bound.run()

    costs = measure_steps(Taking(clock, lambda *_: 1e-4), Sorting(clock, lambda *_: 1e-4), SHAPE, 16, clock)
    assert [one.seconds > 0 for one in costs] == [True, True, True]
    assert [one.cut_seconds > 0 for one in costs] == [True, True, False]


def test_slots_are_measured_last_and_more_rows_not_at_all() -> None:
    clock = Clock()
    single = Taking(clock, lambda *_: 1e-4)
    costs = measure_steps(single, Taking(clock, lambda *_: 1e-4), SHAPE, 3, clock)
    assert [one.rows for one in costs] == [1, 3]
    assert max(single.rows) == 3


def test_rows_whose_steps_are_long_end_the_measurement() -> None:
    clock = Clock()
    single = Taking(clock, lambda rows, _: rows * 1e-3)
    costs = measure_steps(single, Taking(clock, lambda *_: 1e-4), SHAPE, 256, clock)
    assert [one.rows for one in costs] == [1, 4, 16]


def test_graph_whose_draws_are_never_clear_is_not_faster() -> None:
    clock = Clock()

    class Unclear(Taking):
        def bind(self, run: Chunk | StepRun) -> "_Bound":
            bound = super().bind(run)
            assert isinstance(run, StepRun)
            run.totals[:] = float("nan")
            return bound

    single, several = Taking(clock, lambda *_: 1e-4), Unclear(clock, lambda *_: 1e-6)
    assert measure_steps(single, several, SHAPE, 1, clock) == (StepCost(1, 0.0, 0.0),)
