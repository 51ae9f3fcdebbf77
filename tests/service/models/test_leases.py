"""service.models.leases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from service.errors import Withdrawn
from service.models.leases import Leases


async def test_free_is_not_waited_for() -> None:
    await Leases().wait_until_free()


@asynccontextmanager
async def held_by_another(leases: Leases) -> AsyncIterator[None]:
    """Have a task hold a lease."""
    task = asyncio.create_task(asyncio.Event().wait())
    with leases.held_by(task):
        yield
    task.cancel()


async def test_last_lease_is_waited_for() -> None:
    leases = Leases()
    async with held_by_another(leases):
        with leases:
            waiting = asyncio.create_task(leases.wait_until_free())
            await asyncio.sleep(0)
            assert leases.count == 2
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def test_lease_that_is_taken_meanwhile_is_waited_for() -> None:
    leases = Leases()
    with leases:
        waiting = asyncio.create_task(leases.wait_until_free())
        await asyncio.sleep(0)
    with leases:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def test_lease_ends_with_an_error_too() -> None:
    leases = Leases()
    with pytest.raises(ValueError, match="wrong"), leases:
        raise ValueError("wrong")
    assert leases.count == 0


async def test_withdrawn_holder_ends_with_withdrawn_and_may_go_on() -> None:
    leases, begun = Leases(), asyncio.Event()

    async def hold() -> str:
        try:
            with leases:
                begun.set()
                await asyncio.Event().wait()
        except Withdrawn as withdrawn:
            await asyncio.sleep(0)  # it is no longer cancelled
            return withdrawn.reason
        return "nothing"

    holding = asyncio.create_task(hold())
    await begun.wait()
    assert leases.withdraw() == 1
    assert leases.withdraw() == 1
    assert await holding == "WITHDRAWN"
    await leases.wait_until_free()
    assert leases.withdraw() == 0


async def test_withdraw_cancels_the_task_that_a_lease_is_held_by() -> None:
    leases, begun = Leases(), asyncio.Event()
    lease = ExitStack()

    async def call() -> None:
        begun.set()
        with lease:
            await asyncio.Event().wait()

    calling = asyncio.create_task(call())
    lease.enter_context(leases.held_by(calling))
    await begun.wait()
    leases.withdraw()
    with pytest.raises(Withdrawn):
        await calling
    assert leases.count == 0


async def test_cancelled_holder_that_was_not_withdrawn_stays_cancelled() -> None:
    leases, begun = Leases(), asyncio.Event()

    async def hold() -> None:
        with leases:
            begun.set()
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await begun.wait()
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert leases.count == 0


async def test_more_returned_than_taken_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        Leases().__exit__()
