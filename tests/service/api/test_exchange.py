"""service.api.exchange, on a call whose two directions are in the hands of the test."""

import asyncio
from collections.abc import Awaitable

import pytest
from grpc import aio

from service.api.exchange import Exchange
from service.api.parsing import Malformed
from service.errors import InvalidArgument

PATIENCE_S = 20.0


class Context:
    """A call: what is put into `sent` is read, `None` for the end; what is written comes out of `written`,
    one write a `permit`.
    """

    def __init__(self, permits: int = 1_000) -> None:
        self.sent: asyncio.Queue[str | Malformed | Exception | None] = asyncio.Queue()
        self.written: list[str] = []
        self.num_read = 0
        self.permits = asyncio.Semaphore(permits)

    async def read(self) -> object:
        message = await self.sent.get()
        if isinstance(message, Exception):
            raise message
        self.num_read += message is not None
        return aio.EOF if message is None else message

    async def write(self, message: str) -> None:
        await self.permits.acquire()
        self.written.append(message)


def send(context: Context, *messages: str | Malformed | Exception | None) -> None:
    for message in messages:
        context.sent.put_nowait(message)


class Echo:
    """Answers each request at once, but for those that are held."""

    def __init__(self, exchange: Exchange[str, str], held: str = "") -> None:
        self.exchange = exchange
        self.held = held

    def take(self, request: str) -> None:
        if request not in self.held:
            self.answer(request)

    def answer(self, request: str) -> None:
        self.exchange.answer(request)


async def settled() -> None:
    """Let every task run until it waits for something that only the test can bring."""
    for _ in range(20):
        await asyncio.sleep(0)


async def ended(run: Awaitable[None]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await run


async def test_every_request_is_answered_and_the_end_of_requests_ends_the_call() -> None:
    context = Context()
    exchange: Exchange[str, str] = Exchange(context, 100)
    send(context, *"abcdef", None)
    await ended(exchange.run(Echo(exchange).take))
    assert context.written == list("abcdef")


async def test_call_without_a_request_ends() -> None:
    context = Context()
    exchange: Exchange[str, str] = Exchange(context, 1)
    send(context, None)
    await ended(exchange.run(Echo(exchange).take))
    assert context.written == []


async def test_answers_come_in_the_order_in_which_they_are_ready() -> None:
    context = Context()
    exchange: Exchange[str, str] = Exchange(context, 100)
    echo = Echo(exchange, held="a")
    send(context, *"abc", None)
    run = asyncio.ensure_future(exchange.run(echo.take))
    await settled()
    assert context.written == ["b", "c"]
    assert not run.done(), "a request is open"
    echo.answer("a")
    await ended(run)
    assert context.written == ["b", "c", "a"]


@pytest.mark.parametrize("most", [1, 3])
async def test_caller_who_does_not_read_stops_being_read_from(most: int) -> None:
    context = Context(permits=0)
    exchange: Exchange[str, str] = Exchange(context, most)
    send(context, *"abcdefgh", None)
    run = asyncio.ensure_future(exchange.run(Echo(exchange).take))
    await settled()
    assert context.num_read == most
    context.permits.release()
    await settled()
    assert (context.num_read, len(context.written)) == (most + 1, 1)
    for _ in "abcdefgh":
        context.permits.release()
    await ended(run)
    assert context.written == list("abcdefgh")


@pytest.mark.parametrize("most", [1, 3])
async def test_unanswered_requests_are_bounded(most: int) -> None:
    context = Context()
    exchange: Exchange[str, str] = Exchange(context, most)
    echo = Echo(exchange, held="abcdefgh")
    send(context, *"abcdefgh", None)
    run = asyncio.ensure_future(exchange.run(echo.take))
    for count, request in enumerate("abcdefgh"):
        await settled()
        assert context.num_read == min(8, most + count)
        echo.answer(request)
    await ended(run)


async def test_what_take_returns_is_awaited_before_the_next_request() -> None:
    context = Context()
    exchange: Exchange[str, str] = Exchange(context, 100)
    gate = asyncio.Event()

    async def wait(request: str) -> None:
        await gate.wait()
        exchange.answer(request)

    send(context, *"ab", None)
    run = asyncio.ensure_future(exchange.run(wait))
    await settled()
    assert context.num_read == 1
    gate.set()
    await ended(run)
    assert context.written == ["a", "b"]


async def test_failure_ends_the_call_after_the_answers_before_it() -> None:
    context = Context()
    exchange: Exchange[str, str] = Exchange(context, 100)

    def take(request: str) -> None:
        exchange.answer(request)
        exchange.fail(ZeroDivisionError("a bug"))

    send(context, "a")
    with pytest.raises(ZeroDivisionError):
        await ended(exchange.run(take))
    assert context.written == ["a"]


async def test_failure_of_taking_a_request_ends_the_call() -> None:
    context = Context()
    exchange: Exchange[str, str] = Exchange(context, 100)

    def take(_: str) -> None:
        raise ZeroDivisionError("a bug")

    send(context, "a")
    with pytest.raises(ZeroDivisionError):
        await ended(exchange.run(take))


async def test_failure_of_reading_ends_the_call_after_the_answers_that_are_ready() -> None:
    context = Context()
    exchange: Exchange[str, str] = Exchange(context, 100)
    send(context, "a", "b", ValueError("no message"))
    with pytest.raises(ValueError, match="no message"):
        await ended(exchange.run(Echo(exchange, held="b").take))
    assert context.written == ["a"]


async def test_cancelled_call_ends_its_reading() -> None:
    context = Context()
    exchange: Exchange[str, str] = Exchange(context, 100)
    run = asyncio.ensure_future(exchange.run(Echo(exchange).take))
    await settled()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await settled()
    send(context, "late")
    await settled()
    assert context.num_read == 0


async def test_request_that_did_not_parse_ends_the_call_after_the_answers_before_it() -> None:
    context = Context()
    exchange: Exchange[str, str] = Exchange(context, 100)
    send(context, *"ab", Malformed("package.Message", 3), "c", None)
    with pytest.raises(
        InvalidArgument, match=r"request: expected a package\.Message message, found 3 bytes that are none"
    ):
        await ended(exchange.run(Echo(exchange).take))
    assert context.written == ["a", "b"]
    assert context.num_read == 3


async def test_answer_of_several_messages_counts_once_and_waits_for_each_to_be_written() -> None:
    context = Context(permits=0)
    exchange: Exchange[str, str] = Exchange(context, 1)
    begun: list[str] = []
    running: list[asyncio.Task[None]] = []

    async def spell(word: str) -> None:
        for letter in word[:-1]:
            begun.append(letter)
            await exchange.begin(letter)
        exchange.answer(word[-1])

    def take(request: str) -> None:
        running.append(asyncio.create_task(spell(request)))

    send(context, "abc", "de", None)
    run = asyncio.ensure_future(exchange.run(take))
    for count in range(3):
        await settled()
        assert begun == list("abc"[: min(count + 1, 2)])
        assert context.num_read == 1
        context.permits.release()
    await settled()
    assert context.num_read == 2
    for _ in "de":
        context.permits.release()
    await ended(run)
    assert context.written == list("abcde")
