"""Tests of a group of engines as a state machine with many clients: rows come, leave, wait, are read slowly
or meet a reload, and ticks fail, in any order.

Each row receives a prefix of exactly what it would have received alone, then at most one error; rows whose
callers stay, whose deadlines hold, that are not evicted and whose ticks succeed receive all of it.
"""

from collections import Counter

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.engine.core import EngineCore
from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.engine.limits import Limits
from service.engine.prompt_cache import MIN_STEPS
from service.engine.request import Goal, Request, Row
from service.engine.sampling import Sampling
from service.engine.streaming import deliver
from service.errors import DeadlineExceeded, DeadlineTooNear, ModelFailure, Overloaded
from service.observability.metrics import EngineMetrics
from tests.service.engine.fakes import (
    SHAPE,
    VOCABULARY,
    FakeCell,
    assert_counted_out,
    assert_same,
    expected,
    reader_of,
    received,
    row_of,
    submit_to,
)

CLIENTS = ("a", "b", "c")
# Prompts that come again, so that some are found in the cache.
PROMPTS = [[(step * step + kind) % VOCABULARY for step in range(MIN_STEPS + 5)] for kind in range(2)]
inputs = st.one_of(
    st.sampled_from(PROMPTS), st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=30)
)
patience = st.one_of(st.none(), st.integers(0, 20))


def watch_turns(engine: Engine) -> None:
    """Let an engine fail where a client with waiting rows is passed over again and again."""
    admit, passed = engine._admit, Counter[str]()
    max_passed = 2 * len(CLIENTS) * engine.limits.slots

    def watched(row: Row) -> None:
        admit(row)
        passed.pop(row.client, None)
        passed.update(engine._queue.clients)
        for gone in passed.keys() - engine._queue.clients:
            del passed[gone]
        assert max(passed.values(), default=0) <= max_passed, f"passed over: {passed}"

    engine._admit = watched  # type: ignore[method-assign]


class Serving(RuleBasedStateMachine):
    """Groups of engines, the newest of which takes what comes, and all rows that ever came."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.accepted: list[tuple[EngineGroup, Row]] = []
        self.refused: list[Row] = []
        self.cancelled: dict[Row, int] = {}
        self.groups: list[EngineGroup] = []
        self.cells: list[FakeCell] = []

    @initialize(
        engines=st.integers(1, 2),
        slots=st.integers(1, 4),
        rows=st.integers(1, 4),
        chunk=st.integers(1, 4),
        max_waiting=st.integers(1, 8),
        throughput=st.sampled_from([0.0, 3.0]),
        write_interval_s=st.sampled_from([0.0, 2.0]),
    )
    def begin(
        self,
        engines: int,
        slots: int,
        rows: int,
        chunk: int,
        max_waiting: int,
        throughput: float,
        write_interval_s: float,
    ) -> None:
        self.num_engines, self.max_waiting = engines, max_waiting
        self.limits = Limits(
            slots,
            chunk,
            min(rows, slots),
            write_interval_s=write_interval_s,
            prompt_cache_bytes=1000,
            steps_per_second=throughput,
        )
        self.reload()

    @rule()
    def reload(self) -> None:
        """Let a new version take what comes from now on; the old one goes on until no row is left in it."""
        cells = [FakeCell() for _ in range(self.num_engines)]
        engines = [
            Engine("fake", cell, SHAPE, self.limits, EngineMetrics(), lambda: self.now, number)
            for number, cell in enumerate(cells)
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
        max_backlog=st.sampled_from([1, 3, 1000]),
        seed=st.integers(0, 9),
    )
    def submit(
        self,
        client: str,
        texts: list[list[int]],
        goal: Goal,
        seconds: int | None,
        max_tokens: int,
        max_backlog: int,
        seed: int,
    ) -> None:
        deadline = None if seconds is None else self.now + seconds
        requests = [
            Request(np.array(text), goal, Sampling(seed=seed), max_tokens, wants_logprobs=True)
            for text in texts
        ]
        rows = [row_of(request, deadline, client, max_backlog) for request in requests]
        group = self.groups[-1]
        waiting = Counter({name: account.waiting for name, account in group._accounts.items()})
        try:
            submit_to(group, rows)
        except DeadlineTooNear:
            assert deadline is not None
            assert deadline > self.now
            self.refused += rows
        except Overloaded:
            most = max(waiting.values(), default=0)
            assert len(rows) > 1 or waiting[client] + 1 >= most, "the longest line should have made room"
            self.refused += rows
        else:
            self.accepted += [(group, row) for row in rows]

    @rule(number=st.integers(0, 99))
    def cancel(self, number: int) -> None:
        if self.accepted:
            group, row = self.accepted[number % len(self.accepted)]
            group.cancel([row])
            self.cancelled.setdefault(row, len(received(row)))

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
        for _ in range(turns):
            self._run_turn(engines[number % len(engines)])

    def _run_turn(self, engine: EngineCore) -> bool:
        turn = engine.run_turn()
        engine.check_integrity()
        deliver(turn.outputs)
        return turn.is_busy

    @rule(number=st.integers(0, 9))
    def fail(self, number: int) -> None:
        """Let the next run of a cell fail."""
        cell = self.cells[number % len(self.cells)]
        cell.failures |= {len(cell.runs)}

    @invariant()
    def counts_are_in_order(self) -> None:
        for group in self.groups:
            assert 0 <= group.num_waiting <= self.max_waiting
            for engine in group.engines:
                engine.check_integrity()

    def teardown(self) -> None:
        """Let readers read while time stands still: all that is left ends within the work there is."""
        requests = [row.request for _, row in self.accepted]
        work = sum(len(request.inputs) + request.max_tokens + 2 for request in requests)
        for _ in range(3 * work + 20):
            for _, row in self.accepted:
                reader_of(row).take()
            are_busy = [self._run_turn(engine) for group in self.groups for engine in group.engines]
            self.counts_are_in_order()
            if not any(are_busy):
                break
        for group in self.groups:
            assert_counted_out(group)
        for row in self.refused:
            assert received(row) == []
            assert not row.is_over
        for _, row in self.accepted:
            self._check(row, received(row))
        failed = sum(isinstance(output, ModelFailure) for _, row in self.accepted for output in received(row))
        assert failed == sum(cell.failed_rows for cell in self.cells)

    def _check(self, row: Row, outputs: list[object]) -> None:
        right = expected(row)
        assert row.is_over
        is_evicted = [type(output) for output in outputs] == [Overloaded]
        if row in self.cancelled and not is_evicted:
            assert len(outputs) == self.cancelled[row]
        if is_evicted:
            assert not row.has_begun
        elif outputs and isinstance(outputs[-1], DeadlineExceeded | ModelFailure):
            assert_same(outputs[:-1], right[: len(outputs) - 1])
            assert len(outputs) <= len(right)
        elif row in self.cancelled:
            assert_same(outputs, right[: len(outputs)])
        else:
            assert_same(outputs, right)


TestServing = Serving.TestCase
TestServing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
