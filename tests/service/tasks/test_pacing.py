"""service.tasks.pacing."""

import asyncio

import pytest

from service.tasks import pacing
from service.tasks.pacing import Pace


class Clock:
    """A clock that stands still until it is set."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pacing, "time", made)
    return made


async def passes_while(pace: Pace) -> int:
    """The passes that the event loop makes for others while the pace rests once."""
    passes = 0

    def count() -> None:
        nonlocal passes
        passes += 1

    asyncio.get_running_loop().call_soon(count)
    await pace.rest()
    return passes


async def test_work_goes_on_within_its_slice(clock: Clock) -> None:
    pace = Pace()
    clock.now += pacing.SLICE_S / 2
    assert await passes_while(pace) == 0


async def test_others_run_after_a_whole_slice(clock: Clock) -> None:
    pace = Pace()
    clock.now += pacing.SLICE_S * 1.01
    assert await passes_while(pace) == 1


async def test_slice_begins_anew_after_a_rest(clock: Clock) -> None:
    pace = Pace()
    clock.now += pacing.SLICE_S * 1.01
    await pace.rest()
    clock.now += pacing.SLICE_S / 2
    assert await passes_while(pace) == 0
