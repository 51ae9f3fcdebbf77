"""service.engine.group on fake cells: who gets what, and that a group answers as one engine does."""

from functools import partial

import numpy as np
import pytest

from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.engine.limits import Limits
from service.engine.prompts import LEAST_STEPS
from service.engine.sampling import Sampling
from service.engine.sequence import Result, Sequence
from service.errors import ModelFailure, Overloaded
from tests.service.builders import engine_metrics
from tests.service.engine.fakes import (
    LONG,
    SHAPE,
    FakeCell,
    assert_answered,
    generation_of,
    last_of,
    mixed,
    received,
)

PROMPT = [index % 7 for index in range(LEAST_STEPS + 10)]


class Engines:
    """A group whose engines are driven by hand, one after the other."""

    def __init__(self, count: int = 2, max_waiting: int = 100, slots: int = 3) -> None:
        limits = Limits(slots, 4, max_waiting, prompt_cache_bytes=1 << 20)
        self.cells = [FakeCell() for _ in range(count)]
        self.each = [Engine("fake", cell, SHAPE, limits, self._post, engine_metrics()) for cell in self.cells]
        self.group = EngineGroup(self.each, max_waiting)

    def _post(self, results: list[Result]) -> None:
        for sequence, result in results:
            sequence.receiver.receive(result)

    def tick(self) -> bool:
        ran = [engine.tick() for engine in self.each]
        for engine in self.each:
            engine.check_integrity()
        return any(ran)

    def finish(self) -> None:
        while self.tick():
            pass


def homes(sequences: list[Sequence]) -> list[int]:
    return [sequence.home for sequence in sequences]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_goal_gets_its_own_answer(count: int) -> None:
    engines, sequences = Engines(count), mixed()
    engines.group.submit(sequences)
    engines.finish()
    assert_answered(*sequences)


def test_sequences_are_dealt_out_evenly() -> None:
    engines, sequences = Engines(3), [last_of(LONG) for _ in range(9)]
    engines.group.submit(sequences[:4])
    engines.group.submit(sequences[4:])
    assert sorted(homes(sequences)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_next_sequence_goes_where_the_fewest_are() -> None:
    engines, first, second = Engines(), last_of(LONG), last_of([1])
    engines.group.submit([first, second])
    engines.tick()
    engines.group.submit([third := last_of(LONG)])
    assert third.home == second.home != first.home


def test_equal_prompts_go_to_one_engine_and_are_run_once() -> None:
    engines = Engines(slots=8)
    texts = [generation_of(PROMPT, 3, Sampling(seed=seed)) for seed in range(6)]
    for text in texts:
        engines.group.submit([text])
    engines.finish()
    assert len(set(homes(texts))) == 1
    assert (
        sum(rows for cell in engines.cells for rows, steps in cell.runs if steps == 4)
        == (len(PROMPT) - 1) // 4
    )
    assert_answered(*texts)


def test_equal_prompts_spread_where_one_engine_would_get_much_busier() -> None:
    engines = Engines()
    texts = [generation_of(PROMPT, 3, Sampling(seed=seed)) for seed in range(60)]
    engines.group.submit(texts)
    assert sorted(np.bincount(homes(texts))) == [26, 34]
    engines.finish()
    assert_answered(*texts)


def test_bound_of_the_queue_is_that_of_all_engines() -> None:
    engines = Engines(max_waiting=5)
    engines.group.submit([last_of(LONG) for _ in range(4)])
    refused = [last_of([1]), last_of([1])]
    with pytest.raises(Overloaded, match="expected at most 5 waiting sequences, found 4 and 2 more"):
        engines.group.submit(refused)
    engines.finish()
    assert [received(one) for one in refused] == [[], []]


def test_cancelled_sequences_leave_their_own_engines() -> None:
    engines, sequences = Engines(), [generation_of([1], 1000) for _ in range(6)]
    engines.group.submit(sequences)
    engines.tick()
    engines.group.cancel(sequences)
    engines.tick()
    assert engines.group.active == 0


def test_group_has_failed_when_one_engine_has() -> None:
    engines = Engines()
    engines.cells[1].is_faulty = True
    engines.group.submit([last_of([1]), last_of([1])])
    engines.each[1]._run()
    assert engines.group.has_failed


def test_request_that_meets_a_failed_engine_is_refused_whole() -> None:
    engines = Engines()
    engines.cells[1].is_faulty = True
    engines.each[1].submit([last_of([1])])
    engines.each[1]._run()
    sequences = [last_of([2, 3]) for _ in range(4)]
    with pytest.raises(ModelFailure, match="has stopped on an error"):
        engines.group.submit(sequences)
    engines.each[0].tick()
    assert [received(one) for one in sequences] == [[]] * 4


def test_engine_that_is_given_nothing_is_not_woken() -> None:
    engines, woken = Engines(3), list[int]()
    for number, engine in enumerate(engines.each):
        engine.wake = partial(woken.append, number)  # type: ignore[method-assign]
    engines.group.submit([one := last_of([1])])
    assert woken == [one.home]


def test_slots_are_those_of_all_engines() -> None:
    assert Engines(3, slots=5).group.slots == 15
