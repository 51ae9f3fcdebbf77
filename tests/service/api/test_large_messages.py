"""service.api.large_messages: one at a time, clients in turn, and the event loop is free in between."""

import asyncio
import time

import pytest

from service.api.large_messages import LargeMessages
from service.errors import InvalidArgument

PARSE_S = 0.01


class Parser:
    """Parses messages in some time, and notes when each began and ended."""

    def __init__(self) -> None:
        self.parsed: list[bytes] = []
        self.times: list[tuple[float, float]] = []

    def __call__(self, data: bytes) -> bytes:
        started = time.perf_counter()
        time.sleep(PARSE_S)
        self.parsed.append(data)
        self.times.append((started, time.perf_counter()))
        return data


async def test_pause_after_a_message_is_as_long_as_its_parsing() -> None:
    large, parser = LargeMessages(), Parser()
    await asyncio.gather(*(large.parse("client", parser, b"%d" % number) for number in range(5)))
    for (began, ended), (following, _) in zip(parser.times, parser.times[1:], strict=False):
        assert following - ended > 0.8 * (ended - began)


async def test_clients_take_turns() -> None:
    large, parser = LargeMessages(), Parser()
    many = [asyncio.create_task(large.parse("many", parser, b"m%d" % number)) for number in range(10)]
    await asyncio.sleep(0)
    await large.parse("few", parser, b"f")
    assert parser.parsed.index(b"f") <= 2
    await asyncio.gather(*many)


async def test_message_that_does_not_parse_lets_the_next_one_go_on() -> None:
    large, parser = LargeMessages(), Parser()

    def fail(data: bytes) -> bytes:
        raise InvalidArgument("request", "no message")

    failing = asyncio.create_task(large.parse("client", fail, b""))
    assert await large.parse("client", parser, b"good") == b"good"
    with pytest.raises(InvalidArgument):
        await failing


async def test_cancelled_call_leaves_its_turn_to_the_next() -> None:
    large, parser = LargeMessages(), Parser()
    first, second, third = (
        asyncio.create_task(large.parse("client", parser, data)) for data in (b"1", b"2", b"3")
    )
    await asyncio.sleep(0)
    second.cancel()
    assert [await first, await third] == [b"1", b"3"]
    assert parser.parsed == [b"1", b"3"]
