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
def test_to_prefill_counts_the_steps_of_chunk_ticks(sequence: Sequence, steps: int) -> None:
    assert sequence.to_prefill == steps


def test_to_prefill_falls_by_what_was_consumed() -> None:
    sequence = last_of([1, 2, 3])
    sequence.consumed = 2
    assert sequence.to_prefill == 1


def test_sequences_of_equal_content_are_different_sequences() -> None:
    assert last_of([1, 2]) != last_of([1, 2])
