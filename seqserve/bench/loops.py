"""When calls are sent: an open loop, which does not wait for answers, and a closed one, which does. Knows
asyncio, and neither gRPC nor messages.
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
"""Makes one call and writes into it what became of it; a failure of the call is no exception."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run goes.

    Attributes:
        rate: calls a second of an open loop; None: it is a closed one.
        concurrency: calls at a time of a closed loop.
        constant: the calls of an open loop come at even distances; else as independent callers do.
        max_in_flight: a call of an open loop that would be one more than so many under way is not sent, and
            counted as such.
        warm_up_s: time before the window; its calls are made, and not counted.
        duration_s: length of the window; None: until `requests`.
        requests: calls within the window; None: until `duration_s`.
        drain_s: what calls may take that are under way when the window closes; then they are broken off.
        goal_s: what a good answer takes at most.
        seed: of the arrivals.
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
    """Seconds from the start at which independent callers come, `rate` of them a second, without end."""
    at = 0.0
    while True:
        at += random.expovariate(rate)
        yield at


def even_arrivals(rate: float) -> Iterator[float]:
    """Seconds from the start at which calls come at even distances, `rate` of them a second, without end."""
    return (number / rate for number in itertools.count())


async def run(
    plan: Plan, send: Send, stop: asyncio.Event, began: Callable[[Record], None] | None = None
) -> Record:
    """Carry out a plan, and wait for the answers to all that was sent.

    Args:
        plan: what to do.
        send: makes a call.
        stop: set: the run ends at once, and calls under way are broken off.
        began: gets the record, to watch it, before the first call.

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
    stopping = asyncio.create_task(stop.wait())
    limit = record.closes + plan.drain_s - now()
    try:
        await asyncio.wait(
            (work, stopping),
            timeout=None if math.isinf(limit) else limit,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if stopping.done():
            record.close(now())
    finally:
        stopping.cancel()
        work.cancel()
        await asyncio.gather(work, stopping, return_exceptions=True)
    if not work.cancelled():
        work.result()
    if plan.duration_s is None or (plan.requests is not None and record.calls >= plan.requests):
        record.close(now() if math.isnan(record.last_ended) else math.nextafter(record.last_ended, math.inf))
    return record


async def _open_loop(plan: Plan, rate: float, record: Record, send: Send) -> None:
    now = asyncio.get_running_loop().time
    started = record.opens - plan.warm_up_s

    async def one(due: float) -> None:
        if due >= record.opens:
            record.lag.add(now() - due)
        await _make(Call(due), record, send)

    async with asyncio.TaskGroup() as group:
        for offset in even_arrivals(rate) if plan.constant else poisson_arrivals(rate, Random(plan.seed)):  # noqa: S311 -- a load, not a secret
            due = started + offset
            if not _goes_on(plan, record, due):
                break
            await asyncio.sleep(max(0.0, due - now()))
            record.plan(due)
            if record.outstanding >= plan.max_in_flight:
                record.skip(due)
            else:
                record.begin()
                group.create_task(one(due))


async def _closed_loop(plan: Plan, record: Record, send: Send) -> None:
    now = asyncio.get_running_loop().time

    async def worker() -> None:
        while _goes_on(plan, record, due := now()):
            record.plan(due)
            record.begin()
            await _make(Call(due), record, send)

    pulse = asyncio.create_task(_measure_lag(record))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.concurrency):
                group.create_task(worker())
    finally:
        pulse.cancel()


def _goes_on(plan: Plan, record: Record, due: float) -> bool:
    return due < record.closes and (plan.requests is None or record.calls < plan.requests)


async def _make(call: Call, record: Record, send: Send) -> None:
    now = asyncio.get_running_loop().time
    call.sent = now()
    try:
        await send(call)
    finally:
        call.ended = now()
        record.end(call)


async def _measure_lag(record: Record) -> None:
    """By how much the event loop is late for a timer, again and again: so much later than they came, answers
    may be seen.
    """
    now = asyncio.get_running_loop().time
    while True:
        due = now() + _PULSE_S
        await asyncio.sleep(_PULSE_S)
        if due >= record.opens:
            record.lag.add(now() - due)
