"""Tests of service.engine.engine on the fake cell: a row goes on from a state that its caller keeps."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.request import Final, Goal, Request, Row, StateRow
from service.engine.sampling import Sampling
from service.errors import ModelFailure
from tests.service.engine.fakes import (
    LONG,
    Bench,
    FakeCell,
    assert_answered,
    assert_same,
    expected,
    generation_of,
    last_of,
    mixed,
    received,
    row_of,
)

WHOLE = np.array(LONG, np.int64)


def piece_of(inputs: NDArray[np.int64], state: StateRow | None) -> Row:
    return row_of(Request(inputs, Goal.LAST, state=state, keeps_state=True))


def output_of(row: Row) -> Any:
    [output] = received(row)
    return output


@pytest.mark.parametrize("cuts", [[1], [4], [1, 2, 3, 4, 5, 6], [3, 49], list(range(1, 50))])
def test_row_continued_from_its_state_gives_what_it_gives_whole(cuts: list[int]) -> None:
    bench, state = Bench(), None
    for inputs in np.split(WHOLE, cuts):
        piece = piece_of(inputs, state)
        bench.run(piece, *mixed())
        output, state = output_of(piece)
    assert_same([output], expected(last_of(LONG)))


def test_state_of_the_caller_is_good_after_a_failure() -> None:
    bench = Bench(chunk=100, cell=FakeCell(failures=[1]))
    bench.run(first := piece_of(WHOLE[:9], None))
    state = output_of(first).state
    bench.run(failed := piece_of(WHOLE[9:], state))
    assert isinstance(output_of(failed), ModelFailure)
    bench.run(again := piece_of(WHOLE[9:], state))
    assert_same([output_of(again).output], expected(last_of(LONG)))


def test_state_kept_by_the_caller_is_left_alone_by_later_ticks() -> None:
    bench = Bench(slots=1)
    bench.run(piece := piece_of(WHOLE[:9], None))
    final: Final = output_of(piece)
    copies = [tensor.copy() for tensor in final.state]
    bench.run(*mixed())
    assert_same(list(final.state), copies)


def test_one_state_can_be_continued_in_several_ways_at_once() -> None:
    bench = Bench(slots=4)
    bench.run(first := piece_of(WHOLE[:9], None))
    ways = [[index, 2, 3] for index in range(4)]
    pieces = [piece_of(np.array(way), output_of(first).state) for way in ways]
    bench.run(*pieces)
    for way, piece in zip(ways, pieces, strict=True):
        assert_same([output_of(piece).output], expected(last_of([*LONG[:9], *way])))


def test_generation_goes_on_from_a_state_with_the_tokens_of_the_whole() -> None:
    bench = Bench(slots=2)
    bench.run(first := piece_of(WHOLE[:9], None))
    state = output_of(first).state
    sampling = Sampling(seed=4)
    rest = row_of(Request(WHOLE[9:20], Goal.GENERATE, sampling, 12, True, state, position=9))
    bench.run(rest, *mixed())
    assert_same(received(rest), expected(generation_of(LONG[:20], 12, sampling)))
    assert_answered(rest)


def test_last_batch_alone_has_the_state_before_its_last_token() -> None:
    bench = Bench()
    request = Request(WHOLE[:5], Goal.GENERATE, Sampling(seed=4), 6, keeps_state=True)
    bench.submit(stream := row_of(request))
    bench.tick_until_idle()
    batches = [output for outputs in bench.posts for _, output in outputs]
    assert [batch.state is None for batch in batches] == [True] * 5 + [False]
    ids = [token for batch in batches for token in batch.ids]
    bench.run(whole := piece_of(np.array([*LONG[:5], *ids[:-1]]), None))
    assert_same(list(batches[-1].state), list(output_of(whole).state))
    assert stream.is_over
