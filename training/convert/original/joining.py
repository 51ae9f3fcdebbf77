"""Joins an encoder and a decoder that are two files: the encoder's outputs are the decoder's first states."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import compose, helper

from training.convert.foreign import Array, Foreign, Oracle, Refused
from training.convert.graph.session import Session
from training.convert.options import Choices
from training.convert.original.roles import Edge, carrying_inputs

PREFIX = "encoder."
_LEAST_RANK = 2


def join(encoder: Foreign, decoder: Foreign, choices: Choices, folder: Path) -> Foreign:
    """Return one network that takes what the encoder reads and what the decoder reads.

    An output of the encoder goes to the state of its name, or, where names differ, to the state of its place
    among those of its shape; what was assumed is said.

    Raises:
        Refused: the states do not fit, or the graphs have different opsets.
    """
    if decoder.is_step or encoder.is_step:
        raise Refused(
            "--encoder: expected a decoder that takes whole sequences, found one of a time step a call",
            "export the decoder with a time axis, or both as one network with two inputs",
        )
    states = carrying_inputs(decoder.graph.graph, choices)
    sources, assumed = _sources(encoder.graph.graph, states)
    graph = _joined(encoder.graph, decoder.graph, states, sources)
    # Each alone, whatever joining them does.
    oracle = _in_turn(encoder, decoder, states, sources, folder)
    said = (*encoder.assumed, *decoder.assumed, *assumed)
    # The decoder's states are no inputs any more.
    return replace(decoder, graph=graph, oracle=oracle, assumed=said, states=())


def _sources(encoder: onnx.GraphProto, states: tuple[Edge, ...]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the encoder's output for each state, by the name of the state, and what was assumed."""
    if not states:
        raise Refused(
            "--encoder: expected states among the decoder's inputs, found none",
            "name them with their outputs: --state h0:hn",
        )
    names = [one.name for one in encoder.output]
    if all(one.name in names for one in states):
        return {one.name: one.name for one in states}, ()
    ranks = {one.name: len(one.type.tensor_type.shape.dim) for one in encoder.output}
    # Outputs of all time steps have three axes, too, and stand before the states in every framework.
    fitting = [name for name in names if ranks[name] in (_LEAST_RANK, _LEAST_RANK + 1)][-len(states) :]
    if len(fitting) < len(states):
        raise Refused(
            f"--encoder: expected an output for each of the states {_listed(states)}, found "
            f"{', '.join(names)}",
            "give the encoder's outputs the names of the decoder's states",
        )
    found = {one.name: name for one, name in zip(states, fitting, strict=True)}
    said = ", ".join(f"{state} from {name}" for state, name in found.items())
    return found, (f"the decoder's first states are the encoder's last outputs, in their order: {said}",)


def _joined(
    encoder: onnx.ModelProto, decoder: onnx.ModelProto, states: tuple[Edge, ...], sources: Mapping[str, str]
) -> onnx.ModelProto:
    opsets = [{one.domain or "": one.version for one in model.opset_import} for model in (encoder, decoder)]
    if opsets[0].get("", 0) != opsets[1].get("", 0):
        raise Refused(
            f"--encoder: expected opset {opsets[1].get('')} of the decoder, found {opsets[0].get('')}",
            "export both with the same opset_version",
        )
    first = _with_own_axes(compose.add_prefix(encoder, PREFIX))
    ranks = {PREFIX + one.name: len(one.type.tensor_type.shape.dim) for one in encoder.graph.output}
    bridges = []
    for state in states:
        output = PREFIX + sources[state.name]
        if ranks[output] == len(state.dims):
            bridges.append(helper.make_node("Identity", [output], [state.name]))
        else:
            shape = f"{PREFIX}{state.name}.shape"
            sizes = [size or -1 for size in state.dims]
            bridges.append(_shape(shape, sizes))
            bridges.append(helper.make_node("Reshape", [output, shape], [state.name]))
    given = {one.name for one in states}
    graph = helper.make_graph(
        [*first.graph.node, *bridges, *decoder.graph.node],
        "joined",
        [*first.graph.input, *(one for one in decoder.graph.input if one.name not in given)],
        list(decoder.graph.output),
        [*first.graph.initializer, *decoder.graph.initializer],
    )
    merged = opsets[0] | opsets[1]
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in merged.items()],
        ir_version=max(encoder.ir_version, decoder.ir_version),
    )
    made.functions.extend([*first.functions, *decoder.functions])
    return made


def _with_own_axes(encoder: onnx.ModelProto) -> onnx.ModelProto:
    """Return an encoder whose axes have names of their own.

    Both files may call their axis of time `time`, and onnxruntime takes axes of one name for equally long.
    """
    for one in (*encoder.graph.input, *encoder.graph.output, *encoder.graph.value_info):
        for dim in one.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = PREFIX + dim.dim_param
    return encoder


def _shape(name: str, sizes: list[int]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value_ints=sizes)


def _in_turn(
    encoder: Foreign, decoder: Foreign, states: tuple[Edge, ...], sources: Mapping[str, str], folder: Path
) -> Oracle:
    """Return what runs the encoder, and the decoder from its end."""
    first, second = _runs(encoder, folder), _runs(decoder, folder)
    names = [one.name for one in encoder.graph.graph.output]

    def run(feeds: Mapping[str, Array]) -> Sequence[Array]:
        read = {name.removeprefix(PREFIX): one for name, one in feeds.items() if name.startswith(PREFIX)}
        ends = dict(zip(names, first(read), strict=True))
        given = {name: one for name, one in feeds.items() if not name.startswith(PREFIX)}
        for state in states:
            sizes = [size or -1 for size in state.dims]
            end = np.asarray(ends[sources[state.name]])
            given[state.name] = end if end.ndim == len(sizes) else end.reshape(sizes)
        return second(given)

    return run


def _runs(foreign: Foreign, folder: Path) -> Oracle:
    if foreign.oracle is not None:
        return foreign.oracle
    session = Session(foreign.graph, folder)
    names = [one.name for one in foreign.graph.graph.output]
    return lambda feeds: session.run(feeds, names)


def _listed(states: tuple[Edge, ...]) -> str:
    return ", ".join(one.name for one in states)
