"""service.api.bidi, on a call whose two directions are in the hands of the test."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.api.bidi import Turns, Write, serve_stream
from service.api.calls import has_memory
from service.api.held_bytes import MESSAGE_FACTOR, HeldBytes, Holding
from service.api.receiving import Receiving
from service.api.requests import Requests
from service.api.running import RunningCalls
from service.errors import BytesExhausted, InvalidArgument, ServiceError
from service.transport.call import CallBroken

PATIENCE_S = 20.0
NO_MESSAGE = "?"

Answer = Callable[[str, Write[str]], Awaitable[None]]


class Context:
    """A call: what is put into `sent` is read, `None` for the end; what is written comes out of `written`,
    one write a permit.
    """

    def __init__(self, permits: int = 1_000) -> None:
        self.sent: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self.written: list[str] = []
        self.num_read = 0
        self.permits = asyncio.Semaphore(permits)
        self.is_writing = False

    has_one_message = False

    async def read(self) -> object:
        message = await self.sent.get()
        if isinstance(message, Exception):
            raise message
        self.num_read += message is not None
        return message

    async def write(self, message: str) -> None:
        assert not self.is_writing, "gRPC takes one message at a time"
        self.is_writing = True
        await self.permits.acquire()
        self.is_writing = False
        self.written.append(message)


def send(context: Context, *messages: str | Exception | None) -> None:
    for message in messages:
        context.sent.put_nowait(message)


class Echo:
    """Answers each request with itself, at once, but for those that are held.

    Attributes:
        begun: requests whose answers have begun.
        cancelled: requests whose answers were cancelled.
    """

    def __init__(self, held: str = "") -> None:
        self.gates = {request: asyncio.Event() for request in held}
        self.begun: list[str] = []
        self.cancelled: list[str] = []

    def release(self, request: str) -> None:
        self.gates[request].set()

    async def answer(self, request: str, write: Write[str]) -> None:
        self.begun.append(request)
        try:
            if request in self.gates:
                await self.gates[request].wait()
            await write(request)
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise


async def settled() -> None:
    """Let every task run until it waits for something that only the test can bring."""
    for _ in range(40):
        await asyncio.sleep(0)


def parse(message: str) -> str:
    if message == NO_MESSAGE:
        raise InvalidArgument("request", "expected a message, found none")
    return message


async def served(
    context: Context, answer: Answer, max_in_flight: int = 100, held: HeldBytes | None = None
) -> None:
    receiving = Receiving(RunningCalls(), 1 << 20, has_memory)
    as_bytes: Any = parse
    requests = Requests(context, as_bytes, Holding(held or HeldBytes(1 << 20), "caller"), receiving)
    async with asyncio.timeout(PATIENCE_S):
        await serve_stream(requests, context, max_in_flight, answer)


def serving(
    context: Context, answer: Answer, max_in_flight: int = 100, held: HeldBytes | None = None
) -> "asyncio.Task[None]":
    return asyncio.create_task(served(context, answer, max_in_flight, held))


# Answers.


async def test_every_request_is_answered_and_the_end_of_requests_ends_the_call() -> None:
    context = Context()
    send(context, *"abcdef", None)
    await served(context, Echo().answer)
    assert context.written == list("abcdef")


async def test_call_without_a_request_ends() -> None:
    context = Context()
    send(context, None)
    await served(context, Echo().answer, 1)
    assert context.written == []


async def test_requests_are_begun_in_the_order_in_which_they_come() -> None:
    context, echo = Context(), Echo(held="abcdef")
    send(context, *"fbacde")
    run = serving(context, echo.answer)
    await settled()
    assert echo.begun == list("fbacde")
    for request in "abcdef":
        echo.release(request)
    send(context, None)
    await run


async def test_answers_come_in_the_order_in_which_they_are_ready() -> None:
    context, echo = Context(), Echo(held="a")
    send(context, *"abc", None)
    run = serving(context, echo.answer)
    await settled()
    assert context.written == ["b", "c"]
    assert not run.done(), "a request is open"
    echo.release("a")
    await run
    assert context.written == ["b", "c", "a"]


async def test_answers_are_written_one_after_the_other_in_the_order_in_which_they_were_ready() -> None:
    context = Context(permits=0)
    send(context, *"abcd", None)
    run = serving(context, Echo().answer)
    for count in range(4):
        await settled()
        assert len(context.written) == count
        context.permits.release()
    await run
    assert context.written == list("abcd")


async def test_answer_of_several_messages_counts_once_and_waits_for_each_to_be_written() -> None:
    context = Context(permits=0)
    begun: list[str] = []

    async def spell(word: str, write: Write[str]) -> None:
        for letter in word:
            begun.append(letter)
            await write(letter)

    send(context, "abc", "de", None)
    run = serving(context, spell, 1)
    for count in range(1, 4):
        await settled()
        assert begun == list("abc"[:count])
        assert context.num_read == 1
        context.permits.release()
    await settled()
    assert context.num_read == 2
    for _ in "de":
        context.permits.release()
    await run
    assert context.written == list("abcde")


async def test_request_may_be_answered_with_nothing() -> None:
    context = Context()

    async def say_nothing(request: str, write: Write[str]) -> None:
        pass

    send(context, *"abc", None)
    await served(context, say_nothing, 1)
    assert context.written == []


# Bounds.


@pytest.mark.parametrize("most", [1, 3])
async def test_caller_who_does_not_read_stops_being_read_from(most: int) -> None:
    context = Context(permits=0)
    send(context, *"abcdefgh", None)
    run = serving(context, Echo().answer, most)
    await settled()
    assert context.num_read == most
    context.permits.release()
    await settled()
    assert (context.num_read, len(context.written)) == (most + 1, 1)
    for _ in "abcdefgh":
        context.permits.release()
    await run
    assert context.written == list("abcdefgh")


@pytest.mark.parametrize("most", [1, 3])
async def test_unanswered_requests_are_bounded(most: int) -> None:
    context, echo = Context(), Echo(held="abcdefgh")
    send(context, *"abcdefgh", None)
    run = serving(context, echo.answer, most)
    for count, request in enumerate("abcdefgh"):
        await settled()
        assert context.num_read == min(8, most + count)
        echo.release(request)
    await run


# Errors.


async def test_refusal_that_an_answer_writes_itself_leaves_the_other_requests_alone() -> None:
    context = Context()

    async def answer(request: str, write: Write[str]) -> None:
        try:
            if request == "b":
                raise InvalidArgument("field", "expected a or c, found b")
        except ServiceError as error:
            await write(str(error))
        else:
            await write(request)

    send(context, *"abc", None)
    await served(context, answer)
    assert context.written == ["a", "field: expected a or c, found b", "c"]


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), InvalidArgument("field", "not written")])
async def test_error_of_an_answer_ends_the_call_as_it_is_and_cancels_the_others(error: Exception) -> None:
    context, echo = Context(), Echo(held="ac")

    async def answer(request: str, write: Write[str]) -> None:
        if request == "x":
            raise error
        await echo.answer(request, write)

    send(context, *"abcx")
    with pytest.raises(type(error)) as raised:
        await served(context, answer)
    assert raised.value is error
    assert context.written == ["b"]
    assert sorted(echo.cancelled) == ["a", "c"]
    send(context, "d")
    await settled()
    assert context.num_read == 4


async def test_failure_of_reading_ends_the_call_and_cancels_what_is_open() -> None:
    context, echo = Context(), Echo(held="b")
    send(context, *"ab")
    run = serving(context, echo.answer)
    await settled()
    send(context, ValueError("no message"))
    with pytest.raises(ValueError, match="no message"):
        await run
    assert context.written == ["a"]
    assert echo.cancelled == ["b"]


async def test_call_does_not_end_with_an_error_while_an_answer_is_being_written() -> None:
    """gRPC's core takes no status beside a message: the call would hang. What is ready before the error is
    written, and nothing after it.
    """
    context, echo = Context(permits=0), Echo(held="c")

    async def answer(request: str, write: Write[str]) -> None:
        if request == "x":
            raise ZeroDivisionError("a bug")
        await echo.answer(request, write)

    send(context, *"abc")
    run = serving(context, answer)
    await settled()
    send(context, "x")
    await settled()
    echo.release("c")
    for count in range(2):
        await settled()
        assert (run.done(), len(context.written)) == (False, count)
        context.permits.release()
    with pytest.raises(ZeroDivisionError):
        await run
    assert context.written == ["a", "b"]
    assert echo.cancelled == ["c"]


async def test_several_errors_end_the_call_with_the_first() -> None:
    context = Context(permits=0)

    async def answer(request: str, write: Write[str]) -> None:
        if request != "a":
            raise ValueError(request)
        await write(request)

    send(context, *"abcd")
    run = serving(context, answer)
    await settled()
    context.permits.release()
    with pytest.raises(ValueError, match="b"):
        await run
    assert context.written == ["a"]


async def test_failure_of_writing_ends_the_call_as_it_is() -> None:
    context, echo = Context(), Echo(held="a")

    async def write(message: str) -> None:
        raise CallBroken

    context.write = write  # type: ignore[method-assign]
    send(context, *"ab")
    with pytest.raises(CallBroken):
        await served(context, echo.answer)
    assert echo.cancelled == ["a"]


async def test_request_that_did_not_parse_ends_the_call_once_those_before_it_are_answered() -> None:
    context, echo = Context(), Echo(held="b")
    send(context, *"ab")
    run = serving(context, echo.answer)
    await settled()
    send(context, NO_MESSAGE, "c", None)
    await settled()
    assert (run.done(), context.written) == (False, ["a"])
    echo.release("b")
    with pytest.raises(InvalidArgument, match="request: expected a message, found none"):
        await run
    assert context.written == ["a", "b"]
    assert context.num_read == 3


# Bytes.


async def test_reading_pauses_while_earlier_requests_hold_the_room() -> None:
    held = HeldBytes(3 * MESSAGE_FACTOR + 1)
    context, echo = Context(), Echo(held="abc")
    send(context, *"abcdefghi", None)
    run = serving(context, echo.answer, held=held)
    await settled()
    assert (context.num_read, echo.begun) == (4, list("abc"))
    echo.release("b")
    await settled()
    assert context.written == ["b", *"defghi"]
    echo.release("a")
    echo.release("c")
    await run
    assert sorted(context.written) == list("abcdefghi")


async def test_request_that_finds_no_room_ends_the_call() -> None:
    held = HeldBytes(2 * MESSAGE_FACTOR)
    context, echo = Context(), Echo()
    send(context, "a", "too long", "b", None)
    with pytest.raises(BytesExhausted):
        await served(context, echo.answer, held=held)
    assert context.written == ["a"]


# Ends from outside.


async def test_cancelled_call_ends_its_reading() -> None:
    context = Context()
    run = serving(context, Echo().answer)
    await settled()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    send(context, "late")
    await settled()
    assert context.num_read == 0


async def test_cancelled_call_cancels_every_answer_and_waits_for_it() -> None:
    context, has_cleaned = Context(), []

    async def answer(request: str, _: Write[str]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            has_cleaned.append(request)

    send(context, *"abc")
    run = serving(context, answer)
    await settled()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert sorted(has_cleaned) == ["a", "b", "c"]


async def test_call_that_is_cancelled_while_its_caller_does_not_read_ends() -> None:
    context, echo = Context(permits=0), Echo()
    send(context, *"abc")
    run = serving(context, echo.answer, 2)
    await settled()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert context.written == []
    assert sorted(echo.cancelled) == ["a", "b"]


# Turns.


class Round:
    """Takes turns, and says who has one."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.has_turn: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    def start(self, name: str) -> "asyncio.Task[None]":
        self.gates[name] = asyncio.Event()
        return asyncio.create_task(self._take(name))

    async def _take(self, name: str) -> None:
        if self.turns.is_taken:
            await self.turns.wait()
        self.turns.is_taken = True
        self.has_turn.append(name)
        try:
            await self.gates[name].wait()
        finally:
            self.has_turn.remove(name)
            self.turns.pass_on()


async def test_turns_are_taken_one_at_a_time_in_the_order_of_the_calls() -> None:
    around = Round()
    tasks = [around.start(name) for name in "abc"]
    for name in "abc":
        await settled()
        assert around.has_turn == [name]
        around.gates[name].set()
    await asyncio.gather(*tasks)
    assert not around.turns.is_taken


async def test_one_who_comes_while_a_turn_is_passed_on_waits() -> None:
    around = Round()
    first, second = around.start("a"), around.start("b")
    await settled()
    around.gates["a"].set()
    await first
    third = around.start("c")  # the second has been woken and has not yet run
    await settled()
    assert around.has_turn == ["b"]
    for name in "bc":
        around.gates[name].set()
    await asyncio.gather(second, third)


async def test_one_who_leaves_while_waiting_is_passed_over() -> None:
    around = Round()
    tasks = {name: around.start(name) for name in "abc"}
    await settled()
    tasks["b"].cancel()
    await settled()
    around.gates["a"].set()
    await settled()
    assert around.has_turn == ["c"]
    around.gates["c"].set()
    await tasks["c"]


async def test_one_who_leaves_as_the_turn_comes_passes_it_on() -> None:
    around = Round()
    tasks = {name: around.start(name) for name in "abc"}
    await settled()
    around.gates["a"].set()
    await tasks["a"]
    tasks["b"].cancel()  # it has been woken and has not yet run
    await settled()
    assert around.has_turn == ["c"]
    around.gates["c"].set()
    await tasks["c"]
    assert not around.turns.is_taken
