"""Many callers over one stream: each gets its own answer, and a broken stream is opened anew."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

import grpc
import pytest
from google.rpc.status_pb2 import Status
from grpc import aio

from seqserve.bench.multiplex import ClassifyMultiplexer
from seqserve.errors import DeadlineExceeded, InvalidArgument, Unavailable
from seqserve.v1.text_classification_pb2 import ClassifyRequest, ClassifyResponse

LONG_S = 100.0


class Stream:
    """What a call of grpc.aio looks like from the side that uses it."""

    def __init__(self, written: asyncio.Queue[ClassifyRequest]) -> None:
        self.written = written
        self.answers: asyncio.Queue[ClassifyResponse | grpc.RpcError | None] = asyncio.Queue()
        self.is_cancelled = False

    async def write(self, request: bytes) -> None:
        self.written.put_nowait(ClassifyRequest.FromString(request))

    async def __aiter__(self) -> AsyncIterator[ClassifyResponse]:
        while (answer := await self.answers.get()) is not None:
            if isinstance(answer, grpc.RpcError):
                raise answer
            yield answer

    def cancel(self) -> None:
        self.is_cancelled = True


class Server:
    """Opens streams and remembers them, and what is written to any."""

    def __init__(self) -> None:
        self.written: asyncio.Queue[ClassifyRequest] = asyncio.Queue()
        self.opened: list[Stream] = []
        self.metadata: Sequence[tuple[str, str]] = ()

    def __call__(self, metadata: Sequence[tuple[str, str]]) -> Stream:
        self.metadata = metadata
        self.opened.append(Stream(self.written))
        return self.opened[-1]

    def connected(self) -> ClassifyMultiplexer:
        return ClassifyMultiplexer(
            cast("aio.StreamStreamMultiCallable[bytes, ClassifyResponse]", self),
            [("authorization", "Bearer x")],
        )


def request(text: str) -> bytes:
    return ClassifyRequest(model="m", texts=[text]).SerializeToString()


async def asked(
    server: Server, stream: ClassifyMultiplexer, *texts: str
) -> tuple[list[asyncio.Task[None]], list[ClassifyRequest]]:
    tasks = [asyncio.create_task(stream.ask(request(text), LONG_S)) for text in texts]
    return tasks, [await server.written.get() for _ in texts]


async def test_answers_find_their_callers_in_any_order() -> None:
    server = Server()
    async with server.connected() as stream:
        (one, two), sent = await asked(server, stream, "one", "two")
        assert [(each.model, list(each.texts)) for each in sent] == [("m", ["one"]), ("m", ["two"])]
        server.opened[0].answers.put_nowait(ClassifyResponse(id=sent[1].id))
        await two
        assert not one.done()
        server.opened[0].answers.put_nowait(
            ClassifyResponse(id=sent[0].id, error=Status(code=3, message="no token"))
        )
        with pytest.raises(InvalidArgument, match="no token"):
            await one
    assert server.opened[0].is_cancelled
    assert server.metadata == [("authorization", "Bearer x")]


@pytest.mark.parametrize("is_error", [True, False], ids=["an error", "its end"])
async def test_a_broken_stream_fails_who_waits_and_is_opened_anew_for_the_next(is_error: bool) -> None:
    server = Server()
    gone = aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata(), details="gone")
    async with server.connected() as stream:
        tasks, _ = await asked(server, stream, "one", "two")
        server.opened[0].answers.put_nowait(gone if is_error else None)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
        (three,), (sent,) = await asked(server, stream, "three")
        server.opened[1].answers.put_nowait(ClassifyResponse(id=sent.id))
        await three


async def test_an_answer_after_the_deadline_is_nobodys() -> None:
    server = Server()
    async with server.connected() as stream:
        with pytest.raises(DeadlineExceeded, match="no answer within"):
            await stream.ask(request("one"), 0.01)
        late = await server.written.get()
        server.opened[0].answers.put_nowait(ClassifyResponse(id=late.id))
        (two,), (sent,) = await asked(server, stream, "two")
        server.opened[0].answers.put_nowait(ClassifyResponse(id=sent.id))
        await two
        assert len(server.opened) == 1
