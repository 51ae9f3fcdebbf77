"""Tests of service.engine.whole with real onnxruntime on small bidirectional LSTMs: the same bits in any
company.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.cell import Shape
from service.engine.group import EngineGroup
from service.engine.limits import Limits
from service.engine.request import Goal, Request
from service.engine.streaming import deliver
from service.engine.whole import WholeEngine
from service.observability.metrics import EngineMetrics
from service.runtime import WholeRuntime
from tests.bidirectional import bidirectional_graph
from tests.service.engine.fakes import received, row_of

FEATURES, OUTPUTS = 3, 4
SHAPE = Shape(FEATURES, OUTPUTS, ())
CELLS = {
    "pooled": WholeRuntime(bidirectional_graph(6, OUTPUTS, features=FEATURES), "cpu", 1),
    "a step": WholeRuntime(bidirectional_graph(6, OUTPUTS, features=FEATURES, is_pooled=False), "cpu", 1),
    "equal lengths": WholeRuntime(
        bidirectional_graph(6, OUTPUTS, features=FEATURES, padding="none"), "cpu", 1
    ),
}


@pytest.mark.parametrize("kind", list(CELLS))
@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=25),
    slots=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_answers_have_the_same_bits_alone_and_in_any_crowd(
    kind: str, lengths: list[int], slots: int, seed: int
) -> None:
    cell, random = CELLS[kind], np.random.default_rng(seed)
    max_padding = 0.1 if cell.takes_lengths else 0.0
    limits = Limits(slots, 1000, chunk_steps=1000, max_padding=max_padding)
    engine = WholeEngine("real", cell, SHAPE, limits, EngineMetrics())
    goals = [Goal.LAST, Goal.EVERY] if kind == "a step" else [Goal.LAST]
    rows = [
        row_of(Request(random.normal(size=(length, FEATURES)).astype(np.float32), goals[length % len(goals)]))
        for length in lengths
    ]
    EngineGroup([engine], 100).submit(rows)
    is_busy = True
    while is_busy:
        turn = engine.run_turn()
        deliver(turn.outputs)
        is_busy = turn.is_busy
    for row, length in zip(rows, lengths, strict=True):
        full = np.array([length], np.int32) if cell.takes_lengths else None
        [alone] = cell.run(row.request.inputs[None], full)
        right = alone[-1] if kind == "a step" and row.request.goal is Goal.LAST else alone
        [found] = received(row)
        np.testing.assert_array_equal(found, right)
