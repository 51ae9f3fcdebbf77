"""Makes a chunk cell of a causal network: a body over time, and a head that runs where it is wanted.

The body is the original up to its recurrent nodes, which take the contract's lengths and states. The head is
the whole original once more, on one time step for each wanted position, with what the recurrent nodes gave
there. Whatever is no function of its own step and the recurrent nodes comes out wrong, and is found by the
comparison with the original.
"""

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

from service.contract import spec
from training.convert.candidate import Candidate
from training.convert.foreign import Refused
from training.convert.graph.copying import Copier, read_by
from training.convert.graph.describing import layers_of
from training.convert.original.hazards import refuse_own_lengths
from training.convert.original.original import Original
from training.convert.original.roles import is_source
from training.convert.rungs.masking import compaction, skipped_of
from training.convert.rungs.past import past_of
from training.convert.rungs.start import Start, find_start, init_graph
from training.convert.rungs.stateful import BODY, LENGTHS, WANTED, Stateful, recurrent

HEAD = "head/"


def chunk_cell(original: Original) -> Candidate:
    """Return the chunk cell of an original, not proven yet.

    Raises:
        Refused: a layer needs the whole sequence, or a first state depends on the sequence.
    """
    if not original.nodes:
        raise Refused("the recurrence is inside a loop, which cannot be cut into chunks")
    if original.drawing.skipped_value is None:
        refuse_own_lengths(original.model.graph, original.roles.data.name)
    copier = Copier()
    nodes = stateful_nodes(original, copier)
    start = find_start(original)
    graph = _graph(copier, original, nodes)
    return Candidate(
        kind="chunk",
        graph=graph,
        init=init_graph(original, start),
        layers=layers_of(original.nodes),
        outputs=original.outputs,
        states=_states(nodes, start),
    )


def stateful_nodes(original: Original, copier: Copier) -> list[Stateful]:
    """Return the nodes of an original that remember something."""
    skipped = skipped_of(original.drawing)
    mask = None if skipped is None else compaction(copier, skipped, BODY)
    nodes = [recurrent(node, index, mask) for index, node in enumerate(original.nodes)]
    return [*nodes, *past_of(original)]


def _states(nodes: Sequence[Stateful], start: Start) -> tuple[spec.State, ...]:
    return tuple(
        spec.State(
            input=name,
            output=name + spec.NEXT_SUFFIX,
            size=size,
            start=start.constants.get(name, 0.0),
        )
        for node in nodes
        for name, size in node.states
    )


def _graph(copier: Copier, original: Original, nodes: Sequence[Stateful]) -> onnx.ModelProto:
    for tensor in original.model.graph.initializer:
        copier.tensor(tensor)
    _add_body(copier, original, nodes)
    _add_head(copier, original, nodes)
    size = original.drawing.input.size
    is_tokens = original.drawing.input.kind == "tokens"
    states = [one for node in nodes for one in node.states]
    inputs = [
        helper.make_tensor_value_info(spec.INPUT, TensorProto.INT64, ["batch", "time"])
        if is_tokens
        else helper.make_tensor_value_info(spec.INPUT, TensorProto.FLOAT, ["batch", "time", size]),
        helper.make_tensor_value_info(LENGTHS, TensorProto.INT32, ["batch"]),
        *(_float(name, "batch", width) for name, width in states),
        helper.make_tensor_value_info(WANTED, TensorProto.INT64, ["wanted"]),
    ]
    outputs = [_float(spec.OUTPUT, "wanted", original.outputs)]
    outputs += [_float(name + spec.NEXT_SUFFIX, "batch", width) for name, width in states]
    made = copier.model(original.model, "chunk", inputs, outputs)
    _check_extras(original, made.graph)
    return made


def _check_extras(original: Original, graph: onnx.GraphProto) -> None:
    """Raise Refused if an input of first states is used at time steps, too."""
    read = {name for node in graph.node for name in read_by(node)}
    for one in original.roles.extras:
        if read & {BODY + one.name, HEAD + one.name}:
            what = "attention over a second sequence" if is_source(one) else "an input beside the sequence"
            raise Refused(
                f"input {one.name} is used at every time step, not for the first state alone: {what} is not "
                "served"
            )


def _add_body(copier: Copier, original: Original, nodes: Sequence[Stateful]) -> None:
    """Add the original at [batch, time]."""
    data = original_data(copier, original, spec.INPUT, BODY)
    if original.time_first:
        rank = 2 if original.drawing.input.kind == "tokens" else 3
        data = copier.node("Transpose", [data], f"{BODY}data", perm=[1, 0, 2][:rank])
    shape = copier.node("Shape", [spec.INPUT], "input.shape")
    batch = copier.node("Gather", [shape, copier.shape(0)], "input.batch")
    steps = copier.node("Gather", [shape, copier.shape(1)], "input.time")
    replaced = {original.roles.data.name: data}
    replaced |= _others(copier, original, BODY, batch, steps)
    emitters = {name: node for node in nodes for name in node.replaced}
    copier.copy(original.model.graph, BODY, replaced, emitters)


def _add_head(copier: Copier, original: Original, nodes: Sequence[Stateful]) -> None:
    """Add the original at [wanted, 1], fed with what the body computed there."""
    size = original.drawing.input.size
    is_tokens = original.drawing.input.kind == "tokens"
    rows = [-1] if is_tokens else [-1, size]
    flat = copier.node("Reshape", [spec.INPUT, copier.shape(*rows)], "input.flat")
    picked = copier.node("Gather", [flat, WANTED], "input.picked", axis=0)
    one_step = [1, -1] if original.time_first else [-1, 1]
    shaped = copier.node("Reshape", [picked, copier.shape(*one_step, *rows[1:])], f"{HEAD}shaped")
    replaced = {original.roles.data.name: original_data(copier, original, shaped, HEAD)}
    count = copier.node("Shape", [WANTED], "wanted.count")
    replaced |= _others(copier, original, HEAD, count, copier.shape(1))
    for node in nodes:
        replaced |= node.head(copier)
    named = copier.copy(original.model.graph, HEAD, replaced)
    # A time axis of one step and any order of batch and width are gone with it.
    copier.node("Reshape", [named(original.roles.output), copier.shape(-1, original.outputs)], spec.OUTPUT)


def original_data(copier: Copier, original: Original, data: str, prefix: str) -> str:
    """Return data of the contract's type as the original's type."""
    kind = helper.np_dtype_to_tensor_dtype(original.roles.data.dtype)
    expected = TensorProto.INT64 if original.drawing.input.kind == "tokens" else TensorProto.FLOAT
    return data if kind == expected else copier.node("Cast", [data], f"{prefix}cast", to=kind)


def _others(copier: Copier, original: Original, prefix: str, batch: str, steps: str) -> dict[str, str]:
    """Return full lengths and states of zeros, for what the original does with them beside the recurrence."""
    replaced = {}
    lengths = original.roles.lengths
    if lengths is not None:
        full = copier.node("Expand", [steps, batch], f"{prefix}steps")
        kind = helper.np_dtype_to_tensor_dtype(lengths.dtype)
        replaced[lengths.name] = copier.node("Cast", [full], f"{prefix}lengths", to=kind)
    for one in original.roles.states:
        replaced[one.name] = zero_state(copier, one.dims, batch, f"{prefix}{one.name}")
    return replaced


def zero_state(copier: Copier, dims: Sequence[int | None], batch: str, name: str) -> str:
    """Return zeros of a state's shape, whose last axis but one is the batch."""
    sizes = [
        batch if axis == len(dims) - 2 or size is None else copier.shape(size)
        for axis, size in enumerate(dims)
    ]
    shape = copier.node("Concat", sizes, f"{name}.shape", axis=0)
    return copier.node("ConstantOfShape", [shape], f"{name}.zeros")


def _float(name: str, *axes: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(axes))
