"""Streams of sequences whose state the server keeps, in the asyncio client.

Its class matches that of `seqserve.infer_streams`, which describes the arguments.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from seqserve.aio_kept import AsyncKeptStream
from seqserve.frames import ModelColumns
from seqserve.infer_streams import InferStreamCore, Pushed
from seqserve.link import Link
from seqserve.retry import Attempts
from seqserve.sequence_results import InferAnswer, SequenceOutput
from seqserve.v1.sequences_pb2 import InferStreamRequest, InferStreamResponse


class AsyncInferStream(
    InferStreamCore, AsyncKeptStream[InferStreamRequest, InferStreamResponse, SequenceOutput]
):
    """Sequences kept open on the server, where each new time step costs one step of the network.

    Tasks may share a stream; their pushes run one at a time. A push that is cancelled once it was sent
    closes the stream, so that the next one does not read its answer: `asyncio.wait_for` around a push ends it
    for all tasks.
    """

    def __init__(
        self,
        link: Link,
        method: Callable[..., grpc.aio.StreamStreamCall[InferStreamRequest, InferStreamResponse]],
        attempts: Attempts,
        find_columns: Callable[[str, int], Awaitable[ModelColumns]],
        *,
        model: str,
        version: int,
        every: bool | None,
        raw: bool,
    ) -> None:
        InferStreamCore.__init__(self, link, attempts, model=model, version=version, every=every, raw=raw)
        AsyncKeptStream.__init__(self, method)
        self._find_columns = find_columns

    async def push(
        self,
        steps: Any,
        *,
        sequence_id: str = "",
        initial: Mapping[str, Any] | None = None,
        state: bytes | None = None,
        return_state: bool = False,
        end: bool = False,
    ) -> SequenceOutput:
        """Send new time steps of a sequence and wait for their outputs.

        Raises:
            SeqserveError: The push failed. If the client or the server rejected the message, the sequence is
                unchanged and the stream continues; if the call failed, the stream is closed.
            ClientClosed: The stream is closed.
        """
        async with self._turn:
            self._check_open()
            pushed = self._pushed(
                "steps",
                steps,
                sequence_id=sequence_id,
                initial=initial,
                state=state,
                return_state=return_state,
                end=end,
            )
            await self._order(pushed)
            return await self._send_one(pushed.request, return_state)

    async def push_all(self, inputs: Mapping[str, Any], *, return_state: bool = False) -> list[InferAnswer]:
        """Send new time steps of several sequences together, so that the server runs them side by side.

        Raises:
            SeqserveError: An argument was refused, or the call failed; the latter closes the stream.
            ClientClosed: The stream is closed.
        """
        async with self._turn:
            self._check_open()
            pushed = self._several(inputs, return_state)
            for each in pushed:
                await self._order(each)
            return self._answers(pushed, await self._send([each.request for each in pushed], return_state))

    async def end(self, sequence_id: str = "") -> None:
        """Let the server forget a sequence, so that another may have its place; no effect on an unknown one.

        Raises:
            SeqserveError: The call failed.
            ClientClosed: The stream is closed.
        """
        async with self._turn:
            self._check_open()
            if (request := self._ending(sequence_id)) is not None:
                await self._send_one(request, False)
            self._forget(sequence_id)

    async def _order(self, pushed: Pushed) -> None:
        if pushed.frame is not None:
            columns = await self._find_columns(self._model, self._version_of(pushed.request.id))
            self._set_columns(pushed, columns)
