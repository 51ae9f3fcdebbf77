"""A group of engines as a machine with many clients: whoever comes, leaves, waits, reads slowly or is
reloaded, and whatever fails, in any order.

Each sequence receives a prefix of exactly what it would have received alone, then at most one error; all who
stay, whose deadlines hold, who are not refused for others and whose ticks succeed receive all of it.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.engine.limits import Limits
from service.engine.prompts import LEAST_STEPS
from service.engine.sampling import Sampling
from service.engine.sequence import Goal, Result, Sequence
from service.errors import DeadlineExceeded, DeadlineTooNear, ModelFailure, Overloaded
from tests.service.builders import engine_metrics
from tests.service.engine.fakes import (
    SHAPE,
    VOCABULARY,
    FakeCell,
    Reader,
    assert_same,
    expected,
    reader_of,
    received,
)

CLIENTS = ("a", "b", "c")
# Prompts that come again, so that some are kept and some are run for several at once.
PROMPTS = [[(step * step + kind) % VOCABULARY for step in range(LEAST_STEPS + 5)] for kind in range(2)]
inputs = st.one_of(
    st.sampled_from(PROMPTS), st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=30)
)
patience = st.one_of(st.none(), st.integers(0, 20))


def watch_turns(engine: Engine) -> None:
    """Fail where a client with waiting sequences is passed over again and again."""
    scheduler, passed = engine._scheduler, Counter[str]()
    admit_from: Callable[[str], Sequence] = scheduler.admit_from

    def admit(client: str) -> Sequence:
        admitted = admit_from(client)
        passed.pop(client, None)
        passed.update(scheduler.lines.clients)
        for gone in passed.keys() - scheduler.lines.clients:
            del passed[gone]
        assert max(passed.values(), default=0) <= 2 * len(CLIENTS) * scheduler.slots, f"passed over: {passed}"
        return admitted

    scheduler.admit_from = admit  # type: ignore[method-assign]


class Serving(RuleBasedStateMachine):
    """Groups of engines, the newest of which takes what comes, and everybody who ever came."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.accepted: list[tuple[EngineGroup, Sequence]] = []
        self.refused: list[Sequence] = []
        self.cancelled: dict[Sequence, int] = {}
        self.groups: list[EngineGroup] = []
        self.cells: list[FakeCell] = []

    @initialize(
        engines=st.integers(1, 2),
        slots=st.integers(1, 4),
        rows=st.integers(1, 4),
        chunk=st.integers(1, 4),
        max_waiting=st.integers(1, 8),
        pace=st.sampled_from([0.0, 3.0]),
    )
    def begin(self, engines: int, slots: int, rows: int, chunk: int, max_waiting: int, pace: float) -> None:
        self.num_engines, self.max_waiting = engines, max_waiting
        self.limits = Limits(
            slots, chunk, max_waiting, min(rows, slots), prompt_cache_bytes=1000, steps_per_second=pace
        )
        self.reload()

    def _post(self, results: list[Result]) -> None:
        for sequence, result in results:
            sequence.receiver.receive(result)

    @rule()
    def reload(self) -> None:
        """A new version takes what comes from now on; the old one goes on until nobody is left in it."""
        cells = [FakeCell() for _ in range(self.num_engines)]
        engines = [
            Engine("fake", cell, SHAPE, self.limits, self._post, engine_metrics(), lambda: self.now)
            for cell in cells
        ]
        for engine in engines:
            watch_turns(engine)
        self.cells += cells
        self.groups.append(EngineGroup(engines, self.max_waiting))

    @rule(
        client=st.sampled_from(CLIENTS),
        texts=st.lists(inputs, min_size=1, max_size=6),
        goal=st.sampled_from(Goal),
        seconds=patience,
        max_tokens=st.integers(1, 30),
        most_backlog=st.sampled_from([1, 3, 1000]),
        seed=st.integers(0, 9),
    )
    def submit(
        self,
        client: str,
        texts: list[list[int]],
        goal: Goal,
        seconds: int | None,
        max_tokens: int,
        most_backlog: int,
        seed: int,
    ) -> None:
        deadline = None if seconds is None else self.now + seconds
        sequences = [
            Sequence(
                np.array(text),
                goal,
                Reader(most_backlog),
                self.now,
                deadline,
                Sampling(seed=seed),
                max_tokens,
                True,
                client=client,
            )
            for text in texts
        ]
        group = self.groups[-1]
        waiting = sum((Counter(engine.room.waiting_by_client()) for engine in group.engines), Counter[str]())
        try:
            group.submit(sequences)
        except DeadlineTooNear:
            assert deadline is not None
            assert deadline > self.now
            self.refused += sequences
        except Overloaded:
            if len(sequences) == 1 and waiting[client] + 1 < max(waiting.values(), default=0):
                longest = max(waiting, key=waiting.__getitem__)
                assert not any(engine.room.newest_waiting(longest, 1) for engine in group.engines), (
                    "the longest line should have made room"
                )
            self.refused += sequences
        else:
            self.accepted += [(group, sequence) for sequence in sequences]

    @rule(number=st.integers(0, 99))
    def cancel(self, number: int) -> None:
        if self.accepted:
            group, sequence = self.accepted[number % len(self.accepted)]
            group.cancel([sequence])
            self.cancelled.setdefault(sequence, len(received(sequence)))

    @rule(number=st.integers(0, 99))
    def read(self, number: int) -> None:
        if self.accepted:
            reader_of(self.accepted[number % len(self.accepted)][1]).take()

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(number=st.integers(0, 9), turns=st.integers(1, 12))
    def tick(self, number: int, turns: int) -> None:
        engines = [engine for group in self.groups for engine in group.engines]
        engine = engines[number % len(engines)]
        for _ in range(turns):
            engine.tick()
            engine.check_integrity()

    @rule(number=st.integers(0, 9))
    def fail(self, number: int) -> None:
        """The next run of a cell fails."""
        cell = self.cells[number % len(self.cells)]
        cell.failures |= {len(cell.runs)}

    @invariant()
    def books_are_in_order(self) -> None:
        for group in self.groups:
            lines = [
                one
                for engine in group.engines
                for line in engine._scheduler.lines._lines.values()
                for one in line.sequences
            ]
            begun = sum(one.parked is not None or one.paused is not None for one in lines)
            assert sum(engine.num_waiting for engine in group.engines) - begun <= self.max_waiting
            for engine in group.engines:
                engine.check_integrity()

    def teardown(self) -> None:
        """Readers read, time stands still: all that is left ends within the work there is."""
        work = sum(len(one.inputs) + one.max_tokens + 2 for _, one in self.accepted)
        for _ in range(3 * work + 20):
            for _, sequence in self.accepted:
                reader_of(sequence).take()
            ran = [engine.tick() for group in self.groups for engine in group.engines]
            self.books_are_in_order()
            if not any(ran):
                break
        for group in self.groups:
            assert group.active == sum(engine.num_waiting for engine in group.engines) == 0
            assert not any(engine._parked for engine in group.engines)
        for sequence in self.refused:
            assert received(sequence) == []
            assert not sequence.is_over
        for _, sequence in self.accepted:
            self._check(sequence, received(sequence))
        failed = sum(
            isinstance(one, ModelFailure) for _, sequence in self.accepted for one in received(sequence)
        )
        assert failed == sum(cell.failed_rows for cell in self.cells)

    def _check(self, sequence: Sequence, results: list[object]) -> None:
        right = expected(sequence)
        assert sequence.is_over
        if sequence in self.cancelled:
            assert len(results) == self.cancelled[sequence]
        if results and isinstance(results[-1], DeadlineExceeded | ModelFailure | Overloaded):
            assert_same(results[:-1], right[: len(results) - 1])
            assert len(results) <= len(right)
            assert len(results) == 1 or not isinstance(results[-1], Overloaded)
        elif sequence in self.cancelled:
            assert_same(results, right[: len(results)])
        else:
            assert_same(results, right)


TestServing = Serving.TestCase
TestServing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
