"""Streams of sequences whose state the server keeps, in the blocking client, and what both clients share."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from seqserve import arguments, sequence_messages
from seqserve.errors import SeqserveError, WrongType, WrongValue
from seqserve.frames import Frame, ModelColumns
from seqserve.kept import KeptStreamCore
from seqserve.kept_calls import KeptStream, StreamCall
from seqserve.link import Link
from seqserve.retry import Attempts
from seqserve.sequence_inputs import read_initial, read_input
from seqserve.sequence_results import InferAnswer, SequenceOutput
from seqserve.v1.sequences_pb2 import InferStreamRequest, InferStreamResponse, SequenceInput


class Pushed(NamedTuple):
    """A message, and its time steps where they are a table, whose columns are still to be put in order."""

    request: InferStreamRequest
    field: str
    frame: Frame | None


class InferStreamCore(KeptStreamCore[InferStreamRequest, InferStreamResponse, SequenceOutput]):
    """The messages and outputs of a stream of sequences."""

    def __init__(
        self, link: Link, attempts: Attempts, *, model: str, version: int, every: bool | None, raw: bool
    ) -> None:
        KeptStreamCore.__init__(
            self, link, attempts, arguments.text("model", model), arguments.count("version", version)
        )
        self._output_steps = sequence_messages.output_steps("every", every)
        self._raw = arguments.flag("raw", raw)

    def _pushed(
        self,
        field: str,
        value: Any,
        *,
        sequence_id: str,
        initial: Mapping[str, Any] | None = None,
        state: bytes | None = None,
        return_state: bool = False,
        end: bool = False,
    ) -> Pushed:
        """Build a message with the time steps of a sequence."""
        found = read_input(field, value)
        request = InferStreamRequest(
            id=arguments.text("sequence_id", sequence_id),
            input=SequenceInput() if isinstance(found, Frame) else found,
            state=arguments.state("state", state),
            return_state=arguments.flag("return_state", return_state) or self._attempts.may_retry,
            end=arguments.flag("end", end),
        )
        if initial is not None:
            (given,) = read_initial("initial", initial, 1)
            sequence_messages.set_initial(request.input, given)
        return Pushed(request, field, found if isinstance(found, Frame) else None)

    def _several(self, inputs: Mapping[str, Any], return_state: bool) -> list[Pushed]:
        """Build a message for each of several sequences."""
        if not isinstance(inputs, Mapping):
            what = f"expected a mapping of ids to time steps, found {arguments.type_of(inputs)}"
            raise arguments.refusal(WrongType, "inputs", what)
        if not inputs:
            raise arguments.refusal(WrongValue, "inputs", "expected at least 1 sequence, found 0")
        return [
            self._pushed(f"inputs[{name!r}]", value, sequence_id=name, return_state=return_state)
            for name, value in inputs.items()
        ]

    def _ending(self, sequence_id: str) -> InferStreamRequest | None:
        """Build the message that ends a sequence, or return None where the server keeps none."""
        name = arguments.text("sequence_id", sequence_id)
        return InferStreamRequest(id=name, end=True) if name in self._open_ids else None

    def _set_columns(self, pushed: Pushed, columns: ModelColumns) -> None:
        """Set the time steps of a table, and fix the version of the sequence to the one of the columns."""
        assert pushed.frame is not None
        sequence_messages.set_frame(pushed.field, pushed.request.input, pushed.frame, columns)
        self._versions[pushed.request.id] = columns.version

    def _set_first(self, request: InferStreamRequest) -> None:
        request.output_steps = self._output_steps
        request.raw = self._raw

    def _is_last(self, request: InferStreamRequest) -> bool:
        return request.end

    def _result(self, answer: InferStreamResponse, returns_state: bool) -> SequenceOutput:
        state = answer.state if returns_state else b""
        return sequence_messages.output(
            answer.output, version=answer.version, state=state, position=answer.position
        )

    @staticmethod
    def _answers(
        pushed: Iterable[Pushed], outcomes: Iterable[SequenceOutput | SeqserveError]
    ) -> list[InferAnswer]:
        return [
            InferAnswer(each.request.id, None, outcome)
            if isinstance(outcome, SeqserveError)
            else InferAnswer(each.request.id, outcome)
            for each, outcome in zip(pushed, outcomes, strict=True)
        ]


class InferStream(InferStreamCore, KeptStream[InferStreamRequest, InferStreamResponse, SequenceOutput]):
    """Sequences kept open on the server, where each new time step costs one step of the network.

        with client.infer_stream(model="activity") as stream:
            output = stream.push(rows)
            output = stream.push([[ax, ay, az]])
            answers = stream.push_all({"left hand": rows, "right hand": others})

    Threads may share a stream; their pushes run one at a time. Close the stream, or leave its `with` block:
    an open one occupies a thread.

    If the client retries (`seqserve.Retry`), each answer carries the sealed state of its sequence, and a new
    call after a failed one continues from it. Servers without common keys (SEQSERVE_STATE_KEYS) reject each
    other's states with InvalidArgument.
    """

    def __init__(
        self,
        link: Link,
        method: Callable[..., StreamCall[InferStreamResponse]],
        attempts: Attempts,
        find_columns: Callable[[str, int], ModelColumns],
        *,
        model: str,
        version: int,
        every: bool | None,
        raw: bool,
    ) -> None:
        InferStreamCore.__init__(self, link, attempts, model=model, version=version, every=every, raw=raw)
        KeptStream.__init__(self, method)
        self._find_columns = find_columns

    def push(
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

        Args:
            steps: New time steps, oldest first, as a sequence of `Client.infer`. Text is turned into tokens
                for itself, push by push.
            sequence_id: Id of the sequence within the stream.
            initial: What the model's init graph takes, in the first push of a sequence: rows of numbers by
                name.
            state: Sealed state of an earlier output, to continue from in the first push of a sequence.
            return_state: Return the sealed state after these time steps with the output.
            end: Let the server forget the sequence after this push.

        Returns:
            The output of the new time steps.

        Raises:
            SeqserveError: The push failed. If the client or the server rejected the message, the sequence is
                unchanged and the stream continues; if the call failed, the stream is closed.
            ClientClosed: The stream is closed.
        """
        with self._turn:
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
            self._order(pushed)
            return self._send_one(pushed.request, return_state)

    def push_all(self, inputs: Mapping[str, Any], *, return_state: bool = False) -> list[InferAnswer]:
        """Send new time steps of several sequences together, so that the server runs them side by side.

        Args:
            inputs: New time steps of each sequence, by its id.
            return_state: Return the sealed states with the outputs.

        Returns:
            An answer for each sequence, in their order. A message that failed has an answer with `error`, and
            its sequence is unchanged.

        Raises:
            SeqserveError: An argument was refused, or the call failed; the latter closes the stream.
            ClientClosed: The stream is closed.
        """
        with self._turn:
            self._check_open()
            pushed = self._several(inputs, return_state)
            for each in pushed:
                self._order(each)
            return self._answers(pushed, self._send([each.request for each in pushed], return_state))

    def end(self, sequence_id: str = "") -> None:
        """Let the server forget a sequence, so that another may have its place; no effect on an unknown one.

        Raises:
            SeqserveError: The call failed.
            ClientClosed: The stream is closed.
        """
        with self._turn:
            self._check_open()
            if (request := self._ending(sequence_id)) is not None:
                self._send_one(request, False)
            self._forget(sequence_id)

    def _order(self, pushed: Pushed) -> None:
        if pushed.frame is not None:
            self._set_columns(pushed, self._find_columns(self._model, self._version_of(pushed.request.id)))
