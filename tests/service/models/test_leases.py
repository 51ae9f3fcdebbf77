"""service.models.leases."""

import asyncio

import pytest

from service.models.leases import Uses


async def test_unused_is_not_waited_for() -> None:
    await Uses().none()


async def test_none_waits_for_the_last_use() -> None:
    uses = Uses()
    uses.begin()
    with uses:
        waiting = asyncio.create_task(uses.none())
        await asyncio.sleep(0)
        assert uses.count == 2
    await asyncio.sleep(0)
    assert not waiting.done()
    uses.end()
    await waiting


async def test_use_that_begins_meanwhile_is_waited_for() -> None:
    uses = Uses()
    uses.begin()
    waiting = asyncio.create_task(uses.none())
    await asyncio.sleep(0)
    uses.end()
    uses.begin()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    uses.end()
    await waiting


async def test_use_ends_with_an_error_too() -> None:
    uses = Uses()
    with pytest.raises(ValueError, match="wrong"), uses:
        raise ValueError("wrong")
    assert uses.count == 0


def test_more_ends_than_begins_are_a_bug() -> None:
    with pytest.raises(AssertionError):
        Uses().end()
