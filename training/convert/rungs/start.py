"""Finds what the states of a network are before the first step: zeros, constants, or computed from inputs."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from training.convert.cases import Case
from training.convert.foreign import Refused
from training.convert.graph.copying import Copier
from training.convert.original.original import Original
from training.convert.original.roles import is_source
from training.convert.rungs.stateful import STATES

SOURCE = "source"
_INIT = "init/"
_STEPS = (4, 9)


@dataclass(frozen=True, slots=True)
class Start:
    """States before the first step, those of zeros left out.

    Attributes:
        constants: rows that are the same for every sequence, by name of the state.
        computed: tensors of the original that compute a state from its extra inputs, by name of the state.
    """

    constants: dict[str, list[float]] = field(default_factory=dict)
    computed: dict[str, str] = field(default_factory=dict)


def find_start(original: Original) -> Start:
    """Find the first states by running the original on several sequences.

    Raises:
        Refused: a first state depends on the sequence itself.
    """
    tensors = _first_states(original)
    rng = np.random.default_rng(1)
    first = original.drawing.case(rng, _STEPS[0])
    other = original.drawing.case(rng, _STEPS[1])
    same_start = Case(other.inputs, first.initial, first.source)
    names = list(tensors.values())
    rows = [_rows(original, names, case) for case in (first, same_start, other)]
    constants, computed = {}, {}
    for state, one, sequence, extra in zip(tensors, *rows, strict=True):
        if not np.array_equal(one, sequence):
            raise Refused(
                f"the first state {state} depends on the sequence itself",
                "an encoder and a decoder need the two sequences as two inputs",
            )
        if not np.array_equal(one, extra):
            computed[state] = tensors[state]
        elif np.any(one != 0):
            constants[state] = [float(value) for value in one.reshape(-1)]
    return Start(constants, computed)


def init_graph(original: Original, start: Start) -> onnx.ModelProto | None:
    """Return the graph that computes first states from the extra inputs, or None."""
    if not start.computed:
        return None
    copier = Copier()
    for tensor in original.model.graph.initializer:
        copier.tensor(tensor)
    inputs, replaced = [], {}
    for one in original.roles.extras:
        if is_source(one):
            info, replaced[one.name] = _source(copier, original, one.dtype)
        else:
            info = helper.make_tensor_value_info(one.name, TensorProto.FLOAT, ["batch", one.dims[1]])
            replaced[one.name] = one.name
        inputs.append(info)
    lengths = original.roles.source_lengths
    if lengths is not None:
        replaced[lengths.name] = _source_lengths(copier, lengths.dtype)
    named = copier.copy(original.model.graph, _INIT, replaced)
    widths = dict(_widths(original))
    outputs = []
    for state, name in start.computed.items():
        copier.node("Reshape", [named(name), copier.shape(-1, widths[state])], state)
        outputs.append(helper.make_tensor_value_info(state, TensorProto.FLOAT, ["batch", widths[state]]))
    return copier.model(original.model, "init", inputs, outputs)


def _source(
    copier: Copier, original: Original, dtype: np.dtype[np.generic]
) -> tuple[onnx.ValueInfoProto, str]:
    """Add the input of a source sequence; return it, and the tensor that the original gets."""
    source = original.drawing.source
    assert source is not None, "there is a source input"
    is_tokens = source.kind == "tokens"
    axes: list[str | int] = ["batch", "time"] if is_tokens else ["batch", "time", source.size]
    kind = TensorProto.INT64 if is_tokens else TensorProto.FLOAT
    name = SOURCE
    if helper.np_dtype_to_tensor_dtype(dtype) != kind:
        name = copier.node("Cast", [name], f"{SOURCE}.cast", to=helper.np_dtype_to_tensor_dtype(dtype))
    if original.time_first:
        name = copier.node("Transpose", [name], f"{SOURCE}.time_first", perm=[1, 0, 2][: len(axes)])
    return helper.make_tensor_value_info(SOURCE, kind, axes), name


def _source_lengths(copier: Copier, dtype: np.dtype[np.generic]) -> str:
    """Return the lengths that the original gets: all steps of each source."""
    shape = copier.node("Shape", [SOURCE], f"{SOURCE}.shape")
    batch = copier.node("Gather", [shape, copier.shape(0)], f"{SOURCE}.batch")
    steps = copier.node("Gather", [shape, copier.shape(1)], f"{SOURCE}.time")
    full = copier.node("Expand", [steps, batch], f"{SOURCE}.full")
    return copier.node("Cast", [full], f"{SOURCE}.lengths", to=helper.np_dtype_to_tensor_dtype(dtype))


def _first_states(original: Original) -> dict[str, str]:
    """Return the tensors of the original that its recurrent nodes start with, by name of the state."""
    return {
        f"layer{index}.{kind}": node.input[5 + place]
        for index, node in enumerate(original.nodes)
        for place, kind in enumerate(STATES[node.op_type])
        if len(node.input) > 5 + place and node.input[5 + place]
    }


def _widths(original: Original) -> list[tuple[str, int]]:
    return [
        (f"layer{index}.{kind}", next(one.i for one in node.attribute if one.name == "hidden_size"))
        for index, node in enumerate(original.nodes)
        for kind in STATES[node.op_type]
    ]


def _rows(original: Original, names: list[str], case: Case) -> list[NDArray[np.float32]]:
    """Return tensors of the original for one sequence; those of its weights as they are."""
    constants = {one.name: one for one in original.model.graph.initializer}
    inputs = original.feeds([case])
    computed = [name for name in names if name not in constants and name not in inputs]
    found = dict(zip(computed, original.probe(computed, [case]), strict=True)) if computed else {}
    found |= {name: inputs[name] for name in names if name in inputs}
    found |= {
        name: np.asarray(original.weights.value(constants[name])) for name in names if name in constants
    }
    return [np.asarray(found[name], np.float32) for name in names]
