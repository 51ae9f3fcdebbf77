"""Finds out what a network's outputs are: logits, probabilities, numbers, or an embedding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from service.contract import spec
from training.convert.converted import Converted
from training.errors import TrainingError

OutputKind = Literal["logits", "probabilities", "numbers", "embedding"]
# Operators that move values, or leave them between the smallest and the largest of them.
_MOVING = frozenset(
    {"Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten", "Gather", "Slice", "Cast"}
    | {"ReduceMean", "ReduceMax", "ReduceMin"}
)
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class SaidOutputs:
    """What a user said about outputs; None and () leave it to be found.

    Attributes:
        kind: what they are.
        labels: names of the classes.
        exclusive: exactly one label holds at a time.
        columns: names, units and scaling of numbers.
        steps: the last time step, or every one, is what an unset request gets.
    """

    kind: OutputKind | None = None
    labels: Sequence[str] = ()
    exclusive: bool | None = None
    columns: Sequence[spec.OutputColumn] = ()
    steps: Literal["last", "every"] | None = None


def output_spec(converted: Converted, said: SaidOutputs) -> tuple[spec.OutputSpec, list[str]]:
    """Return what a network's outputs are, and sentences on what was assumed.

    Raises:
        TrainingError: labels or columns do not fit the outputs.
    """
    is_softmax = has_softmax_rows(converted)
    last = final_operator(converted.graph)
    kind, exclusive, assumed = _kind(said, converted.outputs, is_softmax, last)
    _check(said, kind, converted.outputs)
    if said.exclusive is not None:
        exclusive = said.exclusive
    elif said.labels and len(said.labels) == 2 and converted.outputs == 1:
        # One output for two classes is the probability of the second one.
        exclusive = True
    steps = said.steps or ("every" if converted.every_step and not converted.pooled else "last")
    if steps == "every" and converted.pooled:
        raise TrainingError("--steps: expected last for a network with one output a sequence, found every")
    if said.labels and not exclusive and "" in said.labels:
        raise TrainingError('--labels: expected no empty label where several may hold, found ""')
    return spec.OutputSpec(
        kind=kind,
        labels=list(said.labels) or None,
        exclusive=exclusive,
        columns=list(said.columns) or None,
        steps=steps,
    ), assumed


def _kind(said: SaidOutputs, outputs: int, is_softmax: bool, last: str) -> tuple[OutputKind, bool, list[str]]:
    """Return the kind, whether one label holds at a time, and sentences on what was assumed."""
    is_sigmoid = last == "Sigmoid"
    if said.kind is not None:
        return said.kind, is_softmax or said.kind == "logits" or not is_sigmoid, []
    if is_softmax:
        return "probabilities", True, ["the outputs are probabilities: they are positive, and rows sum to 1"]
    if is_sigmoid:
        several = "each label holds for itself" if said.labels else "each holds for itself"
        if len(said.labels) == 2 and outputs == 1:
            several = f"the one is that of {said.labels[1]!r}"
        return (
            "probabilities",
            False,
            [f"the outputs are probabilities: the last operator is Sigmoid; {several}"],
        )
    if said.labels:
        return "logits", True, ["the outputs are logits, of which softmax gives the labels' probabilities"]
    return (
        "numbers",
        True,
        ["the outputs are numbers; --labels names classes, --output says what else they are"],
    )


def _check(said: SaidOutputs, kind: OutputKind, outputs: int) -> None:
    """Raise TrainingError where labels or columns do not fit."""
    count = len(said.labels)
    if count and count != outputs and (count, outputs) != (2, 1):
        one = " (or 2)" if outputs == 1 else ""
        raise TrainingError(f"--labels: expected {outputs}{one}, one an output of the network, found {count}")
    if count == 1 and said.exclusive is not False:
        raise TrainingError(
            "--labels: expected two or more where exactly one holds, found one: name both classes, "
            "or say --several"
        )
    if count and kind not in ("logits", "probabilities"):
        raise TrainingError(f"--labels: expected beside logits or probabilities, found them beside {kind}")
    if said.columns and kind != "numbers":
        raise TrainingError(f"--target-features: expected beside numbers, found them beside {kind}")


def has_softmax_rows(converted: Converted) -> bool:
    """Return whether all known rows of outputs are positive and sum to 1, of two outputs or more."""
    rows: NDArray[np.float32] = np.concatenate([one.outputs for one in converted.examples])
    if converted.outputs < 2 or (rows < 0).any():
        return False
    return bool(np.allclose(rows.sum(axis=1, dtype=np.float64), 1, atol=_SUM_TOLERANCE))


def final_operator(graph: onnx.ModelProto) -> str:
    """Return the operator that computes the values of a graph's `output`, "" where there is none."""
    makers = {name: node for node in graph.graph.node for name in node.output}
    name = spec.OUTPUT
    while (node := makers.get(name)) is not None:
        if node.op_type not in _MOVING:
            return node.op_type
        name = node.input[0]
    return ""
