"""Tensors of sequences: their specs, and the conversion from and to what the task takes and gives."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.api.open_inference.interfaces.interface import num_rows
from service.api.open_inference.interfaces.values import require, require_text_or_input, rows_of, texts_of
from service.api.open_inference.tensors import Encoded, Tensor, TensorSpec, to_raw
from service.contract.spec import SequencesSpec
from service.tasks.pacing import Pace
from service.tasks.sequences import SequenceInput, SequenceOutput, SequencesTask

# The network's own outputs, or what they mean where they are numbers or an embedding.
NETWORK_OUTPUT: Final = "output"
_OWN_NAMES: Final = ("text", "input", "lengths")
# Labels and spans that are written before other calls run.
_SLICE_ROWS: Final = 1_000


def tensor_names_of(initial: Mapping[str, object], own_names: Sequence[str] = _OWN_NAMES) -> dict[str, str]:
    """Return the tensor of each input of the init graph: its name, behind initial_ where that is taken."""
    tensors: dict[str, str] = {}
    for name in initial:
        tensor = name
        while tensor in own_names or (tensor != name and tensor in initial):
            tensor = f"initial_{tensor}"
        tensors[name] = tensor
    return tensors


def specs_of_inputs(task: SequencesTask, initial: Mapping[str, int]) -> list[TensorSpec]:
    """Return the specs of the inputs.

    Args:
        task: task of the version.
        initial: width of each input of the init graph, by the name of its tensor.
    """
    texts = [TensorSpec("text", "BYTES", ("n",))] if task.input == "text" else []
    is_values = task.input == "steps"
    return [
        *texts,
        TensorSpec("input", "FP32", ("n", "time", task.values))
        if is_values
        else TensorSpec("input", "INT64", ("n", "time")),
        TensorSpec("lengths", "INT32", ("n",)),
        *(TensorSpec(name, "FP32", ("n", size)) for name, size in initial.items()),
    ]


def specs_of_outputs(task: SequencesTask, *, raw: bool = False) -> list[TensorSpec]:
    """Return the specs of the outputs, in the shapes of a request that does not say which steps it wants.

    Args:
        task: task of the version.
        raw: whether a request asks for the network's own outputs beside classes.
    """
    rows = ("n", "time") if task.every_by_default else ("n",)
    specs = []
    if task.labels:
        specs.append(TensorSpec("label", "BYTES", rows))
    if task.output in ("label", "probabilities"):
        specs.append(TensorSpec("probabilities", "FP32", (*rows, len(task.labels) or task.width)))
    if raw or not specs:
        specs.append(TensorSpec(NETWORK_OUTPUT, "FP32", (*rows, task.width)))
    if task.input == "text":
        specs.append(TensorSpec("spans", "INT32", (*rows, 2)))
    return specs


def properties_for(section: SequencesSpec, task: SequencesTask) -> dict[str, object]:
    """Return the meaning of the tensors, for the metadata."""
    properties: dict[str, object] = {
        "input": task.input,
        "output": task.output,
        "output_steps": "every" if task.every_by_default else "last",
    }
    if task.labels:
        properties["labels"] = task.labels
    if section.columns:
        properties["columns"] = [column.name for column in section.columns]
        properties["units"] = [column.unit for column in section.columns]
    if section.output.columns:
        properties["output_columns"] = [column.name for column in section.output.columns]
        properties["output_units"] = [column.unit for column in section.output.columns]
    return properties


def sequences_of(tensors: Mapping[str, Tensor], kind: str, initial: Mapping[str, str]) -> list[SequenceInput]:
    """Return the sequences of the rows of a request's tensors.

    Args:
        tensors: tensors by name.
        kind: "text", "tokens" or "steps", as the model takes.
        initial: tensor of each input of the init graph.

    Raises:
        InvalidArgument: a tensor is missing or one too many, a length is wrong, or a text is not UTF-8.
    """
    if kind == "text":
        require_text_or_input(tensors)
    else:
        require("input", tensors)
    firsts: list[dict[str, Any]] = [
        {name: tensors[tensor][row] for name, tensor in initial.items() if tensor in tensors}
        for row in range(num_rows(tensors))
    ]
    if "text" in tensors:
        return list(map(SequenceInput, texts_of("text", tensors["text"]), repeat(None), repeat(None), firsts))
    rows = rows_of(tensors)
    if kind == "steps":
        return list(map(SequenceInput, repeat(None), repeat(None), rows, firsts))
    return list(map(SequenceInput, repeat(None), rows, repeat(None), firsts))


async def tensors_of(
    outputs: Sequence[SequenceOutput], time: int | None, *, has_spans: bool
) -> dict[str, Tensor | Encoded]:
    """Return the output tensors of sequences; other calls run in between if there is much to write.

    Args:
        outputs: output of each sequence.
        time: time steps of the tensors, of which those behind a sequence's rows are 0; None: one row each.
        has_spans: whether the model takes text.
    """
    found: dict[str, Tensor | Encoded] = {}
    first = outputs[0]
    if first.values is not None:
        found[NETWORK_OUTPUT] = _stacked([_floats(one.values) for one in outputs], time)
    if first.probabilities is not None:
        found["probabilities"] = _stacked([_floats(one.probabilities) for one in outputs], time)
    if first.labels:
        found["label"] = await _labels(outputs, time)
    if has_spans:
        found["spans"] = await _spans(outputs, time)
    return found


def _floats(rows: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert rows is not None, "all outputs of a request are of one kind"
    return rows


def _stacked(parts: Sequence[NDArray[Any]], time: int | None) -> NDArray[Any]:
    """Return (n, width) of one row each, or (n, time, width) with 0 behind the rows of each."""
    if time is None:
        return np.concatenate(parts)
    stacked = np.zeros((len(parts), time, parts[0].shape[1]), parts[0].dtype)
    for row, part in zip(stacked, parts, strict=True):
        row[: len(part)] = part
    return stacked


async def _labels(outputs: Sequence[SequenceOutput], time: int | None) -> Encoded:
    """Return the labels, (n,) or (n, time) with no text behind the rows of each."""
    pace, parts = Pace(), []
    encoded: dict[str, bytes] = {}
    for one in outputs:
        for start in range(0, len(one.labels), _SLICE_ROWS):
            labels = one.labels[start : start + _SLICE_ROWS]
            encoded |= {label: to_raw("BYTES", [label.encode()]) for label in set(labels) - encoded.keys()}
            parts.append(b"".join(map(encoded.__getitem__, labels)))
            await pace.rest()
        if time is not None:
            parts.append(to_raw("BYTES", [b""]) * (time - len(one.labels)))
    shape = (len(outputs),) if time is None else (len(outputs), time)
    return Encoded(shape, b"".join(parts))


async def _spans(outputs: Sequence[SequenceOutput], time: int | None) -> NDArray[np.int32]:
    """Return first and last character of the rows, the latter exclusive; 0 for rows of no text."""
    pace, parts = Pace(), []
    for one in outputs:
        spans = np.zeros((one.steps, 2), np.int32)
        for start in range(0, len(one.spans), _SLICE_ROWS):
            part = one.spans[start : start + _SLICE_ROWS]
            spans[start : start + len(part)] = part
            await pace.rest()
        parts.append(spans)
    return _stacked(parts, time)
