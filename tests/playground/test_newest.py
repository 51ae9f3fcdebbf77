"""The newest call wins: an older one is cancelled, and its answer is never shown."""

import asyncio
from functools import partial

import pytest

from seqserve.playground.newest import Newest


async def test_a_newer_call_cancels_the_one_before_it() -> None:
    newest = Newest[str]()
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hangs() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "old"

    async def answers() -> str:
        return "new"

    first = asyncio.create_task(newest.run(hangs))
    await begun.wait()
    assert await newest.run(answers) == "new"
    assert await first is None
    assert cancelled.is_set()


async def test_a_call_that_is_followed_within_the_delay_never_starts() -> None:
    newest = Newest[int](delay_s=0.01)
    started: list[int] = []

    async def call(number: int) -> int:
        started.append(number)
        return number

    answers = await asyncio.gather(*(newest.run(partial(call, number)) for number in range(5)))
    assert answers == [None, None, None, None, 4]
    assert started == [4]


async def test_cancelling_the_waiting_task_cancels_the_call() -> None:
    newest = Newest[None]()
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    waiting = asyncio.create_task(newest.run(hangs))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cancelled.is_set()


async def test_an_error_of_the_newest_call_is_raised() -> None:
    async def fails() -> None:
        raise ValueError("told")

    with pytest.raises(ValueError, match="told"):
        await Newest[None]().run(fails)
