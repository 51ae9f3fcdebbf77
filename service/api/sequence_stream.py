"""Sequences of one InferStream by id."""

from contextlib import ExitStack
from dataclasses import dataclass

from google.rpc import status_pb2

from seqserve.v1 import sequences_pb2 as pb
from service.api.answer_limits import check_answer
from service.api.held_bytes import Holding
from service.api.sequence_messages import read_one, wants_every, write_output
from service.api.sessions import StreamSessions, binding_for, check_no_state, check_repeated
from service.api.versions import SequenceVersions
from service.engine.request import Caller
from service.errors import InvalidArgument
from service.models.loading import Served
from service.security.state_tokens import Keys, StateBinding, open_steps, seal_steps
from service.tasks.pacing import Pace
from service.tasks.sequences import SequencesTask
from service.tasks.states import StepState

# Bytes of an answer beside its output, its state and its id, of which a character takes at most 4.
_OTHER_BYTES, _CHARACTER_BYTES = 64, 4


@dataclass(slots=True, eq=False)
class _Sequence:
    """Open sequence.

    Attributes:
        version: number of the version that answers.
        name: name of its model.
        task: task of that version.
        binding: binds its states.
        every: whether the outputs of every time step are sent.
        raw: whether the network's own outputs are sent.
        state: state after the last step; None: a new sequence.
    """

    version: int
    name: str
    task: SequencesTask
    binding: StateBinding
    every: bool
    raw: bool
    state: StepState | None


class SequenceSessions(StreamSessions[pb.InferStreamRequest, pb.InferStreamResponse, _Sequence]):
    """Sequences of one call.

    Args:
        versions: finds and leases versions.
        caller: caller of the stream.
        max_sequences: maximum of open sequences.
        keys: seal and open states.
        holding: bytes of the call, of which each open sequence takes some.
    """

    def __init__(
        self,
        versions: SequenceVersions,
        caller: Caller,
        max_sequences: int,
        keys: Keys,
        holding: Holding,
    ) -> None:
        super().__init__(max_sequences, "sequences", holding)
        self._versions = versions
        self._caller = caller
        self._keys = keys

    def _open(self, request: pb.InferStreamRequest, lease: ExitStack) -> tuple[_Sequence, Served]:
        served, task = lease.enter_context(self._versions.lease(request.model, request.version, self._call))
        task.check_streamable()
        every = wants_every(request.output_steps)
        every = task.every_by_default if every is None else every
        binding, model = binding_for(served), served.spec
        state = open_steps(self._keys, binding, request.state) if request.state else None
        return _Sequence(model.version, model.name, task, binding, every, request.raw, state), served

    def _check_same(self, session: _Sequence, request: pb.InferStreamRequest) -> None:
        check_no_state(request.state, "sequence")
        check_repeated("model", session.name, request.model, "sequence")
        check_repeated("version", session.version, request.version, "sequence")
        check_repeated("raw", session.raw, request.raw, "sequence")
        if (every := wants_every(request.output_steps)) not in (None, session.every):
            first, found = ("EVERY", "LAST") if session.every else ("LAST", "EVERY")
            assert every is not None, "an unset value is repeated by none"
            raise InvalidArgument(
                "output_steps",
                f"expected OUTPUT_STEPS_{first} as in the sequence's first message, or nothing, "
                f"found OUTPUT_STEPS_{found}",
            )

    async def _push(self, session: _Sequence, request: pb.InferStreamRequest) -> pb.InferStreamResponse:
        response = pb.InferStreamResponse()
        response.id = request.id
        other = _OTHER_BYTES + _CHARACTER_BYTES * len(request.id)
        if request.return_state:
            other += session.binding.size
            check_answer("return_state", other, session.task.limits.answer_bytes, "ask for no state")
        if request.input.WhichOneof("kind") is not None:
            state = await self._advance(session, request, response, other)
        else:
            state = _unchanged(session, request)
        response.position = state.position
        response.version = session.version
        if request.return_state:
            response.state = seal_steps(self._keys, session.binding, state)
        session.state = state
        return response

    async def _advance(
        self,
        session: _Sequence,
        request: pb.InferStreamRequest,
        response: pb.InferStreamResponse,
        other_bytes: int,
    ) -> StepState:
        """Run the time steps of a message, write their output, and return the state after them."""
        task, pace = session.task, Pace()
        one = await read_one(request.input, task, "input", pace)
        prepared = await task.prepare_steps(
            session.state, one, session.every, session.raw, self._caller, other_bytes
        )
        with self._holding.of_answer(prepared.answer_bytes):
            output, state = await task.run_steps(prepared, self._caller)
            await write_output(response.output, output, pace)
        return state

    def _is_last(self, request: pb.InferStreamRequest) -> bool:
        return request.end

    def _failure(
        self, request: pb.InferStreamRequest, session: _Sequence | None, status: status_pb2.Status
    ) -> pb.InferStreamResponse:
        response = pb.InferStreamResponse(id=request.id, error=status)
        if session is not None and session.state is not None:
            response.position = session.state.position
        return response


def _unchanged(session: _Sequence, request: pb.InferStreamRequest) -> StepState:
    """Return the state of a sequence that ends with a message without time steps.

    Raises:
        InvalidArgument: the message needs time steps.
    """
    if session.state is None:
        raise InvalidArgument("input", "expected time steps in a sequence's first message, found none")
    if not request.end:
        raise InvalidArgument("input", "expected time steps, or end beside none, found neither")
    if request.input.initial:
        raise InvalidArgument("input.initial", "expected it beside the first time steps of a sequence alone")
    return session.state
