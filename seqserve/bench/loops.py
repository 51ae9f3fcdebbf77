"""Open and closed load loops: an open loop does not wait for answers, a closed one does.

This module uses asyncio, but neither gRPC nor messages.
"""

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from seqserve.bench.record import Call, Record

_PULSE_S = 0.01

Send: TypeAlias = Callable[[Call], Awaitable[None]]
"""Makes one call and writes its outcome into the Call; a failed call raises nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of one run.

    Attributes:
        rate: Calls per second of an open loop, or None for a closed loop.
        concurrency: Concurrent calls of a closed loop.
        constant: Whether the calls of an open loop are evenly spaced, instead of a Poisson process.
        max_in_flight: Limit of calls in flight of an open loop; a call beyond it is not sent, but counted.
        warm_up_s: Seconds before the measurement window; calls in it are sent but not counted.
        duration_s: Length of the window in seconds; None: until `requests` calls.
        requests: Number of calls in the window; None: until `duration_s`.
        drain_s: Seconds after the window within which calls in flight may finish before they are cancelled.
        goal_s: Maximum latency of a good answer in seconds.
        seed: Seed of the arrival times.
    """

    rate: float | None = None
    concurrency: int = 1
    constant: bool = False
    max_in_flight: int = 1000
    warm_up_s: float = 0.0
    duration_s: float | None = None
    requests: int | None = None
    drain_s: float = math.inf
    goal_s: float = math.inf
    seed: int = 0


def poisson_arrivals(rate: float, random: Random) -> Iterator[float]:
    """Yield the arrival times of a Poisson process, in seconds from the start, without end."""
    at = 0.0
    while True:
        at += random.expovariate(rate)
        yield at


def even_arrivals(rate: float) -> Iterator[float]:
    """Return evenly spaced arrival times, in seconds from the start, without end."""
    return (number / rate for number in itertools.count())


async def run(
    plan: Plan, send: Send, stop: asyncio.Event, began: Callable[[Record], None] | None = None
) -> Record:
    """Execute a plan, and wait for the answers to all calls sent.

    Args:
        plan: The parameters of the run.
        send: Makes one call.
        stop: Ends the run at once when set; calls in flight are cancelled.
        began: Called with the record before the first call, so that the caller can watch it.

    Returns:
        The counts and latencies of the run.

    Raises:
        ExceptionGroup: `send` raised.
    """
    now = asyncio.get_running_loop().time
    opens = now() + plan.warm_up_s
    record = Record(opens, math.inf if plan.duration_s is None else opens + plan.duration_s, plan.goal_s)
    if began is not None:
        began(record)
    work = asyncio.create_task(
        _closed_loop(plan, record, send) if plan.rate is None else _open_loop(plan, plan.rate, record, send)
    )
    await _wait_or_cancel(work, stop, record, record.closes + plan.drain_s - now())
    if not work.cancelled():
        work.result()
    if plan.duration_s is None or (plan.requests is not None and record.calls >= plan.requests):
        record.close(now() if math.isnan(record.last_ended) else math.nextafter(record.last_ended, math.inf))
    return record


async def _wait_or_cancel(
    work: asyncio.Task[None], stop: asyncio.Event, record: Record, timeout_s: float
) -> None:
    now = asyncio.get_running_loop().time
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait(
            (work, stopping),
            timeout=None if math.isinf(timeout_s) else timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if stopping.done():
            record.close(now())
    finally:
        stopping.cancel()
        work.cancel()
        await asyncio.gather(work, stopping, return_exceptions=True)


async def _open_loop(plan: Plan, rate: float, record: Record, send: Send) -> None:
    now = asyncio.get_running_loop().time
    started = record.opens - plan.warm_up_s
    random = Random(plan.seed)  # noqa: S311 - a workload, not a secret
    arrivals = even_arrivals(rate) if plan.constant else poisson_arrivals(rate, random)

    async def one(due: float) -> None:
        if due >= record.opens:
            record.lag.add(now() - due)
        await _send_call(Call(due), record, send)

    async with asyncio.TaskGroup() as group:
        for offset in arrivals:
            due = started + offset
            if not _is_planned(plan, record, due):
                break
            await asyncio.sleep(max(0.0, due - now()))
            record.plan(due)
            if record.in_flight >= plan.max_in_flight:
                record.skip(due)
            else:
                record.begin()
                group.create_task(one(due))


async def _closed_loop(plan: Plan, record: Record, send: Send) -> None:
    now = asyncio.get_running_loop().time

    async def worker() -> None:
        while _is_planned(plan, record, due := now()):
            record.plan(due)
            record.begin()
            await _send_call(Call(due), record, send)

    pulse = asyncio.create_task(_measure_lag(record))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.concurrency):
                group.create_task(worker())
    finally:
        pulse.cancel()


def _is_planned(plan: Plan, record: Record, due: float) -> bool:
    return due < record.closes and (plan.requests is None or record.calls < plan.requests)


async def _send_call(call: Call, record: Record, send: Send) -> None:
    now = asyncio.get_running_loop().time
    call.sent = now()
    try:
        await send(call)
    finally:
        call.ended = now()
        record.end(call)


async def _measure_lag(record: Record) -> None:
    """Record repeatedly by how much the event loop is late for a timer.

    An answer may be noticed this much later than it arrived.
    """
    now = asyncio.get_running_loop().time
    while True:
        due = now() + _PULSE_S
        await asyncio.sleep(_PULSE_S)
        if due >= record.opens:
            record.lag.add(now() - due)
