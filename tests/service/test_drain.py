"""service.drain: requests to stop, and what a drain waits for."""

import asyncio
import os
import signal
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service import drain
from service.api.calls import Calls
from service.api.engine_watches import EngineWatches
from service.api.health import HealthServicer
from service.drain import Drain, Stop
from service.models.table import VersionTable
from service.observability.metrics import Metrics
from tests.service.builders import settings_of

PATIENCE_S = 20
TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


class Clock:
    """The time that a `Stop` sees."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("signals", "expected"),
    [
        ([(0, TERM)], "asked"),
        ([(0, HUP)], "asked"),
        ([(0, TERM), (0.05, TERM)], "asked"),
        ([(0, TERM), (5, HUP)], "asked"),
        ([(0, HUP), (5, INT)], "hurried"),
        ([(0, TERM), (0.2, TERM)], "hurried"),
        ([(0, TERM), (0.2, TERM), (0.9, INT)], "hurried"),
        ([(0, TERM), (0.2, TERM), (5, HUP)], "hurried"),
        ([(0, TERM), (0.2, TERM), (1.1, INT)], f"exit {128 + INT}"),
    ],
)
async def test_each_signal_is_one_request_more(
    monkeypatch: pytest.MonkeyPatch, signals: list[tuple[float, int]], expected: str
) -> None:
    stop, clock, ended = Stop(), Clock(), list[int]()
    monkeypatch.setattr(stop, "_loop", clock)
    monkeypatch.setattr(os, "_exit", ended.append)
    for after, number in signals:
        clock.now += after
        stop.ask(number)
    found = "hurried" if stop.is_hurried.is_set() else "asked" if stop.is_asked.is_set() else "none"
    assert (f"exit {ended[0]}" if ended else found) == expected


class Listener:
    """A listener that ends when the calls have ended."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def stop(self, _: float) -> None:
        await self._calls.running.idle()

    async def calls_ended(self) -> None:
        await self._calls.running.idle()


async def test_drain_tells_what_it_waits_for(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "TOLD_EVERY_S", 0.01)
    calls, stop = Calls(Metrics(CollectorRegistry())), Stop()
    settings = settings_of(tmp_path, drain_seconds=600)
    draining = Drain(
        settings, stop, calls, cast("Any", Listener(calls)), HealthServicer(), EngineWatches(VersionTable())
    )
    is_over = asyncio.Event()
    call = asyncio.create_task(is_over.wait())
    calls.running.add(cast("Any", call), None, "/seqserve.v1.TextGeneration/Generate")
    call.add_done_callback(cast("Any", calls.running.remove))
    stop.ask(TERM)
    with capture_logs() as logs, monkeypatch.context() as patched:
        by_method = calls.running.by_method

        def end_after_the_first() -> dict[str, int]:
            is_over.set()
            return by_method()

        patched.setattr(calls.running, "by_method", end_after_the_first)
        async with asyncio.timeout(PATIENCE_S):
            await draining.run(has_served=True)
    told, *_ = [one for one in logs if one["event"] == "drain waits"]
    assert told["waits_for"] == "running calls"
    assert told["calls"] == {"/seqserve.v1.TextGeneration/Generate": 1}


async def test_server_that_never_served_has_no_grace(tmp_path: Any) -> None:
    calls, stop = Calls(Metrics(CollectorRegistry())), Stop()
    settings = settings_of(tmp_path, grace_seconds=600)
    draining = Drain(
        settings, stop, calls, cast("Any", Listener(calls)), HealthServicer(), EngineWatches(VersionTable())
    )
    stop.ask(TERM)
    async with asyncio.timeout(PATIENCE_S):
        await draining.run(has_served=False)
