"""service.engine.engine on the fake cell: a sequence goes on from a state that its caller keeps."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.sequence import Ended, Goal, Sequence, StateRow
from service.errors import ModelFailure
from tests.service.engine.fakes import (
    LONG,
    Bench,
    FakeCell,
    Reader,
    assert_same,
    expected,
    last_of,
    mixed,
    received,
)

WHOLE = np.array(LONG, np.int64)


def piece_of(inputs: NDArray[np.int64], state: StateRow | None) -> Sequence:
    return Sequence(inputs, Goal.LAST, Reader(), 0.0, state=state, keeps_state=True)


def result_of(sequence: Sequence) -> Any:
    [result] = received(sequence)
    return result


@pytest.mark.parametrize("cuts", [[1], [4], [1, 2, 3, 4, 5, 6], [3, 49], list(range(1, 50))])
def test_sequence_continued_from_its_state_gives_what_it_gives_whole(cuts: list[int]) -> None:
    bench, state = Bench(), None
    for inputs in np.split(WHOLE, cuts):
        piece = piece_of(inputs, state)
        bench.run(piece, *mixed())
        output, state = result_of(piece)
    assert_same([output], expected(last_of(LONG)))


def test_state_of_the_caller_is_good_after_a_failure() -> None:
    bench = Bench(chunk=100, cell=FakeCell(failures=[1]))
    bench.run(first := piece_of(WHOLE[:9], None))
    state = result_of(first).state
    bench.run(failed := piece_of(WHOLE[9:], state))
    assert isinstance(result_of(failed), ModelFailure)
    bench.run(again := piece_of(WHOLE[9:], state))
    assert_same([result_of(again).output], expected(last_of(LONG)))


def test_state_kept_by_the_caller_is_left_alone_by_later_ticks() -> None:
    bench = Bench(slots=1)
    bench.run(piece := piece_of(WHOLE[:9], None))
    ended: Ended = result_of(piece)
    copies = [tensor.copy() for tensor in ended.state]
    bench.run(*mixed())
    assert_same(list(ended.state), copies)


def test_one_state_can_be_continued_in_several_ways_at_once() -> None:
    bench = Bench(slots=4)
    bench.run(first := piece_of(WHOLE[:9], None))
    ways = [[index, 2, 3] for index in range(4)]
    pieces = [piece_of(np.array(way), result_of(first).state) for way in ways]
    bench.run(*pieces)
    for way, piece in zip(ways, pieces, strict=True):
        assert_same([result_of(piece).output], expected(last_of([*LONG[:9], *way])))
