"""Streams of the asyncio client, and the ways in which they end."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from seqserve import AsyncClient, Cancelled, Overloaded, Usage
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, text_pieces


async def test_pieces_come_before_the_text_is_whole(server: ScriptedServer) -> None:
    server.pieces, server.holds = text_pieces(), True
    async with AsyncClient(server.address) as client, client.generate() as stream:
        pieces = aiter(stream)
        assert (await anext(pieces)).text == "To be"
        assert (stream.text, stream.seed, stream.finish_reason, stream.usage) == ("To be", 7, None, None)
        server.resume.set()
        assert [piece.text async for piece in pieces] == [" or", ""]
    assert (stream.text, stream.finish_reason, stream.usage) == ("To be or", "stop", Usage(2, 9))


async def _assert_cancelled(server: ScriptedServer) -> None:
    assert await asyncio.to_thread(server.ended.wait, WAIT_S)
    assert not server.completed


async def test_leaving_the_loop_cancels_the_call(server: ScriptedServer) -> None:
    server.pieces, server.holds = text_pieces(), True
    async with AsyncClient(server.address) as client:
        stream = client.generate()
        async for _ in stream:
            break
        await _assert_cancelled(server)


async def test_leaving_the_with_block_cancels_the_call(server: ScriptedServer) -> None:
    server.pieces, server.holds = text_pieces(), True
    async with AsyncClient(server.address) as client:
        async with client.generate() as stream:
            pieces = aiter(stream)
            await anext(pieces)
        await _assert_cancelled(server)
        assert [piece async for piece in pieces] == []


async def test_cancelling_the_reader_cancels_the_call(server: ScriptedServer) -> None:
    server.pieces, server.holds = text_pieces(), True
    async with AsyncClient(server.address) as client:
        pieces = aiter(client.generate())
        await anext(pieces)
        reader = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await _assert_cancelled(server)


async def test_closing_from_another_task_ends_the_loop_quietly(server: ScriptedServer) -> None:
    server.pieces, server.holds = text_pieces(), True
    async with AsyncClient(server.address) as client:
        stream = client.generate()
        texts = []
        async for piece in stream:
            texts.append(piece.text)
            asyncio.get_running_loop().call_soon(stream.close)
        assert texts == ["To be"]
        await _assert_cancelled(server)


async def test_closing_the_client_is_an_error_to_the_reader_and_no_cancelled_task(
    server: ScriptedServer,
) -> None:
    """grpc.aio raises asyncio.CancelledError there, which a task group would take for the cancellation of the
    task itself.
    """
    server.pieces, server.holds = text_pieces(), True
    client = AsyncClient(server.address)
    pieces = aiter(client.generate())
    await anext(pieces)
    reader = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(Cancelled, match="client was closed"):
        await reader


async def test_answers_are_matched_by_id(server: ScriptedServer) -> None:
    async def requests() -> AsyncIterator[tuple[str, str]]:
        for each in "abc":
            yield each, "so good"

    async with AsyncClient(server.address) as client:
        assert [answer.id async for answer in client.classify_stream(requests())] == ["b", "a", "c"]
        assert [answer.id async for answer in client.classify_stream([("d", "good"), ("e", "bad")])] == [
            "e",
            "d",
        ]


async def test_what_the_requests_raise_reaches_the_reader_after_the_answers(server: ScriptedServer) -> None:
    async def requests() -> AsyncIterator[tuple[str, str]]:
        yield "a", "good"
        raise LookupError("no more")

    async with AsyncClient(server.address) as client:
        answers = aiter(client.classify_stream(requests()))
        assert (await anext(answers)).id == "a"
        with pytest.raises(LookupError, match="no more"):
            await anext(answers)


async def test_credentials_and_options_reach_the_channel(server: ScriptedServer) -> None:
    credentials = grpc.local_channel_credentials()
    async with AsyncClient(
        server.secure_address, credentials=credentials, options=[("grpc.max_receive_message_length", 100)]
    ) as client:
        assert len(await client.classify("so good")) == 1
        with pytest.raises(Overloaded, match="larger than max"):
            await client.classify(["so good"] * 50)
