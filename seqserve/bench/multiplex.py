"""The requests of many tasks over one ClassifyStream call, which is reopened when it fails."""

import asyncio
import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeAlias

import grpc
from grpc import aio

from seqserve.errors import DeadlineExceeded, SeqserveError, Unavailable, from_rpc_error, from_status
from seqserve.v1.text_classification_pb2 import ClassifyRequest, ClassifyResponse

_Call: TypeAlias = "aio.StreamStreamCall[bytes, ClassifyResponse]"


class ClassifyMultiplexer:
    """Multiplexes requests over one classify stream at a time.

    Within its `async with` block, any number of tasks may call `ask`.

    Args:
        start: Opens a stream.
        metadata: Metadata sent with each stream.
    """

    def __init__(
        self,
        start: "aio.StreamStreamMultiCallable[bytes, ClassifyResponse]",
        metadata: Sequence[tuple[str, str]],
    ) -> None:
        self._start = start
        self._metadata = metadata
        self._ids = itertools.count()
        self._pending: dict[str, asyncio.Future[None]] = {}
        self._unsent: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.result()

    async def ask(self, request: bytes, deadline_s: float) -> None:
        """Send a serialised ClassifyRequest without an id, and wait for its answer.

        Raises:
            SeqserveError: The server rejected the request, the stream failed, or the deadline passed.
        """
        request_id = str(next(self._ids))
        answer = self._pending[request_id] = asyncio.get_running_loop().create_future()
        # Concatenated protobuf messages parse as one merged message, so the id is appended without parsing
        # the request.
        self._unsent.put_nowait((request_id, request + ClassifyRequest(id=request_id).SerializeToString()))
        try:
            async with asyncio.timeout(deadline_s):
                await answer
        except TimeoutError as error:
            raise DeadlineExceeded(f"no answer within {deadline_s:g} s") from error
        finally:
            self._pending.pop(request_id, None)

    async def _serve(self) -> None:
        while True:
            first = await self._unsent.get()
            call = self._start(metadata=self._metadata)
            writing = asyncio.create_task(self._write(call, first))
            failure: SeqserveError = Unavailable("the server ended the stream")
            try:
                async for message in call:
                    self._settle(
                        message.id, from_status(message.error) if message.HasField("error") else None
                    )
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
            finally:
                writing.cancel()
                call.cancel()
                # The writer fails with the stream, or because of it: that failure is handled above.
                await asyncio.gather(writing, return_exceptions=True)
            for request_id in list(self._pending):
                self._settle(request_id, failure)

    async def _write(self, call: _Call, first: tuple[str, bytes]) -> None:
        request_id, request = first
        while True:
            if request_id in self._pending:
                await call.write(request)
            request_id, request = await self._unsent.get()

    def _settle(self, request_id: str, failure: SeqserveError | None) -> None:
        answer = self._pending.pop(request_id, None)
        if answer is None or answer.done():
            return
        if failure is None:
            answer.set_result(None)
        else:
            answer.set_exception(failure)
