"""Makes a chunk cell of a step graph whose recurrent nodes read the data alone.

Everything but the recurrent nodes runs once for all time steps, as so many rows of a batch; the recurrent
nodes run over time; what computes the output runs at the wanted time steps. Tensors of the recurrent nodes
are time first: X (T, B, C), Y (T, 1, B, H), Y_h and Y_c (1, B, H).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import onnx

from service.contract import spec
from training.convert.foreign import Refused
from training.convert.graph.copying import Copier, attributes_of
from training.convert.original.roles import RECURRENT, recurrent_nodes
from training.convert.step.edge import as_data, finished, flattened, restored, sizes, weights
from training.convert.step.graphs import StepGraph
from training.convert.step.origins import origins
from training.convert.step.rows import rows_of_steps

_ROWS, _START, _LAST, _HEAD = "rows/", "start/", "last/", "head/"


def flat(step: StepGraph) -> onnx.ModelProto:
    """Return the chunk cell of a step graph, its recurrent nodes run over time.

    Raises:
        Refused: the graph has no recurrent nodes, or they are not fed from the data alone, or states or
            outputs need more than what they give.
    """
    nodes = recurrent_nodes(step.graph.graph)
    _check(step, nodes)
    copier = Copier()
    weights(copier, step)
    batch, steps = sizes(copier)
    rows = rows_of_steps(copier, step, batch, steps)
    states = {one.input: restored(copier, one, one.name, "start.") for one in step.states}
    started = copier.copy(step.graph.graph, _START, states)
    emitters = {
        name: _OverTime(node, started, batch, steps) for node in nodes for name in node.output if name
    }
    copier.copy(step.graph.graph, _ROWS, {step.data: as_data(copier, step, rows, "rows.data")}, emitters)
    last = {name: _LAST + name for node in nodes for name in node.output if name}
    ended = copier.copy(step.graph.graph, _LAST, last)
    for state in step.states:
        flattened(copier, state, ended(state.output), state.name + spec.NEXT_SUFFIX)
    _head(copier, step, nodes, rows)
    return finished(copier, step, "flat")


@dataclass(frozen=True, slots=True)
class _OverTime:
    """Runs a recurrent node over the time steps of a chunk instead of over one.

    It makes `rows/NAME` of all time steps as rows of a batch, and `last/NAME` of each row's last time step,
    for each of the node's outputs, in the shapes that they have for one time step.
    """

    node: onnx.NodeProto
    started: Callable[[str], str]
    batch: str
    steps: str

    def emit(self, copier: Copier, named: Callable[[str], str]) -> None:
        """Add the node and what brings its input and outputs into shape."""
        first = next(name for name in self.node.output if name)
        apart = copier.node("Concat", [self.batch, self.steps, copier.shape(-1)], f"{first}.apart", axis=0)
        parted = copier.node("Reshape", [named(self.node.input[0]), apart], f"{first}.parted")
        made = onnx.NodeProto()
        made.CopyFrom(self.node)
        made.name = f"over/{first}"
        inputs = [*self.node.input, *[""] * 3][: max(len(self.node.input), 5)]
        inputs[0] = copier.node("Transpose", [parted], f"{first}.time_first", perm=[1, 0, 2])
        inputs[1:4] = [named(name) for name in inputs[1:4]]
        inputs[4] = spec.LENGTHS
        inputs[5:7] = [self.started(name) for name in inputs[5:7]]
        kinds = 3 if self.node.op_type == "LSTM" else 2
        outputs = [*self.node.output, *[""] * kinds][:kinds]
        over = f"over/{first}.y"
        ends = [_LAST + (name or f"{first}.end{index}") for index, name in enumerate(outputs)]
        del made.input[:], made.output[:]
        made.input.extend(inputs)
        made.output.extend([over, *ends[1:]])
        copier.nodes.append(made)
        self._shaped(copier, outputs, over, ends)

    def _shaped(self, copier: Copier, outputs: list[str], over: str, ends: list[str]) -> None:
        hidden = int(attributes_of(self.node)["hidden_size"])
        copier.node("Reshape", [ends[1], copier.shape(1, 1, -1, hidden)], ends[0])
        by_row = copier.node("Transpose", [over], f"{over}.by_row", perm=[2, 0, 1, 3])  # (B, T, 1, H)
        for name, shape in ((outputs[0], (1, 1, -1, hidden)), (outputs[1], (1, -1, hidden))):
            if name:
                copier.node("Reshape", [by_row, copier.shape(*shape)], _ROWS + name)


def _head(copier: Copier, step: StepGraph, nodes: Iterable[onnx.NodeProto], rows: str) -> None:
    """Compute the output at the wanted rows."""
    picked = copier.node("Gather", [rows, spec.WANTED], "wanted.input", axis=0)
    replaced = {step.data: as_data(copier, step, picked, "wanted.data")}
    for node in nodes:
        for name, axis in zip(node.output[:2], (2, 1), strict=False):
            if name:
                replaced[name] = copier.node("Gather", [_ROWS + name, spec.WANTED], _HEAD + name, axis=axis)
    # Cells' states are known at the end alone; `_check` has seen that the output needs none.
    replaced |= {name: _LAST + name for node in nodes for name in node.output[2:] if name}
    named = copier.copy(step.graph.graph, _HEAD, replaced)
    copier.node("Reshape", [named(step.output), copier.shape(-1, step.width)], spec.OUTPUT)


def _check(step: StepGraph, nodes: list[onnx.NodeProto]) -> None:
    """Refuse a graph that cannot be run this way.

    Raises:
        Refused: what was expected of it, and what was found.
    """
    if not nodes:
        raise Refused(f"expected a recurrent node ({', '.join(RECURRENT)}), found none")
    states = {one.input for one in step.states}
    over = {name for node in nodes for name in node.output[:2] if name}
    cells = {name for node in nodes for name in node.output[2:] if name}
    found = origins(step.graph.graph, {step.data} | states | over | cells)
    for node in nodes:
        attributes = attributes_of(node)
        if attributes.get("direction", b"forward") != b"forward" or attributes.get("layout", 0):
            raise Refused(f"recurrent node {node.name}: expected one direction and layout 0")
        _expect(found, node.input[:1], {step.data} | over, "the input of a recurrent node")
        _expect(found, node.input[1:5], set(), "a recurrent node's weights and lengths")
        _expect(found, node.input[5:7], states, "the first state of a recurrent node")
    _expect(found, [one.output for one in step.states], over | cells, "a state")
    _expect(found, [step.output], {step.data} | over, "the output")


def _expect(found: Mapping[str, frozenset[str]], names: Iterable[str], allowed: set[str], what: str) -> None:
    for name in names:
        if others := found.get(name, frozenset()) - allowed:
            raise Refused(f"{what} ({name}) needs {', '.join(sorted(others))}")
