"""service.api.open_inference.sequence_steps: turns, idle time, what a step leaves; without a network."""

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from prometheus_client import Counter

from service.api.held_bytes import HeldBytes
from service.api.open_inference.interfaces.interface import Outcome, StatefulInterface
from service.api.open_inference.parameters import Parameters
from service.api.open_inference.sequence_parameters import SequenceMark
from service.api.open_inference.sequence_steps import SequenceSteps
from service.api.open_inference.sequence_store import SequenceKey, SequenceStore
from service.api.open_inference.tensors import Tensor
from service.engine.request import ANYONE, Caller
from service.errors import InvalidArgument, SequenceUnknown
from service.tasks.limits import Limits
from tests.service.api.conftest import Running

IDLE_S = 60.0
KEY = SequenceKey("alice", "prices", 0, "7")


class Sums(StatefulInterface):
    """Adds the number of each request to the state; a number below 0 is refused, and `gate` may hold one."""

    state_bytes = 8

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.has_come = asyncio.Event()

    @property
    def limits(self) -> Limits:
        return Limits(8, 8, 8, 8, 1, 8)

    @property
    def properties(self) -> Mapping[str, object]:
        raise NotImplementedError

    def answer_bytes(self, outputs: Any, tensors: Any, parameters: Parameters) -> int:
        raise NotImplementedError

    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        raise NotImplementedError

    async def advance(
        self,
        state: Any,
        tensors: Mapping[str, Any],
        parameters: Parameters,  # noqa: ARG002
        caller: Caller,  # noqa: ARG002
    ) -> tuple[Outcome, Any]:
        self.has_come.set()
        await self.gate.wait()
        [number] = tensors["input"]
        if number < 0:
            raise InvalidArgument("input", f"expected a number, found {number}")
        after = (state or 0) + number
        return Outcome({"output": np.array([after])}), after


class Bench:
    """Steps over a store of four, with a clock that stands still until it is set."""

    def __init__(self, running: Running) -> None:
        self.now = 0.0
        self.store = SequenceStore(4, IDLE_S, HeldBytes(1 << 20))
        self.forgotten = Counter("forgotten", "Test.", registry=None)
        table = running.repository.table
        self.served = table.find("prices", 0, "forecasting")
        self.steps = SequenceSteps(self.store, table, self.forgotten, lambda: self.now)
        self.interface = Sums()

    async def push(self, number: int, marks: str = "", key: SequenceKey = KEY) -> int:
        """The sum after a number."""
        mark = SequenceMark(key.id, "start" in marks, "end" in marks)
        async with self.steps.turn(key, mark) as step:
            step.begin(self.served, self.interface)
            tensors: dict[str, Any] = {"input": np.array([number])}
            outcome = await step.advance(self.interface, tensors, Parameters({}, ()), ANYONE)
        sums: Any = outcome.tensors["output"]
        return int(sums[0])


@pytest.fixture
def bench(running: Running) -> Bench:
    return Bench(running)


async def test_state_is_kept_from_start_to_end(bench: Bench) -> None:
    assert [await bench.push(1, "start"), await bench.push(2), await bench.push(4, "end")] == [1, 3, 7]
    with pytest.raises(SequenceUnknown):
        await bench.push(8)
    assert (len(bench.store), bench.steps._lines) == (0, {})


async def test_idle_sequence_is_forgotten_and_counted(bench: Bench) -> None:
    await bench.push(1, "start")
    bench.now += IDLE_S - 1
    assert await bench.push(2) == 3  # from here it is idle anew
    bench.now += IDLE_S - 1
    assert await bench.push(4) == 7
    bench.now += IDLE_S
    with pytest.raises(SequenceUnknown, match="was idle for too long; begin anew"):
        await bench.push(8)
    assert (len(bench.store), bench.forgotten._value.get()) == (0, 1.0)


async def test_sequence_is_not_idle_while_a_request_of_it_is_answered(bench: Bench) -> None:
    await bench.push(1, "start")
    bench.interface.gate.clear()
    bench.interface.has_come.clear()
    slow = asyncio.create_task(bench.push(2))
    await bench.interface.has_come.wait()
    bench.now += 2 * IDLE_S
    bench.steps._forget_idle()
    bench.interface.gate.set()
    assert await slow == 3
    assert await bench.push(4) == 7


async def test_requests_wait_for_their_turn_in_order_of_arrival(bench: Bench) -> None:
    bench.interface.gate.clear()
    tasks = [asyncio.create_task(bench.push(1, "start"))]
    tasks += [asyncio.create_task(bench.push(1)) for _ in range(5)]
    tasks += [asyncio.create_task(bench.push(10, "start")), asyncio.create_task(bench.push(1, "end"))]
    other = asyncio.create_task(bench.push(100, "start", KEY._replace(id="other")))
    await bench.interface.has_come.wait()
    bench.interface.gate.set()
    assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5, 6, 10, 11]
    assert await other == 100


async def test_request_that_leaves_while_it_waits_lets_the_next_one_in(bench: Bench) -> None:
    bench.interface.gate.clear()
    first, leaving, last = (asyncio.create_task(bench.push(1, marks)) for marks in ("start", "", "end"))
    await bench.interface.has_come.wait()
    leaving.cancel()
    bench.interface.gate.set()
    assert [await first, await last] == [1, 2]
    assert leaving.cancelled()
    assert (len(bench.store), bench.steps._lines) == (0, {})


@pytest.mark.parametrize("marks", ["", "end"])
async def test_step_that_fails_or_is_cancelled_leaves_the_sequence(bench: Bench, marks: str) -> None:
    await bench.push(1, "start")
    with pytest.raises(InvalidArgument):
        await bench.push(-1, marks)
    bench.interface.gate.clear()
    bench.interface.has_come.clear()
    cancelled = asyncio.create_task(bench.push(50, marks))
    await bench.interface.has_come.wait()
    cancelled.cancel()
    await asyncio.wait([cancelled])
    bench.interface.gate.set()
    assert await bench.push(2) == 3


async def test_start_that_fails_leaves_no_sequence(bench: Bench) -> None:
    await bench.push(1, "start")
    with pytest.raises(InvalidArgument):
        await bench.push(-1, "start")
    with pytest.raises(SequenceUnknown):
        await bench.push(2)
    assert (len(bench.store), bench.store._held.total) == (0, 0)
