"""service.engine.draws: a draw that is clear is the sampler's, whatever the last bits of the sums."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from service.engine.draws import clear_steps, greedy_uniform, set_options, tolerance
from service.engine.sampling import key_of, options_of, pick, uniforms
from service.runtime import StepRun

VOCABULARY = 9
KEYS = np.array([key_of(seed) for seed in (1, 2, 3)])
POSITIONS = np.zeros(3, np.uint64)


def run_of(rows: int = 3, steps: int = 1) -> StepRun:
    """Return the arrays of a run, in which every draw is clear."""
    return StepRun(
        tokens=np.zeros(rows, np.int64),
        state=[],
        uniforms=np.full((steps, rows, 1), 0.5),
        inverse=np.ones((rows, 1)),
        has_cuts=np.array(False),
        top_k=np.zeros((rows, 1), np.int64),
        top_p=np.zeros((rows, 1)),
        after=[],
        picked=np.zeros((steps, rows), np.int64),
        reached=np.ones((steps, rows, 1)),
        weights=np.ones((steps, rows, 1)),
        totals=np.ones((steps, rows, 1)),
        cut_margins=np.ones((steps, 1, 1)),
        logits=np.zeros((steps, rows, VOCABULARY), np.float32),
    )


def drawn_otherwise(logits: NDArray[np.float32], run: StepRun, random: np.random.Generator) -> None:
    """Draw as a generation graph does, with exponentials and sums that are off in their last bits."""

    def off(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values * (1 + random.integers(-2, 3, values.shape) * 2.0**-52)

    with np.errstate(over="ignore"):
        shifted = (logits.astype(np.float64) - logits.max(axis=1, keepdims=True)) * run.inverse
    weights = off(np.exp(shifted))
    if run.has_cuts:
        order = np.argsort(-logits, axis=1, kind="stable")
        ranked = np.take_along_axis(weights, order, axis=1)
        ranked[np.arange(VOCABULARY)[None] >= run.top_k] = 0
        sums = off(ranked.cumsum(axis=1))
        before, total = sums - ranked, sums[:, -1:]
        run.cut_margins[0] = np.abs(before / total - run.top_p).min()
        ranked[before >= run.top_p * total] = 0
        np.put_along_axis(weights, order, ranked, axis=1)
    sums = np.maximum.accumulate(off(weights.cumsum(axis=1)), axis=1)
    run.totals[0] = sums[:, -1:]
    column = (sums > run.uniforms[0] * sums[:, -1:]).argmax(axis=1)[:, None]
    run.picked[0] = column[:, 0]
    run.reached[0] = np.take_along_axis(sums, column, axis=1)
    run.weights[0] = np.take_along_axis(weights, column, axis=1)


# Few values, so that logits are equal and draws are near sums.
LOGITS = arrays.arrays(
    np.float32,
    (3, VOCABULARY),
    elements=st.sampled_from([-1e30, -50.0, -1.5, 0.0, 0.1, 0.10000001, 2.0, 88.0]),
)
TEMPERATURES = st.sampled_from([0.0, 1e-310, 1e-5, 0.7, 1.0, 1e5, 1e308])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_clear_draw_is_the_samplers(data: st.DataObject) -> None:
    logits = data.draw(LOGITS)
    temperature = np.array([data.draw(TEMPERATURES) for _ in range(3)])
    top_k = np.array([data.draw(st.sampled_from([0, 1, 4, 9, 1 << 40])) for _ in range(3)])
    top_p = np.array([data.draw(st.sampled_from([1.0, 0.5, 1 / 3, 1e-9, 1 - 2.0**-50])) for _ in range(3)])
    options, run = options_of(temperature, top_k, top_p, VOCABULARY), run_of()
    greedy = set_options(run, options, temperature, VOCABULARY)
    run.uniforms[0, :, 0] = uniforms(KEYS, POSITIONS)
    run.uniforms[0, greedy] = greedy_uniform(VOCABULARY)
    drawn_otherwise(logits, run, np.random.default_rng(0))
    if clear_steps(run, tolerance(VOCABULARY)):
        np.testing.assert_array_equal(run.picked[0], pick(logits, options, KEYS, POSITIONS))


def test_most_draws_are_clear() -> None:
    """Else every tick would be run again; a draw of 3 * 1,000 is not clear with odds of 1 to 10**7."""
    random = np.random.default_rng(1)
    temperature, off = np.ones(3), np.zeros(3, np.int64)
    options, run = options_of(temperature, off, np.ones(3), VOCABULARY), run_of()
    set_options(run, options, temperature, VOCABULARY)
    for _ in range(1000):
        run.uniforms[0, :, 0] = random.random(3)
        drawn_otherwise(random.normal(0, 3, (3, VOCABULARY)).astype(np.float32), run, random)
        assert clear_steps(run, tolerance(VOCABULARY)) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("reached", 0.5, id="draw at the sum up to the token"),
        pytest.param("weights", 0.5, id="draw at the sum before the token"),
        pytest.param("totals", np.nan, id="total that is no number"),
        pytest.param("totals", np.inf, id="total that is infinite"),
        pytest.param("reached", np.nan, id="sum that is no number"),
        pytest.param("cut_margins", 0.0, id="sum at top_p"),
        pytest.param("cut_margins", np.nan, id="margin that is no number"),
    ],
)
def test_steps_before_one_that_is_not_clear_count(name: str, value: float) -> None:
    run = run_of(steps=5)
    assert clear_steps(run, tolerance(VOCABULARY)) == 5
    array: NDArray[Any] = getattr(run, name)
    array[3, -1] = value
    assert clear_steps(run, tolerance(VOCABULARY)) == 3


def test_greedy_rows_have_no_cuts() -> None:
    """Equal weights of theirs may be exactly at top_p."""
    temperature = np.array([0.0, 1.0, 0.0])
    top_k, top_p = np.array([3, 0, 0]), np.array([1.0, 1.0, 0.5])
    run = run_of()
    greedy = set_options(run, options_of(temperature, top_k, top_p, VOCABULARY), temperature, VOCABULARY)
    assert greedy.tolist() == [0, 2]
    assert not run.has_cuts
    assert (run.top_k == VOCABULARY).all()
    assert (run.top_p > 1).all()
