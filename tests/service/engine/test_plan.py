"""service.engine.plan."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.plan import ChunkPlan, plan_chunk
from service.engine.sampling import logprobs_of
from service.engine.sequence import Sequence
from tests.service.engine.fakes import VOCABULARY, generation_of, last_of, score_of

BUILDERS = {"last": last_of, "score": score_of, "generate": lambda tokens: generation_of(tokens, 5)}
rows_drawn = st.lists(
    st.tuples(st.sampled_from(sorted(BUILDERS)), st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=12), st.integers(0, 10)),
    min_size=1,
    max_size=6,
)


def planned(rows: list[Sequence], most_steps: int) -> ChunkPlan:
    return plan_chunk(rows, most_steps, np.zeros(len(rows) * most_steps, np.int64))


def build(drawn: list[tuple[str, list[int], int]]) -> list[Sequence]:
    """Sequences with some of their input consumed, at least one step of it left."""
    rows = []
    for kind, tokens, consumed in drawn:
        sequence = BUILDERS[kind](tokens)
        sequence.consumed = min(consumed, sequence.to_prefill - 1)
        rows.append(sequence)
    return rows


@given(rows_drawn, st.integers(1, 6))
def test_rows_get_their_own_next_steps(drawn: list[tuple[str, list[int], int]], most_steps: int) -> None:
    rows = build(drawn)
    plan = planned(rows, most_steps)
    assert plan.inputs.shape == (len(rows), max(plan.lengths))
    for sequence, inputs, length in zip(rows, plan.inputs, plan.lengths.tolist(), strict=True):
        assert length == min(most_steps, sequence.to_prefill)
        assert inputs[:length].tolist() == sequence.inputs[sequence.consumed : sequence.consumed + length].tolist()


@given(rows_drawn, st.integers(1, 6))
def test_head_is_asked_only_where_somebody_wants_it(drawn: list[tuple[str, list[int], int]], most_steps: int) -> None:
    rows = build(drawn)
    plan = planned(rows, most_steps)
    steps = plan.inputs.shape[1]
    right = set()
    for row, ((kind, _, _), sequence, length) in enumerate(zip(drawn, rows, plan.lengths.tolist(), strict=True)):
        if kind == "score":
            right |= {row * steps + step for step in range(length)}
        elif kind == "last" and length == sequence.to_prefill:
            right.add(row * steps + length - 1)
    assert set(plan.wanted.tolist()) == right
    assert len(plan.wanted) == len(right)


@given(rows_drawn, st.integers(1, 6))
def test_outputs_return_to_the_rows_that_wanted_them(drawn: list[tuple[str, list[int], int]], most_steps: int) -> None:
    """The head's output at a position is marked with that position; each row must get back its own marks."""
    rows = build(drawn)
    plan = planned(rows, most_steps)
    steps = plan.inputs.shape[1]
    generator = np.random.default_rng(0)
    marks = generator.normal(size=(len(rows) * steps, VOCABULARY)).astype(np.float32)
    output = marks[plan.wanted]
    for sequence, answer in plan.ended(output):
        row = rows.index(sequence)
        np.testing.assert_array_equal(answer, marks[row * steps + plan.lengths[row] - 1])
    for sequence, logprobs in plan.scored(output):
        row, start = rows.index(sequence), sequence.consumed
        length = int(plan.lengths[row])
        right = logprobs_of(marks[row * steps : row * steps + length], sequence.inputs[start + 1 : start + 1 + length])
        np.testing.assert_array_equal(logprobs, right)


def test_answers_are_copies() -> None:
    plan = planned([last_of([1, 2])], 4)
    output = np.ones((1, VOCABULARY), np.float32)
    [(_, answer)] = plan.ended(output)
    output[:] = 0
    assert (answer == 1).all()


def test_nothing_is_wanted_in_the_middle_of_an_input() -> None:
    plan = planned([last_of(range(7)), generation_of(range(7), 3)], 2)
    assert plan.wanted.tolist() == []
    assert list(plan.ended(np.empty((0, VOCABULARY), np.float32))) == list(plan.scored(np.empty((0, VOCABULARY), np.float32))) == []


def test_useful_steps_are_those_of_all_rows() -> None:
    assert planned([last_of([1]), last_of([1, 2, 3])], 8).useful_steps == 4


def test_features_are_planned_row_by_row() -> None:
    sequence = last_of([0])
    sequence.inputs = np.arange(6, dtype=np.float32).reshape(3, 2)
    plan = plan_chunk([sequence], 2, np.zeros((4, 2), np.float32))
    assert plan.inputs.tolist() == [[[0, 1], [2, 3]]]


@pytest.mark.parametrize("most_steps", [1, 3, 100])
def test_inputs_are_written_into_the_buffer(most_steps: int) -> None:
    buffer = np.zeros(2 * most_steps, np.int64)
    plan = plan_chunk([last_of([1, 2]), last_of([3])], most_steps, buffer)
    assert np.shares_memory(plan.inputs, buffer)
    assert plan.inputs.flags.c_contiguous
