"""Calls that break: what the client asks for then, and that its user sees nothing of it; through both
clients.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st

from seqserve import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    Generation,
    InvalidArgument,
    Retry,
    SeqserveError,
    TextPiece,
    Unavailable,
)
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, spelled, started
from tests.seqserve.test_client_errors import BAD_REQUEST, status

QUICK = Retry(first_backoff_s=0.001, most_backoff_s=0.001)
ENDLESS = Retry(first_backoff_s=3600, most_backoff_s=3600)
LOST = status(grpc.StatusCode.UNAVAILABLE, "gone")
RESET = status(grpc.StatusCode.INTERNAL, "RST_STREAM")
FULL = status(
    grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full", RetryInfo(retry_delay=Duration(nanos=1_000_000))
)
FAULT = status(
    grpc.StatusCode.INTERNAL, "the runtime failed", ErrorInfo(reason="MODEL_FAILURE", domain="seqserve")
)
TEXT = "Speak, speak."

Write = Callable[..., Any]


@pytest.fixture(params=["sync", "aio"])
def write(request: pytest.FixtureRequest, server: ScriptedServer) -> Write:
    """Generates with the client under test; gives the pieces and the whole."""

    async def sync(*, retry: Retry | None = QUICK, **options: Any) -> tuple[list[TextPiece], Generation]:
        with (
            Client(server.address, retry=retry, timeout_s=WAIT_S) as client,
            client.generate(**options) as stream,
        ):
            return list(stream), stream.read()

    async def aio(*, retry: Retry | None = QUICK, **options: Any) -> tuple[list[TextPiece], Generation]:
        async with (
            AsyncClient(server.address, retry=retry, timeout_s=WAIT_S) as client,
            client.generate(**options) as stream,
        ):
            return [piece async for piece in stream], await stream.read()

    return sync if request.param == "sync" else aio


@pytest.fixture(params=["sync", "aio"])
def ask(request: pytest.FixtureRequest, server: ScriptedServer) -> Write:
    async def sync(method: str, *arguments: Any, retry: Retry | None = QUICK, **options: Any) -> Any:
        with Client(server.address, retry=retry, timeout_s=WAIT_S) as client:
            return getattr(client, method)(*arguments, **options)

    async def aio(method: str, *arguments: Any, retry: Retry | None = QUICK, **options: Any) -> Any:
        async with AsyncClient(server.address, retry=retry, timeout_s=WAIT_S) as client:
            return await getattr(client, method)(*arguments, **options)

    return sync if request.param == "sync" else aio


@pytest.mark.parametrize("broken", [LOST, RESET, FULL], ids=["connection lost", "reset", "overloaded"])
async def test_text_goes_on_where_it_broke(server: ScriptedServer, write: Write, broken: Status) -> None:
    server.pieces = spelled(TEXT)
    undisturbed = await write(prompt="Ho", logprobs=True, return_state=True)
    server.breaks.extend([(0, broken), (3, broken), (0, broken), (4, broken)])
    assert await write(prompt="Ho", logprobs=True, return_state=True) == undisturbed
    asked = generation.GenerateRequest(model="charlm", prompt="Ho", logprobs=True, return_state=True)
    further = [
        generation.GenerateRequest(
            model="charlm",
            prompt="Ho",
            logprobs=True,
            return_state=True,
            seed=7,
            version=3,
            generated=TEXT[:count],
        )
        for count in (3, 3, 7)
    ]
    assert server.requests[1:] == [asked, asked, *further]


@settings(max_examples=20, deadline=None)
@given(breaks=st.lists(st.integers(0, len(TEXT)), max_size=6))
def test_text_is_the_same_wherever_calls_break(breaks: list[int]) -> None:
    server = ScriptedServer()
    running = started(server)
    server.pieces = spelled(TEXT)
    server.breaks.extend((after, LOST) for after in breaks)
    with Client(server.address, retry=QUICK, timeout_s=WAIT_S) as client:
        assert client.generate(logprobs=True).read().text == TEXT
    running.stop(grace=0).wait(WAIT_S)


async def test_break_after_the_last_piece_is_none(server: ScriptedServer, write: Write) -> None:
    server.pieces, server.failure = spelled(TEXT), LOST
    assert (await write())[1].text == TEXT
    assert len(server.requests) == 1


async def test_fault_after_the_last_piece_is_told(server: ScriptedServer, write: Write) -> None:
    server.pieces, server.failure = spelled(TEXT), FAULT
    with pytest.raises(SeqserveError, match="the runtime failed"):
        await write()


@pytest.mark.parametrize(
    "final",
    [BAD_REQUEST, FAULT, status(grpc.StatusCode.FAILED_PRECONDITION, "refused")],
    ids=lambda each: each.message,
)
async def test_final_failures_are_not_tried_again(
    server: ScriptedServer, write: Write, ask: Write, final: Status
) -> None:
    server.pieces = spelled(TEXT)
    server.breaks.append((2, final))
    with pytest.raises(SeqserveError, match=final.message):
        await write()
    server.breaks.append((0, final))
    with pytest.raises(SeqserveError, match=final.message):
        await ask("classify", "good")
    assert len(server.requests) == 2


async def test_last_failure_is_raised_after_the_last_attempt(server: ScriptedServer, write: Write) -> None:
    server.pieces, server.failure = [], LOST
    with pytest.raises(Unavailable, match="gone"):
        await write(retry=Retry(attempts=3, first_backoff_s=0, most_backoff_s=0))
    assert len(server.requests) == 3


async def test_without_retry_the_first_failure_is_raised(
    server: ScriptedServer, write: Write, ask: Write
) -> None:
    server.pieces, server.failure = [], LOST
    with pytest.raises(Unavailable, match="gone"):
        await write(retry=None)
    with pytest.raises(Unavailable, match="gone"):
        await ask("models", retry=None)
    assert len(server.requests) == 2


async def test_deadline_is_that_of_all_attempts(server: ScriptedServer, write: Write) -> None:
    server.failure = LOST
    with pytest.raises((Unavailable, DeadlineExceeded)):
        await write(timeout_s=0.2, retry=Retry(attempts=1_000_000, first_backoff_s=0.01, most_backoff_s=0.01))
    assert len(server.requests) > 1


async def test_wait_that_does_not_fit_the_deadline_is_not_begun(server: ScriptedServer, ask: Write) -> None:
    server.failure = status(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full", RetryInfo(retry_delay=Duration(seconds=60))
    )
    with pytest.raises(SeqserveError, match="queue is full"):
        await ask("classify", "good", timeout_s=30)
    assert len(server.requests) == 1


@pytest.mark.parametrize("broken", [LOST, RESET, FULL], ids=["connection lost", "reset", "overloaded"])
async def test_unary_calls_are_asked_again(server: ScriptedServer, ask: Write, broken: Status) -> None:
    server.breaks.extend([(0, broken)] * 2)
    assert len(await ask("classify", "good")) == 1
    assert server.requests == [classification.ClassifyRequest(model="sentiment", texts=["good"])] * 3


@pytest.mark.parametrize("method", ["load_model", "unload_model"])
async def test_admin_calls_are_not_asked_again(server: ScriptedServer, ask: Write, method: str) -> None:
    server.breaks.append((0, LOST))
    with pytest.raises(Unavailable):
        await ask(method, "charlm")
    assert len(server.requests) == 1


def test_closing_the_stream_ends_a_wait_quietly(server: ScriptedServer) -> None:
    server.pieces = spelled(TEXT)
    server.breaks.append((2, LOST))
    with Client(server.address, retry=ENDLESS) as client:
        stream = client.generate(timeout_s=None)
        pieces: list[TextPiece] = []
        reader = threading.Thread(target=lambda: pieces.extend(stream))
        reader.start()
        assert server.ended.wait(WAIT_S)
        stream.close()
        reader.join(WAIT_S)
        assert not reader.is_alive()
    assert len(server.requests) == 1


async def test_closing_the_stream_ends_a_wait_of_the_asyncio_client_quietly(server: ScriptedServer) -> None:
    server.pieces = spelled(TEXT)
    server.breaks.append((2, LOST))
    async with AsyncClient(server.address, retry=ENDLESS) as client:
        stream = client.generate(timeout_s=None)

        async def read() -> list[str]:
            return [piece.text async for piece in stream]

        reader = asyncio.ensure_future(read())
        assert await asyncio.to_thread(server.ended.wait, WAIT_S)
        stream.close()
        assert TEXT.startswith("".join(await asyncio.wait_for(reader, WAIT_S)))


async def test_cancelling_the_reader_ends_a_wait(server: ScriptedServer) -> None:
    server.breaks.append((0, LOST))
    async with AsyncClient(server.address, retry=ENDLESS, timeout_s=None) as client:
        reader = asyncio.ensure_future(client.classify("good"))
        await asyncio.to_thread(server.answered.wait, WAIT_S)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(reader, WAIT_S)


def test_text_survives_a_server_that_is_killed_and_started_again() -> None:
    first, second = ScriptedServer(), ScriptedServer()
    for each in (first, second):
        each.pieces = spelled(TEXT)
    first.holds = True
    running = started(first)
    with Client(first.address, timeout_s=WAIT_S) as client:
        pieces = iter(client.generate())
        texts = [next(pieces).text]
        running.stop(grace=0).wait(WAIT_S)
        running = started(second, first.address)
        texts += [piece.text for piece in pieces]
    running.stop(grace=0).wait(WAIT_S)
    assert "".join(texts) == TEXT
    assert second.requests == [
        generation.GenerateRequest(model="charlm", seed=7, version=3, generated=TEXT[0])
    ]


def test_text_goes_on_at_another_server() -> None:
    servers = [ScriptedServer(), ScriptedServer()]
    running = [started(server) for server in servers]
    for server in servers:
        server.pieces, server.holds = spelled(TEXT), True
    with Client(
        "ipv4:" + ",".join(server.address for server in servers), timeout_s=WAIT_S, retry=QUICK
    ) as client:
        pieces = iter(client.generate())
        texts = [next(pieces).text]
        asked = 0 if servers[0].requests else 1
        servers[1 - asked].holds = False
        running[asked].stop(grace=0).wait(WAIT_S)
        texts += [piece.text for piece in pieces]
    running[1 - asked].stop(grace=0).wait(WAIT_S)
    assert "".join(texts) == TEXT
    assert len(servers[1 - asked].requests) == 1


@pytest.fixture(params=["sync", "aio"])
def follow(request: pytest.FixtureRequest, server: ScriptedServer) -> Write:
    """Opens a stream of forecasts of the client under test and hands its `push` to a script."""

    async def sync(script: Write) -> None:
        with Client(server.address, retry=QUICK) as client, client.forecast_stream(horizon=2) as stream:

            async def push(*arguments: Any, **fields: Any) -> Any:
                return stream.push(*arguments, **fields)

            await script(push)

    async def aio(script: Write) -> None:
        async with (
            AsyncClient(server.address, retry=QUICK) as client,
            client.forecast_stream(horizon=2) as stream,
        ):
            await script(stream.push)

    return sync if request.param == "sync" else aio


async def test_series_go_on_from_their_last_states(server: ScriptedServer, follow: Write) -> None:
    server.breaks.extend([(3, LOST), (0, LOST), (1, RESET)])

    async def script(push: Write) -> None:
        for value in range(1, 5):
            for series in "ab":
                forecast = await push([[value]], series_id=series, return_state=value == 4)
                assert forecast.last_value == value
                assert forecast.state == (b"1;2;3;4;" if value == 4 else b"")

    await follow(script)
    first = [request for request in server.requests if request.model]  # type: ignore[attr-defined]
    assert [(each.id, each.version, each.horizon, each.state) for each in first] == [  # type: ignore[attr-defined]
        ("a", 0, 2, b""),
        ("b", 0, 2, b""),
        ("b", 4, 2, b"1;"),
        ("b", 4, 2, b"1;"),
        ("a", 4, 2, b"1;2;"),
        ("a", 4, 2, b"1;2;"),
        ("b", 4, 2, b"1;2;"),
    ]


async def test_state_of_an_earlier_stream_begins_a_series(server: ScriptedServer, follow: Write) -> None:
    async def script(push: Write) -> None:
        assert (await push([[2]], state=b"1;", return_state=True)).state == b"1;2;"

    await follow(script)


async def test_states_that_a_server_refuses_are_told(server: ScriptedServer, follow: Write) -> None:
    server.breaks.extend([(1, LOST), (0, BAD_REQUEST)])

    async def script(push: Write) -> None:
        await push([[1]])
        with pytest.raises(InvalidArgument):
            await push([[2]])

    await follow(script)


TEXTS = [(str(number), "good " * (number + 1)) for number in range(9)]


@pytest.mark.parametrize(
    "breaks", [[(0, LOST)], [(2, RESET), (0, LOST), (4, LOST)], [(1, LOST)] * 5], ids=str
)
def test_requests_without_an_answer_are_sent_again(
    server: ScriptedServer, breaks: list[tuple[int, Status]]
) -> None:
    server.breaks.extend(breaks)
    with Client(server.address, retry=QUICK) as client:
        answers = [
            (answer.id, answer.results[0].token_count) for answer in client.classify_stream(iter(TEXTS))
        ]
    assert sorted(answers) == [(each, int(each) + 1) for each, _ in TEXTS]
    assert not server.breaks


@pytest.mark.parametrize("is_async", [True, False], ids=["async iterable", "iterable"])
@pytest.mark.parametrize(
    "breaks", [[(0, LOST)], [(2, RESET), (0, LOST), (4, LOST)], [(1, LOST)] * 5], ids=str
)
async def test_requests_of_the_asyncio_client_without_an_answer_are_sent_again(
    server: ScriptedServer, breaks: list[tuple[int, Status]], is_async: bool
) -> None:
    async def requests() -> AsyncIterator[tuple[str, str]]:
        for item in TEXTS:
            await asyncio.sleep(0)
            yield item

    server.breaks.extend(breaks)
    async with AsyncClient(server.address, retry=QUICK) as client:
        stream = client.classify_stream(requests() if is_async else iter(TEXTS))
        answers = [(answer.id, answer.results[0].token_count) async for answer in stream]
    assert sorted(answers) == [(each, int(each) + 1) for each, _ in TEXTS]
    assert not server.breaks


def test_request_that_comes_while_a_call_is_broken_is_sent_by_the_next(server: ScriptedServer) -> None:
    server.breaks.append((0, LOST))

    def requests() -> Iterator[tuple[str, str]]:
        yield "a", "good"
        assert server.ended.wait(WAIT_S), "the first call has ended while this iterable kept it waiting"
        yield "b", "bad"

    with Client(server.address, retry=QUICK) as client:
        assert sorted(answer.id for answer in client.classify_stream(requests())) == ["a", "b"]


async def test_async_iterable_does_not_notice_that_a_call_broke(server: ScriptedServer) -> None:
    server.breaks.append((0, LOST))

    async def requests() -> AsyncIterator[tuple[str, str]]:
        yield "a", "good"
        assert await asyncio.to_thread(server.ended.wait, WAIT_S)
        yield "b", "bad"

    async with AsyncClient(server.address, retry=QUICK) as client:
        assert sorted([answer.id async for answer in client.classify_stream(requests())]) == ["a", "b"]


def test_closing_the_client_under_a_text_or_a_series_is_told(server: ScriptedServer) -> None:
    server.pieces, server.holds = spelled(TEXT), True
    client = Client(server.address, retry=QUICK)
    pieces = iter(client.generate())
    next(pieces)
    stream = client.forecast_stream()
    found: list[BaseException] = []

    def push() -> None:
        with pytest.raises(Cancelled) as caught:
            stream.push([[1.0]])
        found.append(caught.value)

    pushing = threading.Thread(target=push)
    pushing.start()
    assert server.asked.wait(WAIT_S)
    client.close()
    with pytest.raises(Cancelled, match="client was closed"):
        next(pieces)
    pushing.join(WAIT_S)
    assert [str(each) for each in found] == ["the client was closed before the answer"]


async def test_closing_the_asyncio_client_ends_a_wait(server: ScriptedServer) -> None:
    server.breaks.append((0, LOST))
    client = AsyncClient(server.address, retry=ENDLESS, timeout_s=None)
    asking = asyncio.ensure_future(client.classify("good"))
    assert await asyncio.to_thread(server.answered.wait, WAIT_S)
    await client.close()
    with pytest.raises(Cancelled, match="client was closed"):
        await asyncio.wait_for(asking, WAIT_S)
