"""Servicer of seqserve.v1.Sequences."""

from contextlib import closing
from typing import Any

from seqserve.v1 import sequences_pb2 as pb
from seqserve.v1.sequences_pb2_grpc import SequencesServicer
from service.api.bidi import serve_stream
from service.api.caller import caller_of, current_holding
from service.api.sequence_messages import read_all, wants_every, write_output
from service.api.sequence_stream import SequenceSessions
from service.api.versions import SequenceVersions
from service.models.table import VersionTable
from service.security.state_tokens import Keys
from service.tasks.pacing import Pace


class SequencesApi(SequencesServicer):
    """Serves Infer and InferStream.

    Args:
        table: versions by name and number.
        max_in_flight: maximum of messages of one stream that are read and not yet answered.
        max_sequences: maximum of sequences that one stream keeps open.
        keys: seal and open states.
    """

    def __init__(self, table: VersionTable, max_in_flight: int, max_sequences: int, keys: Keys) -> None:
        self._versions = SequenceVersions(table)
        self._max_in_flight = max_in_flight
        self._max_sequences = max_sequences
        self._keys = keys

    async def Infer(self, request: pb.InferRequest, context: Any) -> pb.InferResponse:
        """Run the sequences of one request."""
        caller = caller_of(context)
        with self._versions.lease(request.model, request.version) as (served, task):
            inputs = await read_all(request.inputs, task)
            prepared = await task.prepare(inputs, wants_every(request.output_steps), request.raw, caller)
            with current_holding.get().of_answer(prepared.answer_bytes):
                outputs = await task.run(prepared, caller)
                response, pace = pb.InferResponse(), Pace()
                response.version = served.spec.version
                for output in outputs:
                    await write_output(response.outputs.add(), output, pace)
        return response

    # The generated class declares a generator; this writes the responses itself.
    async def InferStream(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        """Run the time steps of each message after those that its sequence has had."""
        caller = caller_of(context)
        sessions = SequenceSessions(self._versions, caller, self._max_sequences, self._keys, requests.holding)
        with closing(sessions):
            await serve_stream(requests, context, self._max_in_flight, sessions.answer)
