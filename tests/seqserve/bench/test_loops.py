"""When calls are sent and which are counted, in virtual time."""

import asyncio
import math
from itertools import takewhile
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqserve.bench.loops import Plan, Send, even_arrivals, poisson_arrivals, run
from seqserve.bench.record import OK, Call, Record
from seqserve.bench.result import Result
from tests.seqserve.bench.virtual_time import run_virtually


def taking(seconds: float, code: str = OK) -> Send:
    async def send(call: Call) -> None:
        await asyncio.sleep(seconds)
        call.code = code

    return send


def measured(plan: Plan, send: Send, *, interrupt_s: float | None = None) -> Record:
    async def main() -> Record:
        stop = asyncio.Event()
        if interrupt_s is not None:
            asyncio.get_running_loop().call_later(interrupt_s, stop.set)
        return await run(plan, send, stop)

    return run_virtually(main())


@given(seed=st.integers(), rate=st.floats(1, 50))
@settings(max_examples=20, deadline=None)
def test_an_open_loop_sends_what_arrives_in_the_window_whatever_comes_back(seed: int, rate: float) -> None:
    record = measured(
        Plan(rate=rate, duration_s=3, warm_up_s=1, max_in_flight=10**6, seed=seed), taking(100.0)
    )
    arrivals = list(takewhile(lambda at: at < 4, poisson_arrivals(rate, Random(seed))))
    assert record.calls == sum(at >= 1 for at in arrivals)
    assert record.begun == record.ended == len(arrivals)
    assert record.answered == record.calls
    assert record.answers == 0  # they came after the window


def test_calls_at_even_distances_come_so() -> None:
    record = measured(Plan(rate=8, constant=True, duration_s=2), taking(0.01))
    assert (record.calls, record.answered, record.answers) == (16, 16, 16)
    assert list(takewhile(lambda at: at < 0.5, even_arrivals(8))) == [0, 0.125, 0.25, 0.375]


def test_the_rate_of_poisson_arrivals_is_the_one_asked_for() -> None:
    count = sum(1 for _ in takewhile(lambda at: at < 1000, poisson_arrivals(20, Random(0))))
    assert count == pytest.approx(20_000, rel=0.03)


def test_open_loop_latency_counts_from_when_a_call_was_due() -> None:
    """A server that stands still for a second answers none of the calls due in that second fast, though the
    load generator stood still with it.
    """
    clock = [0.0]

    async def send(call: Call) -> None:
        if not clock[0]:
            clock[0] = call.due
            blocking = asyncio.get_running_loop()
            blocking._clock.now += 1.0  # type: ignore[attr-defined]
        call.code = OK

    record = measured(Plan(rate=10, constant=True, duration_s=1), send)
    assert record.calls == 10
    assert record.latency.min_value == pytest.approx(0.1)
    assert record.latency.max_value == pytest.approx(1.0)
    assert record.lag.max_value == pytest.approx(0.9)
    assert Result(Plan(), record).generator_was_the_bottleneck


def test_calls_beyond_those_in_flight_are_not_sent_and_counted() -> None:
    record = measured(Plan(rate=10, constant=True, duration_s=2, max_in_flight=5), taking(10.0))
    assert (record.calls, record.unsent, record.answered) == (20, 15, 5)


def test_a_closed_loop_has_so_many_calls_at_a_time() -> None:
    most = [0, 0]

    async def send(call: Call) -> None:
        most[0] += 1
        most[1] = max(most)
        await asyncio.sleep(0.5)
        most[0] -= 1
        call.code = OK

    record = measured(Plan(concurrency=3, duration_s=2.25), send)
    assert most[1] == 3
    assert record.calls == record.answered == 15  # the last three began within the window and are waited for
    assert record.answers == 12
    assert record.latency.quantile(0.5) == pytest.approx(0.5, rel=0.011)


@pytest.mark.parametrize(
    "plan",
    [Plan(concurrency=2, warm_up_s=1, duration_s=2), Plan(rate=2, constant=True, warm_up_s=1, duration_s=2)],
)
def test_warm_up_calls_are_made_and_not_counted(plan: Plan) -> None:
    record = measured(plan, taking(0.75))
    assert record.begun > record.calls
    assert record.latency.count == record.calls


def test_as_many_requests_as_asked_for_are_counted() -> None:
    for plan in (
        Plan(concurrency=4, requests=10),
        Plan(rate=5, requests=10),
        Plan(rate=5, requests=10, duration_s=1000, warm_up_s=1),
    ):
        record = measured(plan, taking(0.3))
        assert (record.calls, record.answered) == (10, 10)
        assert math.isfinite(record.closes)
        assert record.answers >= 10


def test_what_takes_longer_than_the_drain_is_broken_off_and_counted_apart() -> None:
    record = measured(Plan(rate=10, constant=True, duration_s=1, drain_s=5), taking(1e6))
    assert (record.calls, record.unfinished, record.answered, record.failed) == (10, 10, 0, 0)
    assert Result(Plan(), record).errors == 10


@pytest.mark.parametrize(
    "plan",
    [Plan(concurrency=4, duration_s=100), Plan(rate=4, constant=True, duration_s=100)],
    ids=["closed", "open"],
)
def test_an_interrupt_gives_what_was_measured_and_counts_apart_what_was_under_way(plan: Plan) -> None:
    record = measured(plan, taking(1.0), interrupt_s=10.5)
    result = Result(plan, record, interrupted=True)
    assert result.window_s == pytest.approx(10.5)
    assert record.unfinished == 4
    assert result.codes == {OK: record.answered, "unfinished": 4}
    assert result.errors == 0
    assert record.in_flight == 0


def test_an_interrupt_in_the_warm_up_gives_an_empty_result() -> None:
    result = Result(
        Plan(),
        measured(Plan(rate=4, warm_up_s=100, duration_s=1), taking(1.0), interrupt_s=10),
        interrupted=True,
    )
    assert (result.record.calls, result.window_s, result.codes) == (0, 0, {OK: 0})
    assert math.isnan(result.figures["requests_per_second"])


def test_failures_are_counted_by_code_and_are_in_no_latency() -> None:
    codes = iter([OK, "UNAVAILABLE", OK, "INTERNAL", "UNAVAILABLE", OK])

    async def send(call: Call) -> None:
        call.code = next(codes)
        call.message = f"about {call.code}"

    record = measured(Plan(requests=6), send)
    assert Result(Plan(), record).codes == {OK: 3, "UNAVAILABLE": 2, "INTERNAL": 1}
    assert (record.latency.count, record.failing.count) == (3, 3)
    assert record.messages == {"UNAVAILABLE": "about UNAVAILABLE", "INTERNAL": "about INTERNAL"}


def test_a_fault_of_the_load_generator_is_raised() -> None:
    async def send(_call: Call) -> None:
        raise RuntimeError("a fault")

    with pytest.raises(ExceptionGroup) as caught:
        measured(Plan(requests=1), send)
    assert caught.group_contains(RuntimeError, match="a fault")
