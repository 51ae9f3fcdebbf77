"""Conversions between Python values and the messages of seqserve.v1.Sequences: pure functions."""

from array import array
from typing import Any

from seqserve import arguments
from seqserve.frames import Frame, ModelColumns, in_order
from seqserve.sequence_inputs import read_initial, read_inputs, step_values
from seqserve.sequence_results import SequenceOutput, TextSpan
from seqserve.tabular import Answers
from seqserve.v1 import sequences_pb2 as sequences


def infer_request(
    inputs: Any, initial: Any, *, model: str, version: int, every: bool | None, raw: bool
) -> tuple[sequences.InferRequest, dict[int, Frame]]:
    """Build a request to run sequences.

    Returns:
        The request, and the sequences that are tables, by their place. `set_frames` adds those, once the
        names of the model's columns are known.
    """
    found = read_inputs("inputs", inputs)
    request = sequences.InferRequest(
        model=arguments.text("model", model),
        version=arguments.count("version", version),
        inputs=[sequences.SequenceInput() if isinstance(each, Frame) else each for each in found],
        output_steps=output_steps("every", every),
        raw=arguments.flag("raw", raw),
    )
    for each, given in zip(request.inputs, read_initial("initial", initial, len(found)), strict=True):
        set_initial(each, given)
    return request, {place: each for place, each in enumerate(found) if isinstance(each, Frame)}


def set_frames(request: sequences.InferRequest, frames: dict[int, Frame], columns: ModelColumns) -> None:
    """Add the sequences that are tables, and fix the version that the columns are of."""
    request.version = columns.version
    for place, frame in frames.items():
        set_frame(f"inputs[{place}]", request.inputs[place], frame, columns)


def set_frame(field: str, message: sequences.SequenceInput, frame: Frame, columns: ModelColumns) -> None:
    """Set the time steps of a table, with its columns in the model's order."""
    message.steps.CopyFrom(step_values(field, in_order(field, frame, columns)))


def set_initial(message: sequences.SequenceInput, initial: dict[str, sequences.StepValues]) -> None:
    """Set what the model's init graph takes."""
    for name, row in initial.items():
        message.initial[name].CopyFrom(row)


def output_steps(field: str, every: bool | None) -> sequences.OutputSteps.ValueType:
    """Convert a choice of time steps; None leaves it to the model."""
    if every is None:
        return sequences.OUTPUT_STEPS_UNSPECIFIED
    is_every = arguments.flag(field, every)
    return sequences.OUTPUT_STEPS_EVERY if is_every else sequences.OUTPUT_STEPS_LAST


def outputs(response: sequences.InferResponse) -> Answers[SequenceOutput]:
    """Convert the outputs, one per sequence."""
    return Answers(output(message, version=response.version) for message in response.outputs)


def output(
    message: sequences.SequenceOutput, *, version: int, state: bytes = b"", position: int = 0
) -> SequenceOutput:
    """Convert the output of one sequence."""
    return SequenceOutput(
        steps=message.steps,
        width=message.width,
        labels=tuple(message.labels),
        spans=tuple(TextSpan(each.start, each.end) for each in message.spans),
        flat_values=array("f", message.values),
        flat_probabilities=array("f", message.probabilities),
        state=state,
        position=position,
        version=version,
    )
