"""Streams whose sequences are kept on the server: what both clients share, without network access.

Each message brings new time steps of one sequence, and gets one answer. The messages of a stream are sent
over one call or several: after a failed call, a new one continues each sequence from its last sealed state.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

import grpc

from seqserve.errors import SeqserveError, ServerFailure, Unavailable, from_status
from seqserve.link import Link
from seqserve.retry import Attempts, is_retryable
from seqserve.v1.forecasting_pb2 import ForecastStreamRequest, ForecastStreamResponse
from seqserve.v1.sequences_pb2 import InferStreamRequest, InferStreamResponse

Request = TypeVar("Request", ForecastStreamRequest, InferStreamRequest)
Response = TypeVar("Response", ForecastStreamResponse, InferStreamResponse)
Item = TypeVar("Item")


class ResumePoint(NamedTuple):
    """The state and version with which a new call continues a sequence."""

    state: bytes
    version: int


class Failure(NamedTuple):
    """A failed message or call.

    Attributes:
        error: Why it failed.
        is_of_call: Whether the call failed, and not a message alone.
        needs_call: Whether sending again needs a new call.
    """

    error: SeqserveError
    is_of_call: bool
    needs_call: bool


class Round(Generic[Request, Item]):
    """Messages of different sequences that are sent together, until each has its answer.

    Attributes:
        waiting: Messages without an answer, by the id of their sequence.
        states: Sealed state that the caller gave with each message.
        outcomes: What came of each message that is done.
        failure: The last failure of a message that may be sent again, or None.
    """

    def __init__(self, requests: Iterable[Request], returns_state: bool) -> None:
        self.waiting: dict[str, Request] = {request.id: request for request in requests}
        self.states: dict[str, bytes] = {request.id: request.state for request in self.waiting.values()}
        self.outcomes: dict[str, Item | SeqserveError] = {}
        self.returns_state = returns_state
        self.failure: Failure | None = None

    def end(self, sequence_id: str, outcome: Item | SeqserveError) -> None:
        """Record the outcome of a message."""
        self.outcomes[sequence_id] = outcome
        del self.waiting[sequence_id]


class KeptStreamCore(ABC, Generic[Request, Response, Item]):
    """The messages and answers of a stream, over one call or several.

    If retries are enabled, the state of each sequence after its last answer is kept, and a new call continues
    from it.
    """

    def __init__(self, link: Link, attempts: Attempts, model: str, version: int) -> None:
        self._link = link
        self._attempts = attempts
        self._model = model
        self._version = version
        self._open_ids: set[str] = set()
        self._versions: dict[str, int] = {}
        self._resume_points: dict[str, ResumePoint] = {}

    @abstractmethod
    def _set_first(self, request: Request) -> None:
        """Set the options that the first message of a sequence in a call carries."""

    @abstractmethod
    def _result(self, answer: Response, returns_state: bool) -> Item:
        """Convert an answer; without its state unless the caller asked for it."""

    def _is_last(self, _request: Request) -> bool:
        """Return whether the server forgets the sequence after a message."""
        return False

    def _version_of(self, sequence_id: str) -> int:
        """Return the version that a sequence runs on; before its first answer, the one of the stream."""
        return self._versions.get(sequence_id, self._version)

    def _prepare(self, sent: Round[Request, Item]) -> list[Request]:
        """Return the messages of a round, with what first messages of a sequence in this call need."""
        sent.failure = None
        for sequence_id, request in sent.waiting.items():
            state = sent.states[sequence_id]
            if sequence_id in self._open_ids:
                request.state = state  # the server rejects a state in a later message
                continue
            first = ResumePoint(state, self._version_of(sequence_id))
            resume_point = self._resume_points.get(sequence_id, first)
            request.model = self._model
            request.version = resume_point.version
            request.state = resume_point.state
            self._set_first(request)
        return list(sent.waiting.values())

    def _receive(self, sent: Round[Request, Item], answer: Response) -> None:
        """Record an answer.

        Raises:
            ServerFailure: It belongs to no message that waits.
        """
        request = sent.waiting.get(answer.id)
        if request is None:
            raise ServerFailure("the server sent an answer that belongs to no message")
        if answer.HasField("error"):
            self._receive_error(sent, answer.id, from_status(answer.error))
            return
        self._open_ids.add(answer.id)
        if answer.version:
            self._versions[answer.id] = answer.version
        if answer.state and self._attempts.may_retry:
            self._resume_points[answer.id] = ResumePoint(answer.state, answer.version or self._version)
        if self._is_last(request):
            self._forget(answer.id)
        self._attempts.record_progress()
        sent.end(answer.id, self._result(answer, sent.returns_state))

    def _receive_error(self, sent: Round[Request, Item], sequence_id: str, error: SeqserveError) -> None:
        """Keep a message that failed waiting if it may be sent again; otherwise end it with its error."""
        failure = Failure(error, is_of_call=False, needs_call=isinstance(error, Unavailable))
        if self._may_send_again(failure):
            sent.failure = failure
        else:
            sent.end(sequence_id, error)

    def _call_failure(self, error: grpc.RpcError) -> Failure:
        failure = self._link.failure(error)
        failure.__cause__ = error
        return Failure(failure, is_of_call=True, needs_call=True)

    def _may_send_again(self, failure: Failure) -> bool:
        """Return whether a failure is retried, and no sequence would lose its state by it."""
        if failure.needs_call and not self._open_ids <= self._resume_points.keys():
            return False  # a sequence without a sealed state cannot continue in a new call
        return self._attempts.may_retry and is_retryable(failure.error)

    def _delay_s(self, failure: Failure) -> float | None:
        """Return the seconds to wait before sending again, or None if the failure is final."""
        return self._attempts.next_delay_s(failure.error) if self._may_send_again(failure) else None

    def _give_up(self, sent: Round[Request, Item], failure: Failure) -> None:
        """End the messages that wait with a failure that is final.

        Raises:
            SeqserveError: The call failed. The stream is then closed.
        """
        if failure.is_of_call:
            self.close()
            raise failure.error
        for sequence_id in list(sent.waiting):
            sent.end(sequence_id, failure.error)

    @abstractmethod
    def close(self) -> None:
        """Cancel the call. Has no effect after the end."""

    def _forget(self, sequence_id: str) -> None:
        """Forget a sequence that has ended."""
        self._open_ids.discard(sequence_id)
        self._versions.pop(sequence_id, None)
        self._resume_points.pop(sequence_id, None)
