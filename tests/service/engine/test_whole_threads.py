"""Tests of whole engines with real threads, as test_threads.py tests those that cut sequences in time."""

import asyncio
import random
from collections import Counter

import pytest
from structlog.testing import capture_logs

from service.engine.driver import Kind
from service.engine.group import EngineGroup
from service.engine.limits import Limits
from service.engine.request import Goal
from service.engine.whole import WholeEngine
from service.observability.metrics import EngineMetrics
from tests.service.engine.fakes import SHAPE, assert_counted_out, check_every_turn
from tests.service.engine.test_threads import (
    MAX_WAITING,
    driving,
    right_outputs_of,
    run_callers,
    settle,
    short_switches,
)
from tests.service.engine.whole_fakes import FakeWholeCell

__all__ = ["short_switches"]
GOALS = (Goal.LAST, Goal.EVERY)


def build_engines(count: int, cell: FakeWholeCell | None = None) -> list[WholeEngine]:
    limits = Limits(slots=4, chunk=100, chunk_steps=100)
    engines = [
        WholeEngine("fake", cell or FakeWholeCell(), SHAPE, limits, EngineMetrics(), number=number)
        for number in range(count)
    ]
    for engine in engines:
        check_every_turn(engine)
    return engines


@pytest.mark.usefixtures("short_switches")
@pytest.mark.parametrize(
    ("kind", "num_engines"),
    [
        pytest.param("thread", 1, id="a thread"),
        pytest.param("loop", 1, id="the event loop"),
        pytest.param("thread", 2, id="two threads"),
    ],
)
async def test_callers_in_many_threads_get_exactly_their_own_answers(kind: Kind, num_engines: int) -> None:
    engines = build_engines(num_engines)
    group = EngineGroup(engines, MAX_WAITING)
    async with driving(kind, engines) as failed:
        outcomes = await run_callers(group, random.randrange(1 << 30), GOALS)
        await settle(group)
    assert [error for one in outcomes for error in one.trouble] == []
    assert not failed
    ends = Counter(right_outputs_of(row, one) for one in outcomes for row in one.rows)
    assert_counted_out(group)
    assert not ends["failed"]
    # What the test is about has happened. The odds that one of these is missing are below one in a million.
    assert ends["answered"]
    assert ends["out of time"]


@pytest.mark.usefixtures("short_switches")
async def test_fault_among_callers_in_many_threads_leaves_no_row_without_its_end() -> None:
    cell = FakeWholeCell()
    engines = build_engines(1, cell)
    group = EngineGroup(engines, MAX_WAITING)
    with capture_logs() as logs:
        async with driving("thread", engines) as failed:
            asyncio.get_running_loop().call_later(0.1, setattr, cell, "is_faulty", True)
            outcomes = await run_callers(group, random.randrange(1 << 30), GOALS)
    assert [error for one in outcomes for error in one.trouble] == []
    assert failed == engines
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["engine stopped"]
    ends = Counter(right_outputs_of(row, one) for one in outcomes for row in one.rows)
    assert ends["failed"]
    assert group.num_waiting == group.active == 0
