"""Makes a chunk cell of a step graph by Scan over the part that the states need, and runs the rest outside.

What depends on the data alone runs once for all time steps, as rows of one batch; what only the output needs
runs at the wanted time steps. Tensors that cross the edge of the loop have one axis of the batch, found by
running the graph on two sizes of batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.contract import spec
from training.convert.foreign import Array, Refused
from training.convert.graph.copying import Copier, needed, read_by
from training.convert.graph.session import Session
from training.convert.step.edge import as_data, finished, flattened, restored, sizes, weights
from training.convert.step.graphs import StepGraph, StepState
from training.convert.step.origins import origins
from training.convert.step.rows import rows_of_steps

_ROWS, _STEP, _WANTED, _HEAD = "rows/", "step/", "wanted/", "head/"
# Sizes of a batch that no width is likely to have.
_BATCHES = (5, 7)


@dataclass(frozen=True, slots=True)
class Crossing:
    """A tensor that is computed on one side of the loop and read on the other.

    Attributes:
        name: its name in the step graph.
        dims: sizes of its axes; that of the batch is -1.
        kind: its element type, of TensorProto.
    """

    name: str
    dims: tuple[int, ...]
    kind: int

    @property
    def axis(self) -> int:
        """Axis of the batch."""
        return self.dims.index(-1)

    @property
    def order(self) -> tuple[int, ...]:
        """The axes with the batch first."""
        return (self.axis, *(axis for axis in range(len(self.dims)) if axis != self.axis))

    @property
    def back(self) -> tuple[int, ...]:
        """Permutation that undoes `order`."""
        return tuple(int(axis) for axis in np.argsort(self.order))

    @property
    def rest(self) -> tuple[int, ...]:
        """Sizes of the axes without the batch."""
        return tuple(size for size in self.dims if size >= 0)


@dataclass(frozen=True, slots=True)
class Parts:
    """Tensors that cross the edge of the loop.

    Attributes:
        entering: what depends on the data alone and is read inside the loop.
        leaving: what is computed inside the loop, or a state before its time step, and the output needs.
        beside: what depends on the data alone and the output needs.
    """

    entering: tuple[Crossing, ...]
    leaving: tuple[Crossing, ...]
    beside: tuple[Crossing, ...]


def parted(step: StepGraph) -> onnx.ModelProto:
    """Return the chunk cell of a step graph, with Scan over what its states need.

    Raises:
        Refused: all of the graph is inside the loop, or a tensor that crosses its edge has no batch.
    """
    parts = find_parts(step)
    copier = Copier()
    weights(copier, step)
    batch, steps = sizes(copier)
    rows = rows_of_steps(copier, step, batch, steps)
    copier.copy(step.graph.graph, _ROWS, {step.data: as_data(copier, step, rows, _ROWS + step.data)})
    entering = [_entering(copier, one, batch, steps) for one in parts.entering]
    copier.node("Cast", [spec.LENGTHS], "lengths.loop", to=TensorProto.INT64)
    last = copier.node("Reshape", [steps, copier.shape()], "time.scalar")
    places = copier.node("Range", [copier.scalar(0), last, copier.scalar(1)], "steps.place")
    states = [one.name for one in step.states]
    outputs = [f"{name}{spec.NEXT_SUFFIX}" for name in states] + [f"loop/{one.name}" for one in parts.leaving]
    copier.nodes.append(
        helper.make_node(
            "Scan",
            [*states, *entering, places],
            outputs,
            name="Scan/steps",
            body=_body(copier, step, parts),
            num_scan_inputs=len(entering) + 1,
        )
    )
    replaced = {one.name: _leaving(copier, one) for one in parts.leaving}
    for one in parts.beside:
        replaced[one.name] = copier.node(
            "Gather", [_ROWS + one.name, spec.WANTED], _WANTED + one.name, axis=one.axis
        )
    named = copier.copy(step.graph.graph, _HEAD, replaced)
    copier.node("Reshape", [named(step.output), copier.shape(-1, step.width)], spec.OUTPUT)
    return finished(copier, step, "parted")


def find_parts(step: StepGraph) -> Parts:
    """Find what is inside the loop, and what crosses its edge.

    Raises:
        Refused: all of the graph is inside the loop, or a tensor that crosses its edge has no batch.
    """
    graph = step.graph.graph
    states = {one.input for one in step.states}
    found = origins(graph, {step.data} | states)
    before = frozenset([step.data])
    inside = [
        node
        for node in needed(graph.node, [one.output for one in step.states])
        if _of(found, node.output) - before
    ]
    made = {name for node in inside for name in node.output if name}
    behind = [
        node
        for node in needed(graph.node, [step.output])
        if _of(found, node.output) - before and not made & set(node.output)
    ]
    entering = sorted(name for name in _read(inside) if found.get(name) == before)
    needs = _read(behind) | {step.output}
    leaving = sorted(needs & (made | states))
    beside = sorted(name for name in needs if found.get(name) == before)
    if entering in ([], [step.data]) and not (behind or beside):
        raise Refused("expected a part of the graph that its states do not need, found none")
    names = dict.fromkeys([*entering, *leaving, *beside])
    crossings = _crossings(step, list(names))
    return Parts(*(tuple(crossings[name] for name in part) for part in (entering, leaving, beside)))


def _of(found: Mapping[str, frozenset[str]], names: Iterable[str]) -> frozenset[str]:
    return frozenset[str]().union(*(found.get(name, frozenset()) for name in names))


def _read(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    return {name for node in nodes for name in read_by(node)}


def _crossings(step: StepGraph, names: Sequence[str]) -> dict[str, Crossing]:
    """Run the step graph on two sizes of batch, and find the batch's axis of tensors."""
    model = onnx.ModelProto()
    model.CopyFrom(step.graph)
    inputs = {one.name for one in model.graph.input}
    known = {one.name for one in model.graph.output}
    inner = [name for name in names if name not in inputs]
    model.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in inner if name not in known
    )
    session = Session(model, step.folder)
    values = []
    for batch in _BATCHES:
        feeds: dict[str, Array] = {
            step.data: np.zeros([batch if size < 0 else size for size in step.dims], step.dtype)
        }
        feeds |= {one.input: np.repeat(one.start, batch, one.batch) for one in step.states}
        computed = session.run(feeds, inner) if inner else []
        values.append(feeds | dict(zip(inner, computed, strict=True)))
    return {name: _crossing(name, values[0][name], values[1][name]) for name in names}


def _crossing(name: str, one: Array, other: Array) -> Crossing:
    axes = [axis for axis in range(min(one.ndim, other.ndim)) if one.shape[axis] != other.shape[axis]]
    if len(axes) != 1 or one.ndim != other.ndim or (one.shape[axes[0]], other.shape[axes[0]]) != _BATCHES:
        raise Refused(
            f"tensor {name}: expected one axis of the batch, found shape {list(one.shape)} "
            f"for {_BATCHES[0]} rows"
        )
    dims = tuple(-1 if axis == axes[0] else size for axis, size in enumerate(one.shape))
    return Crossing(name, dims, helper.np_dtype_to_tensor_dtype(one.dtype))


def _entering(copier: Copier, crossing: Crossing, batch: str, steps: str) -> str:
    """Return a tensor of all rows, the batch's axis B*T, as (T, B, ...)."""
    name = f"loop/{crossing.name}"
    first = copier.node("Transpose", [_ROWS + crossing.name], f"{name}.rows", perm=crossing.order)
    shape = copier.node("Concat", [batch, steps, copier.shape(*crossing.rest)], f"{name}.shape", axis=0)
    parted_rows = copier.node("Reshape", [first, shape], f"{name}.parted")
    rest = range(2, 2 + len(crossing.rest))
    return copier.node("Transpose", [parted_rows], f"{name}.steps", perm=[1, 0, *rest])


def _leaving(copier: Copier, crossing: Crossing) -> str:
    """Return a tensor of the loop, (T, B, ...), at the wanted rows and with its axes as in the step graph."""
    name = f"loop/{crossing.name}"
    rest = range(2, 2 + len(crossing.rest))
    by_row = copier.node("Transpose", [name], f"{name}.by_row", perm=[1, 0, *rest])
    rows = copier.node("Reshape", [by_row, copier.shape(-1, *crossing.rest)], f"{name}.flat")
    wanted = copier.node("Gather", [rows, spec.WANTED], f"{name}.wanted", axis=0)
    return copier.node("Transpose", [wanted], _WANTED + crossing.name, perm=crossing.back)


def _body(copier: Copier, step: StepGraph, parts: Parts) -> onnx.GraphProto:
    """Return the body of Scan: the states' rows, what enters as (B, ...), and the place of the time step."""
    outer, copier.nodes = copier.nodes, []
    replaced = {one.input: restored(copier, one, _row(one), "loop.") for one in step.states}
    for one in parts.entering:
        replaced[one.name] = copier.node(
            "Transpose", [f"in/{one.name}"], f"in/{one.name}.restored", perm=one.back
        )
    named = copier.copy(step.graph.graph, _STEP, replaced)
    goes_on = copier.node("Less", ["step.place", "lengths.loop"], "step.goes_on")
    column = copier.node("Reshape", [goes_on, copier.shape(-1, 1)], "step.column")
    for state in step.states:
        made = flattened(copier, state, named(state.output), f"{_row(state)}.made")
        copier.node("Where", [column, made, _row(state)], f"{_row(state)}.next")
    for one in parts.leaving:
        copier.node("Transpose", [named(one.name)], f"out/{one.name}", perm=one.order)
    inputs = [
        helper.make_tensor_value_info(_row(one), TensorProto.FLOAT, ["batch", one.width])
        for one in step.states
    ]
    inputs += [
        helper.make_tensor_value_info(f"in/{one.name}", one.kind, ["batch", *one.rest])
        for one in parts.entering
    ]
    inputs.append(helper.make_tensor_value_info("step.place", TensorProto.INT64, []))
    outputs = [
        helper.make_tensor_value_info(f"{_row(one)}.next", TensorProto.FLOAT, ["batch", one.width])
        for one in step.states
    ]
    outputs += [
        helper.make_tensor_value_info(f"out/{one.name}", one.kind, ["batch", *one.rest])
        for one in parts.leaving
    ]
    nodes, copier.nodes = needed(copier.nodes, [one.name for one in outputs]), outer
    return helper.make_graph(nodes, "step", inputs, outputs)


def _row(state: StepState) -> str:
    return f"row/{state.name}"
