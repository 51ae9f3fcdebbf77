"""Sequences through any model, in the blocking client."""

from collections.abc import Iterable, Mapping
from typing import Any

from seqserve import sequence_messages
from seqserve.connection import USE_CLIENT_TIMEOUT, Timeout
from seqserve.infer_streams import InferStream
from seqserve.sequence_results import SequenceOutput
from seqserve.tabular import Answers
from seqserve.unary import UnaryCalls
from seqserve.v1.sequences_pb2_grpc import SequencesStub


class InferCalls(UnaryCalls):
    """Base class of the client: the calls of seqserve.v1.Sequences."""

    _sequences: SequencesStub

    def infer(
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
        """Run whole sequences through any model, by what it takes and gives.

        Args:
            inputs: Sequences: each a str, token ids (whole numbers of one dimension), time steps (an array of
                shape (time steps, values), nested lists, or numbers that are not whole of one dimension for a
                model with one value), or a table (a DataFrame of pandas or polars, a Table of pyarrow, or
                rows that are dicts or named tuples). A table's columns are matched to the model's by name,
                for which `model(...)` is called. A single str or table is one sequence; an array of three
                dimensions has one in each row. Lengths may differ.
            model: Name of the model.
            version: Version of the model; 0 means the newest that serves.
            every: True for the outputs of every time step, False for those of the last; None leaves it to
                the model.
            raw: Return the network's own outputs, such as logits, as `values`.
            initial: What the model's init graph takes: rows of numbers by name, for all sequences, or a list
                of such mappings, one for each.
            timeout_s: Timeout of the call in seconds.

        Returns:
            One output per sequence, in their order.
        """
        request, frames = sequence_messages.infer_request(
            inputs, initial, model=model, version=version, every=every, raw=raw
        )
        attempts = self._attempts(timeout_s)
        if frames:
            columns = self._find_columns(model, version, attempts)
            sequence_messages.set_frames(request, frames, columns)
        return sequence_messages.outputs(self._call(self._sequences.Infer, request, attempts))

    def infer_stream(
        self,
        *,
        model: str,
        version: int = 0,
        every: bool | None = None,
        raw: bool = False,
        timeout_s: float | None = None,
    ) -> InferStream:
        """Open a stream that keeps sequences on the server and answers each push of new time steps.

        Args:
            model: Name of the model, for all sequences of the stream; it must not need whole sequences.
            version: Version of the model; 0 means the newest that serves.
            every: True for the outputs of every time step of a push, False for those of the last; None leaves
                it to the model.
            raw: Return the network's own outputs, such as logits, as `values`.
            timeout_s: Timeout of the whole stream in seconds; None, the default, means no limit.

        Returns:
            A stream to push time steps to.
        """
        return InferStream(
            self._link,
            self._sequences.InferStream,
            self._attempts(timeout_s),
            self._find_columns,
            model=model,
            version=version,
            every=every,
            raw=raw,
        )
