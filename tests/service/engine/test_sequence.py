"""service.engine.sequence."""

import pytest

from service.engine.sequence import Sequence
from tests.service.engine.fakes import generation_of, last_of, score_of


@pytest.mark.parametrize(
    ("sequence", "steps"),
    [
        pytest.param(last_of([1, 2, 3]), 3, id="LAST prefills all of its input"),
        pytest.param(score_of([1, 2, 3]), 2, id="SCORE only predicts its last token"),
        pytest.param(generation_of([1, 2, 3], 5), 2, id="GENERATE leaves its last token to a step tick"),
        pytest.param(generation_of([1], 5), 0, id="a prompt of one token needs no prefill"),
    ],
)
def test_prefill_steps_counts_the_steps_of_chunk_ticks(sequence: Sequence, steps: int) -> None:
    assert sequence.prefill_steps == steps


def test_sequences_of_equal_content_are_different_sequences() -> None:
    assert last_of([1, 2]) != last_of([1, 2])
