"""Reads a graph that takes one time step a call: its inputs, outputs and states, and their axes."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from service.contract import spec
from training.convert.foreign import Array, Foreign, Refused
from training.convert.graph.copying import every_node
from training.convert.graph.session import Session
from training.convert.options import Choices
from training.convert.original.roles import Edge, ancestors, edges
from training.convert.step.graphs import StepGraph, StepState, unused

# Constants up to this many bytes are computed once instead of in every session that loads the graph.
_FOLDED_BYTES = 4 << 20
# Sizes of a batch that no width is likely to have.
_BATCHES = (3, 2)
_MAX_NAME = 40


def is_step(foreign: Foreign, choices: Choices) -> bool:
    """Return whether a graph takes one time step a call: it has states, and its data has no axis of time.

    Data are [batch], [batch, features], or have a time axis whose size is 1.
    """
    if foreign.is_step or not (pairs := choices.state or foreign.states):
        return foreign.is_step
    carried = {name for name, _ in pairs} | set(choices.fixed)
    left = [one for one in edges(foreign.graph.graph) if one.name not in carried]
    data = next((one for one in left if choices.data in (None, one.name)), None)
    if data is None or len(data.dims) > 3:
        return False
    if data.dtype.kind == "i":
        return len(data.dims) == 1 or data.dims[1:] == (1,)
    return len(data.dims) == 2 or (len(data.dims) == 3 and data.dims[1] == 1)


def read_step(foreign: Foreign, choices: Choices) -> StepGraph:
    """Find what the inputs and outputs of a step graph are.

    Raises:
        Refused: an input or output is missing or has no role, an axis has an unknown size, or the batch is
            fixed; the sentence names it.
    """
    fixed = with_constants(foreign.graph, choices.fixed)
    pairs = _pairs(fixed.graph, choices.state or foreign.states)
    data = _data(fixed.graph, pairs, choices)
    output, said = _output(fixed.graph, pairs, choices)
    dims, features = _data_dims(data, choices)
    states = tuple(_with_batch(one, index, pairs, foreign.starts) for index, one in enumerate(pairs))
    folded = _folded(fixed, {data.name: dims} | {one.input: _open(one) for one in states})
    width = _check_batches(folded, data, dims, states, output)
    vocabulary = _vocabulary(foreign, folded.graph, data) if data.dtype.kind == "i" else None
    return StepGraph(
        folded,
        data.name,
        dims,
        data.dtype,
        vocabulary,
        features,
        choices.overlap,
        output,
        width,
        states,
        said,
    )


def with_constants(model: onnx.ModelProto, fixed: Mapping[str, float]) -> onnx.ModelProto:
    """Return a copy of a model whose inputs named in `fixed` are constants.

    Raises:
        Refused: there is no such input, or it has axes of unknown size.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    known = {one.name: one for one in edges(made.graph)}
    for name, number in fixed.items():
        if name not in known:
            raise Refused(f"--set: expected one of the inputs {', '.join(known)}, found {name}")
        made.graph.initializer.append(numpy_helper.from_array(fixed_value(known[name], number), name))
        kept = [one for one in made.graph.input if one.name != name]
        del made.graph.input[:]
        made.graph.input.extend(kept)
    return made


def fixed_value(edge: Edge, number: float) -> Array:
    """Return the value of an input that always has the same number, of the input's type and shape."""
    if None in edge.dims:
        raise Refused(f"--set {edge.name}: expected an input of known shape, found {list(edge.dims)}")
    return np.full([size or 1 for size in edge.dims], number, edge.dtype)


def _pairs(graph: onnx.GraphProto, given: Sequence[tuple[str, str]]) -> tuple[tuple[Edge, str], ...]:
    """Return the inputs that carry states, each with its output."""
    inputs = {one.name: one for one in edges(graph)}
    outputs = [one.name for one in graph.output]
    for name, target in given:
        if name not in inputs:
            raise Refused(
                f"--state {name}:{target}: expected one of the inputs {', '.join(inputs)}, found {name}"
            )
        if target not in outputs:
            raise Refused(
                f"--state {name}:{target}: expected one of the outputs {', '.join(outputs)}, found {target}"
            )
        if inputs[name].dtype != np.float32:
            raise Refused(f"state {name}: expected float32, found {inputs[name].dtype}")
    if not given:
        raise Refused("expected states of a graph that takes one time step a call, found none", _STATE_ADVICE)
    return tuple((inputs[name], target) for name, target in given)


_STATE_ADVICE = "name each state's input and output: --state h:hn"


def _data(graph: onnx.GraphProto, pairs: Sequence[tuple[Edge, str]], choices: Choices) -> Edge:
    carried = {one.name for one, _ in pairs}
    left = [one for one in edges(graph) if one.name not in carried]
    if choices.data is not None:
        left = [one for one in left if one.name == choices.data] or left
    names = ", ".join(one.name for one in left) or "none"
    if len(left) != 1:
        raise Refused(
            f"expected one input beside the states, found {names}",
            "name the one that holds the time step (--data-input NAME), pair states (--state h:hn), and give "
            "those that always have the same number (--set NAME=NUMBER)",
        )
    return left[0]


def _output(
    graph: onnx.GraphProto, pairs: Sequence[tuple[Edge, str]], choices: Choices
) -> tuple[str, tuple[str, ...]]:
    """Return the output that is served, and what is assumed about it."""
    names = [one.name for one in graph.output]
    if choices.output is not None:
        if choices.output not in names:
            raise Refused(
                f"--output-name: expected one of the outputs {', '.join(names)}, found {choices.output}"
            )
        return choices.output, ()
    carried = {target for _, target in pairs}
    left = [name for name in names if name not in carried]
    if not left:
        raise Refused(f"expected an output beside the states, found {', '.join(names)} alone")
    said = f"the output that is served is {left[0]}, the first of {', '.join(left)}"
    return left[0], (said,) if len(left) > 1 else ()


def _data_dims(data: Edge, choices: Choices) -> tuple[tuple[int, ...], int]:
    """Return the sizes of the data's axes, -1 for the batch, and the numbers of a caller's time step."""
    if data.dtype.kind == "i":
        if data.dims[1:] not in ((), (1,)):
            raise Refused(
                f"input {data.name}: expected [batch] or [batch, 1] token ids, found {_shown(data.dims)}"
            )
        return (-1, *(1,) * (len(data.dims) - 1)), 0
    if len(data.dims) not in (2, 3) or (len(data.dims) == 3 and data.dims[1] not in (1, None)):
        raise Refused(
            f"input {data.name}: expected [batch, features] or [batch, 1, features], "
            f"found {_shown(data.dims)}"
        )
    size = data.dims[-1] if choices.width is None else choices.width + choices.overlap
    if size is None:
        raise Refused(
            f"input {data.name}: expected a known number of values a time step, found {_shown(data.dims)}",
            "give their number: --width 512",
        )
    if data.dims[-1] not in (None, size):
        raise Refused(
            f"--width and --overlap: expected {data.dims[-1]} values together, as input {data.name} has, "
            f"found {size}"
        )
    if not 0 <= choices.overlap <= size - choices.overlap:
        raise Refused(
            f"--overlap: expected at most the values of a time step, {size - choices.overlap}, "
            f"found {choices.overlap}"
        )
    return (-1, *(1,) * (len(data.dims) - 2), size), size - choices.overlap


def _with_batch(
    pair: tuple[Edge, str],
    index: int,
    pairs: Sequence[tuple[Edge, str]],
    starts: Mapping[str, Array],
) -> StepState:
    """Return a state with the axis that is its batch: that of unknown size, else one of size 1."""
    edge, target = pair
    unknown = [axis for axis, size in enumerate(edge.dims) if size is None]
    ones = [axis for axis, size in enumerate(edge.dims) if size == 1]
    if len(unknown) > 1 or not (unknown or ones):
        raise Refused(
            f"state {edge.name}: expected one axis of unknown size, the batch, found {_shown(edge.dims)}",
            "export it with numbers for its other axes",
        )
    batch = (unknown or ones)[0] if unknown or len(edge.dims) < 3 or len(ones) == 1 else ones[1]
    dims = tuple(1 if axis == batch else size or 1 for axis, size in enumerate(edge.dims))
    taken = [_readable(one.name, place) for place, (one, _) in enumerate(pairs[:index])]
    name = unused(_readable(edge.name, index), taken)
    start = np.zeros(dims, np.float32)
    if edge.name in starts:
        start = np.asarray(starts[edge.name], np.float32).reshape(dims)
    return StepState(name, edge.name, target, dims, batch, start)


def _readable(name: str, index: int) -> str:
    """Return a short name of letters, digits, dots and lines for a state of any name."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", ".", name).strip("._")[-_MAX_NAME:].strip("._")
    reserved = (spec.INPUT, spec.LENGTHS, spec.WANTED, spec.OUTPUT)
    return f"state.{plain or index}" if not plain or plain in reserved else plain


def _open(state: StepState) -> tuple[int, ...]:
    """Return the sizes of a state's axes with -1 for the batch."""
    return tuple(-1 if axis == state.batch else size for axis, size in enumerate(state.dims))


def _folded(model: onnx.ModelProto, dims: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Return a model whose constant parts are computed, with any size of batch at its edge."""
    for one in model.graph.input:
        if one.name in dims:
            shape = one.type.tensor_type.shape
            del shape.dim[:]
            for size in dims[one.name]:
                made = shape.dim.add()
                if size < 0:
                    made.dim_param = "batch"
                else:
                    made.dim_value = size
    for one in model.graph.output:
        one.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    from onnxscript import optimizer  # noqa: PLC0415 -- takes a second to import, and few graphs need it

    return optimizer.optimize(model, input_size_limit=_FOLDED_BYTES, output_size_limit=_FOLDED_BYTES)


def _check_batches(
    model: onnx.ModelProto,
    data: Edge,
    dims: tuple[int, ...],
    states: Sequence[StepState],
    output: str,
) -> int:
    """Run batches of other sizes than the file's; return the width of a row of outputs."""
    session, size = Session(model, None), 0
    for batch in _BATCHES:
        feeds: dict[str, Array] = {
            data.name: np.zeros([abs(one) * (batch if one < 0 else 1) for one in dims], data.dtype)
        }
        feeds |= {one.input: np.repeat(one.start, batch, one.batch) for one in states}
        try:
            found, *carried = session.run(feeds, [output, *(one.output for one in states)])
        except Refused as error:
            raise Refused(
                f"expected a graph of any size of batch, found one that fails at {batch} rows: "
                f"{error.reason}",
                "export it with the batch as a dynamic axis",
            ) from error
        for state, value in zip(states, carried, strict=True):
            if value.shape != feeds[state.input].shape:
                raise Refused(
                    f"state {state.input}: expected output {state.output} of its shape, "
                    f"{list(feeds[state.input].shape)}, found {list(value.shape)}"
                )
        if found.size % batch or found.size == 0:
            raise Refused(f"output {output}: expected a row a sequence, found shape {list(found.shape)}")
        size = found.size // batch
    return size


def _vocabulary(foreign: Foreign, graph: onnx.GraphProto, data: Edge) -> int:
    """Return the number of token ids: that of the reader, or of the table in which they are looked up."""
    if foreign.vocabulary is not None:
        return foreign.vocabulary
    tables = {one.name: one.dims[0] for one in graph.initializer if len(one.dims) == 2}
    found = [
        tables[node.input[0]]
        for node in every_node(graph.node)
        if node.op_type == "Gather"
        and node.input[0] in tables
        and data.name in ancestors(graph, [node.input[1]])
    ]
    if not found:
        raise Refused(f"input {data.name}: expected a table in which its token ids are looked up, found none")
    return int(found[0])


def _shown(dims: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in dims) + "]"
