"""service.models.leases."""

import asyncio

import pytest

from service.models.leases import Leases


async def test_free_is_not_waited_for() -> None:
    await Leases().wait_until_free()


async def test_last_lease_is_waited_for() -> None:
    leases = Leases()
    leases.acquire()
    with leases:
        waiting = asyncio.create_task(leases.wait_until_free())
        await asyncio.sleep(0)
        assert leases.count == 2
    await asyncio.sleep(0)
    assert not waiting.done()
    leases.release()
    await waiting


async def test_lease_that_is_taken_meanwhile_is_waited_for() -> None:
    leases = Leases()
    leases.acquire()
    waiting = asyncio.create_task(leases.wait_until_free())
    await asyncio.sleep(0)
    leases.release()
    leases.acquire()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    leases.release()
    await waiting


async def test_lease_ends_with_an_error_too() -> None:
    leases = Leases()
    with pytest.raises(ValueError, match="wrong"), leases:
        raise ValueError("wrong")
    assert leases.count == 0


def test_more_returned_than_taken_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        Leases().release()
