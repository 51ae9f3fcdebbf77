"""Conversion of sequences and their outputs from and to messages."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seqserve.v1 import sequences_pb2 as pb
from service.api.packed import array_of, packed
from service.contract.network import MAX_INITIAL
from service.errors import InvalidArgument
from service.tasks.limits import Limits, check_count
from service.tasks.pacing import Pace
from service.tasks.sequences import SequenceInput, SequenceOutput, SequencesTask

_FIELDS = pb.SequenceOutput.DESCRIPTOR.fields_by_name
_VALUES, _PROBABILITIES = _FIELDS["values"].number, _FIELDS["probabilities"].number
_EVERY: Mapping[int, bool | None] = {
    pb.OUTPUT_STEPS_UNSPECIFIED: None,
    pb.OUTPUT_STEPS_LAST: False,
    pb.OUTPUT_STEPS_EVERY: True,
}
# Token ids that are read, and labels and spans that are written, before other calls run.
_SLICE_TOKENS, _SLICE_ROWS = 10_000, 1_000


class Taking(Protocol):
    """Takes sequences: a task, or the reader of an encoder's source."""

    @property
    def limits(self) -> Limits:
        """Sizes of a sequence."""
        ...

    @property
    def values(self) -> int:
        """Values of a time step; 0: none are taken."""
        ...


def wants_every(steps: int) -> bool | None:
    """Return whether a request asks for every time step; None: it does not say.

    Raises:
        InvalidArgument: the value has no meaning.
    """
    if steps not in _EVERY:
        raise InvalidArgument(
            "output_steps", f"expected 0 (as the model was made for), 1 (last) or 2 (every), found {steps}"
        )
    return _EVERY[steps]


async def read_all(messages: Sequence[pb.SequenceInput], task: SequencesTask) -> list[SequenceInput]:
    """Return the sequences of a request; other calls run in between if there is much to read.

    Raises:
        InvalidArgument: there are too few or too many, or values do not make rows.
    """
    check_count("inputs", "sequences", len(messages), task.limits.items)
    pace = Pace()
    return [await read_one(message, task, f"inputs[{index}]", pace) for index, message in enumerate(messages)]


async def read_one(message: pb.SequenceInput, task: Taking, field: str, pace: Pace) -> SequenceInput:
    """Return one sequence.

    Args:
        message: the message.
        task: what takes the sequence.
        field: path of the message in the request.
        pace: clock of the work.

    Raises:
        InvalidArgument: values do not make rows, or there are too many of anything.
    """
    kind = message.WhichOneof("kind")
    text, tokens, steps = None, None, None
    if kind == "text":
        text = message.text
    elif kind == "tokens":
        tokens = await _tokens_of(message.tokens, task, f"{field}.tokens.ids", pace)
    elif kind == "steps":
        steps = _rows_of(message.steps, task, f"{field}.steps")
        await pace.rest()
    initial = initial_of(message.initial, f"{field}.initial") if message.initial else {}
    return SequenceInput(text, tokens, steps, initial)


async def _tokens_of(message: pb.TokenIds, task: Taking, field: str, pace: Pace) -> NDArray[np.int64]:
    count = len(message.ids)
    check_count(field, "tokens", count, task.limits.text_length)
    tokens = np.empty(count, np.int64)
    for start in range(0, count, _SLICE_TOKENS):
        tokens[start : start + _SLICE_TOKENS] = message.ids[start : start + _SLICE_TOKENS]
        await pace.rest()
    return tokens


def _rows_of(message: pb.StepValues, task: Taking, field: str) -> NDArray[np.float32]:
    """Return the values of time steps, float32 (T, F)."""
    if not task.values:  # a model of tokens: the task says so
        return np.empty((0, 1), np.float32)
    if message.features not in (0, task.values):
        raise InvalidArgument(
            f"{field}.features",
            f"expected {task.values} values a time step, as the model takes, or 0, found {message.features}",
        )
    count = len(message.values)
    if count % task.values:
        raise InvalidArgument(
            f"{field}.values", f"expected {task.values} values for each time step, found {count} in all"
        )
    check_count(f"{field}.values", "time steps", count // task.values, task.limits.observations)
    return array_of(message.values, np.float32).reshape(-1, task.values)


def initial_of(messages: Mapping[str, pb.StepValues], field: str) -> dict[str, NDArray[np.float32]]:
    """Return the inputs of an init graph, float32 (size,) by name."""
    check_count(field, "inputs of an init graph", len(messages), MAX_INITIAL)
    found = {}
    for name, message in messages.items():
        if message.features not in (0, len(message.values)):
            raise InvalidArgument(
                f"{field}[{name}].features",
                f"expected one row of {len(message.values)} values, or 0, found {message.features}",
            )
        found[name] = array_of(message.values, np.float32)
    return found


async def write_output(message: pb.SequenceOutput, output: SequenceOutput, pace: Pace) -> None:
    """Write the outputs of one sequence into an empty message; other calls run between slices of many."""
    message.steps = output.steps
    if output.values is not None:
        message.width = output.values.shape[1]
        message.MergeFromString(packed(_VALUES, output.values.ravel()))
    if output.probabilities is not None:
        message.MergeFromString(packed(_PROBABILITIES, output.probabilities.ravel()))
    for start in range(0, len(output.labels), _SLICE_ROWS):
        message.labels.extend(output.labels[start : start + _SLICE_ROWS])
        await pace.rest()
    for start in range(0, len(output.spans), _SLICE_ROWS):
        for first, end in output.spans[start : start + _SLICE_ROWS]:
            span = message.spans.add()
            span.start = first
            span.end = end
        await pace.rest()
