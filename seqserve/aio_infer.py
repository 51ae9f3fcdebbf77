"""Sequences through any model, in the asyncio client."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from seqserve import sequence_messages
from seqserve.aio_infer_streams import AsyncInferStream
from seqserve.aio_unary import AsyncUnaryCalls
from seqserve.connection import USE_CLIENT_TIMEOUT, Timeout
from seqserve.sequence_results import SequenceOutput
from seqserve.tabular import Answers

if TYPE_CHECKING:  # an alias of the stub's types alone
    from seqserve.v1.sequences_pb2_grpc import SequencesAsyncStub


class AsyncInferCalls(AsyncUnaryCalls, ABC):
    """Base class of the client: the calls of seqserve.v1.Sequences."""

    _sequences: "SequencesAsyncStub"

    @abstractmethod
    def _connect(self) -> None:
        """Open the channel in the running event loop at the first call."""

    async def infer(
        self,
        inputs: Any,
        *,
        model: str,
        version: int = 0,
        every: bool | None = None,
        raw: bool = False,
        initial: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> Answers[SequenceOutput]:
        """Run whole sequences through any model, by what it takes and gives; one output per sequence."""
        request, frames = sequence_messages.infer_request(
            inputs, initial, model=model, version=version, every=every, raw=raw
        )
        self._connect()
        attempts = self._attempts(timeout_s)
        if frames:
            columns = await self._find_columns(model, version, attempts)
            sequence_messages.set_frames(request, frames, columns)
        return sequence_messages.outputs(await self._call(self._sequences.Infer, request, attempts))

    def infer_stream(
        self,
        *,
        model: str,
        version: int = 0,
        every: bool | None = None,
        raw: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncInferStream:
        """Open a stream that keeps sequences on the server and answers each push of new time steps.

        Returns:
            The stream at once, without await.
        """
        self._connect()
        return AsyncInferStream(
            self._link,
            self._sequences.InferStream,
            self._attempts(timeout_s),
            self._find_columns,
            model=model,
            version=version,
            every=every,
            raw=raw,
        )
