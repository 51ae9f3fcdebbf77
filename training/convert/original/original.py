"""A foreign graph with what its inputs and axes are: runs it, and answers as the original does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from service.contract import spec
from training.convert.cases import Case, Drawing
from training.convert.foreign import Array, Foreign, Oracle, Refused
from training.convert.graph.copying import attributes_of
from training.convert.graph.session import Session
from training.convert.options import Choices
from training.convert.original.hazards import marks_of, refuse_other_types, refuse_random, turns_of
from training.convert.original.layout import Sizes, output_axes
from training.convert.original.reading import Prepared, prepare
from training.convert.original.repairs import written_steps
from training.convert.original.roles import (
    Edge,
    Roles,
    ancestors,
    edges,
    find_roles,
    is_source,
    recurrent_nodes,
    served_nodes,
)

# Of the contract.
_MAX_TOKENS, _MAX_FEATURES = 1 << 20, 1 << 16


class Original:
    """A foreign graph that takes whole sequences.

    Args:
        foreign: the network; the large weights of its graph are moved into a file.
        choices: what the user said about it.
        folder: a folder for that file alone.
        only_steps: number of time steps, for a graph that takes no other.

    Attributes:
        model: the graph, repaired where its exporter froze an axis.
        folder: folder of its weights.
        repaired: sentences on what was repaired.
        roles: what its inputs and outputs are.
        drawing: what it takes.
        time_first: the data are [time, batch, ...].
        output: axes of its output.
        outputs: width of a row of outputs.
        every_step: it gives a row of outputs a time step.
        lengths: numbers of time steps that the original takes; None: any.
        is_fixed: the graph takes these alone, too.
        turns: numbers of time steps at which the graph may begin to do something else.
        example_steps: time steps of every golden example; None: any.
        nodes: its recurrent nodes, without those that compute first states.
        all_nodes: all its recurrent nodes.

    Raises:
        Refused: an input, axis or size that a conversion needs is not found.
    """

    def __init__(
        self, foreign: Foreign, choices: Choices, folder: Path, only_steps: int | None = None
    ) -> None:
        self.is_fixed, self._sizes = only_steps is not None, Sizes.of(only_steps)
        prepared = prepare(foreign, choices, folder)
        self.model, self.folder, self.repaired = prepared.model, folder, prepared.repaired
        self.weights = prepared.weights
        refuse_random(self.model.graph)
        refuse_other_types(self.model.graph)
        self.roles = find_roles(self.model.graph, choices)
        self.nodes = served_nodes(self.model.graph)
        self.all_nodes = recurrent_nodes(self.model.graph)
        self.drawing = _drawing(self.model.graph, self.roles, foreign)
        self.turns = turns_of(self.model.graph, self.weights.total_bytes)
        self._session = Session(self.model, folder)
        self._oracle = foreign.oracle or self._alone(prepared)
        self.time_first = self._find_time(choices)
        self._taken = _taken(prepared.exact, self.roles.data, self.time_first, foreign.oracle)
        self.output = output_axes(lambda batch, steps: self._raw(self._batch(batch, steps)), self._sizes)
        self.every_step = self.output.time is not None
        steps = only_steps or self._taken.steps
        self.lengths: tuple[int, ...] | None = (steps,) if steps else None
        self.outputs = int(self.run(self._batch(1, self._sizes.steps[0])).shape[-1])
        self.example_steps = choices.window

    def run(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """Run sequences of one length as a batch: float32 (B, T, outputs) or (B, outputs)."""
        return self.output.rows(self._raw(cases))

    def answer(self, case: Case) -> NDArray[np.float32]:
        """Return what the original computes for a sequence alone, float32 (T, outputs) or (1, outputs)."""
        names = [one.name for one in self.model.graph.output]
        if self._taken.steps in (None, len(case.inputs)):
            found = self._oracle(self.feeds([case] * self._taken.batch))
        else:
            found = self._session.run(self.feeds([case]), names)
        rows = self.output.rows(np.asarray(found[names.index(self.roles.output)]))
        return rows[0] if self.every_step else rows

    def feeds(self, cases: Sequence[Case]) -> dict[str, Array]:
        """Return the graph's inputs for sequences of one length as a batch."""
        roles, count, steps = self.roles, len(cases), len(cases[0].inputs)
        data = np.stack([case.inputs for case in cases]).astype(roles.data.dtype)
        found = {roles.data.name: _in_order(data, self.time_first)}
        if roles.lengths is not None:
            found[roles.lengths.name] = np.full(count, steps, roles.lengths.dtype)
        if roles.source_lengths is not None:
            sources = [case.source for case in cases if case.source is not None]
            found[roles.source_lengths.name] = np.array(list(map(len, sources)), roles.source_lengths.dtype)
        for one in roles.states:
            sizes = [
                count if size is None or axis == _batch_axis(one) else size
                for axis, size in enumerate(one.dims)
            ]
            found[one.name] = np.zeros(sizes, one.dtype)
        for one in roles.extras:
            rows = [case.source if is_source(one) else case.initial[one.name] for case in cases]
            stacked = np.stack([row for row in rows if row is not None]).astype(one.dtype)
            found[one.name] = _in_order(stacked, self.time_first and is_source(one))
        return found

    def probe(self, names: Sequence[str], cases: Sequence[Case]) -> list[Array]:
        """Return tensors inside the graph for sequences of one length as a batch."""
        return self._with_outputs(names).run(self.feeds(cases), names)

    def _with_outputs(self, names: Sequence[str]) -> Session:
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        known = {one.name for one in model.graph.output}
        model.graph.output.extend(
            helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(names) if name not in known
        )
        return Session(model, self.folder)

    def _raw(self, cases: Sequence[Case]) -> Array:
        return self._session.run(self.feeds(cases), [self.roles.output])[0]

    def _batch(self, count: int, steps: int) -> list[Case]:
        rng = np.random.default_rng(0)
        cases = [self.drawing.case(rng, steps) for _ in range(count)]
        return [replace(case, source=cases[0].source) for case in cases]  # of one length

    def _find_time(self, choices: Choices) -> bool:
        """Return True if the data are time first: X of a recurrent node is, whatever the data are."""
        if choices.time_first is not None:
            return choices.time_first
        if not self.nodes:
            return self._mixes_rows()
        name = self.nodes[0].input[0]
        reasons: list[str] = []
        probing = self._with_outputs([name])
        for self.time_first in (False, True):
            try:
                few, many, narrow = [
                    probing.run(self.feeds(self._batch(batch, steps)), [name])[0].shape
                    for batch, steps in self._sizes.probes
                ]
            except Refused as error:
                reasons.append(error.reason)
                continue
            (rows, steps), _, (fewer, _) = self._sizes.probes
            grows = few[0] < many[0] or self.is_fixed
            # A convolution before it may leave fewer steps, but more of a longer sequence.
            if (few[1], many[1], narrow[1]) == (rows, rows, fewer) and few[0] == narrow[0] and grows:
                return self.time_first
            reasons.append(f"X of {self.nodes[0].op_type} has shape {few} for {rows} rows of {steps} steps")
        raise Refused(
            "expected one axis of the input to be time and one the batch: the first recurrent node follows "
            f"neither order ({'; '.join(dict.fromkeys(reasons))})",
            "export it with dynamic axes for batch and time",
        )

    def _alone(self, prepared: Prepared) -> Oracle:
        """Return what runs the graph as its file has it."""
        is_same = prepared.exact is prepared.model
        session = self._session if is_same else Session(prepared.exact, self.folder)
        names = [one.name for one in prepared.exact.graph.output]

        def run(feeds: Mapping[str, Array]) -> list[Array]:
            return session.run(feeds, names)

        return run

    def _mixes_rows(self) -> bool:
        """Return True if rows along the first axis of the data are steps of one sequence."""
        self.time_first = False
        try:
            cases = self._batch(*self._sizes.probes[0])
            together = self._raw(cases)
            alone = [self._raw([case]) for case in cases]
            return not np.allclose(together, np.concatenate(alone, 0), atol=1e-4)
        except (Refused, ValueError):
            return True


def declared_steps(foreign: Foreign, choices: Choices) -> int | None:
    """Return the number of time steps that a graph declares for its data, batch first; None: any."""
    data = find_roles(foreign.graph.graph, choices).data
    return data.dims[1] if len(data.dims) > 1 else None


def _in_order(rows: Array, time_first: bool) -> Array:
    return np.ascontiguousarray(np.moveaxis(rows, 0, 1) if time_first else rows)


def _batch_axis(edge: Edge) -> int:
    """Return the batch axis of a state: the last but one, [layers, batch, width] or [batch, width]."""
    return len(edge.dims) - 2


@dataclass(frozen=True, slots=True)
class _Taken:
    """What the original takes.

    Attributes:
        batch: number of sequences.
        steps: number of time steps; None: any.
    """

    batch: int
    steps: int | None


def _taken(model: onnx.ModelProto, data: Edge, time_first: bool, oracle: Oracle | None) -> _Taken:
    """Return the sizes that the graph of a file declares, or has written down inside."""
    if oracle is not None:
        return _Taken(1, None)
    edge = next(one for one in edges(model.graph) if one.name == data.name)
    batch, steps = (edge.dims[1], edge.dims[0]) if time_first else (edge.dims[0], edge.dims[1])
    return _Taken(batch or 1, steps or written_steps(model))


def _drawing(graph: onnx.GraphProto, roles: Roles, foreign: Foreign) -> Drawing:
    initial = tuple(
        spec.NamedWidth(name=one.name, size=_width(one)) for one in roles.extras if not is_source(one)
    )
    sources = [one for one in roles.extras if is_source(one)]
    if len(sources) > 1:
        raise Refused(f"expected one source sequence, found {', '.join(one.name for one in sources)}")
    source = _input(graph, sources[0], sources[0].dtype.kind == "i", None) if sources else None
    data = _input(graph, roles.data, roles.is_tokens, foreign.vocabulary)
    return Drawing(data, initial, source, foreign.skipped_value, foreign.needs_a_step, marks_of(graph))


def _width(edge: Edge) -> int:
    if len(edge.dims) != 2 or not edge.dims[1]:
        raise Refused(
            f"input {edge.name}: expected [batch, width] with a fixed width, found {list(edge.dims)}"
        )
    return edge.dims[1]


def _input(
    graph: onnx.GraphProto, data: Edge, is_tokens: bool, vocabulary: int | None
) -> spec.TokenInput | spec.FeatureInput:
    if is_tokens:
        if len(data.dims) != 2:
            raise Refused(f"input {data.name}: expected ids of [batch, time], found {len(data.dims)} axes")
        return spec.TokenInput(
            kind="tokens", size=_checked(vocabulary or _vocabulary(graph, data), data, _MAX_TOKENS)
        )
    if len(data.dims) != 3:
        raise Refused(
            f"input {data.name}: expected features of [batch, time, features], found {len(data.dims)} axes",
            "a network of one time step a call needs its states: --state INPUT:OUTPUT",
        )
    return spec.FeatureInput(
        kind="features", size=_checked(data.dims[2] or _features(graph, data), data, _MAX_FEATURES)
    )


def _checked(size: int, data: Edge, most: int) -> int:
    """Return the size of an input that the contract takes."""
    if not 1 <= size <= most:
        raise Refused(f"input {data.name}: expected a size of 1 to {most}, found {size}")
    return size


def _vocabulary(graph: onnx.GraphProto, data: Edge) -> int:
    """Return the rows of the smallest table that the ids are looked up in."""
    tables = {one.name: int(one.dims[0]) for one in graph.initializer if len(one.dims) == 2}
    found = [
        tables[node.input[0]]
        for node in graph.node
        if node.op_type == "Gather"
        and node.input[0] in tables
        and attributes_of(node).get("axis", 0) == 0
        and data.name in ancestors(graph, [node.input[1]])
    ]
    if not found:
        raise Refused(f"input {data.name}: expected a table of embeddings for the ids, found none")
    return min(found)


def _features(graph: onnx.GraphProto, data: Edge) -> int:
    """Return the width of the input of the first recurrent node, where it is the data themselves."""
    dims = {one.name: one.dims for one in graph.initializer}
    for node in recurrent_nodes(graph):
        if data.name in ancestors(graph, [node.input[0]], frozenset(["Transpose", "Identity"])):
            return int(dims[node.input[1]][2])
    raise Refused(f"input {data.name}: expected a fixed number of features, found a dynamic axis")
