"""Makes a whole network of an original: `lengths` goes to each recurrent node, and axes are put in order."""

from collections.abc import Callable
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from service.contract import spec
from training.convert.candidate import Candidate
from training.convert.foreign import Refused
from training.convert.graph.copying import Copier, attributes_of
from training.convert.graph.describing import layers_of, looped_layer
from training.convert.original.hazards import refuse_own_lengths
from training.convert.original.original import Original
from training.convert.rungs.cell import original_data, zero_state
from training.convert.rungs.masking import Compaction, Skipped, compaction, skipped_of

PREFIX = "whole/"
_SEQUENCE_LENS = 4


def whole_network(original: Original, padding: spec.Padding) -> Candidate:
    """Return an original as a whole network, not proven yet.

    Args:
        original: the network.
        padding: "lengths" has rows of different lengths in a batch, "none" equal lengths alone.

    Raises:
        Refused: a first state is computed from other inputs, which whole networks do not have.
    """
    if original.roles.extras:
        names = ", ".join(one.name for one in original.roles.extras)
        raise Refused(f"inputs beside the sequence ({names}) are taken by causal networks alone")
    if padding == "lengths" and not original.all_nodes:
        raise Refused("the recurrence is inside a loop, which takes no lengths")
    if padding == "lengths" and original.drawing.skipped_value is None:
        refuse_own_lengths(original.model.graph, original.roles.data.name)
    return Candidate(
        kind="whole",
        graph=_graph(original, padding),
        layers=layers_of(original.all_nodes) or (looped_layer(original.model.graph),),
        outputs=original.outputs,
        padding=padding,
        pooled=not original.every_step,
    )


@dataclass(frozen=True, slots=True)
class _WithLengths:
    """A recurrent node that takes the contract's lengths, and leaves out the steps that are skipped."""

    node: onnx.NodeProto
    compaction: Compaction | None

    def emit(self, copier: Copier, named: Callable[[str], str]) -> None:
        """Add the node with `lengths`."""
        inputs = [named(name) for name in self.node.input]
        inputs += [""] * (_SEQUENCE_LENS + 1 - len(inputs))
        # A pack has lengths of its own, in the order in which it sorts the rows.
        inputs[_SEQUENCE_LENS] = inputs[_SEQUENCE_LENS] or spec.LENGTHS
        inside = PREFIX
        if self.compaction is not None:
            inside = f"{PREFIX}compacted/"
            inputs[0] = self.compaction.compacted(copier, inputs[0], inside + self._name)
            inputs[_SEQUENCE_LENS] = self.compaction.count
        made = onnx.NodeProto()
        made.CopyFrom(self.node)
        made.name = PREFIX + self._name
        del made.input[:], made.output[:]
        made.input.extend(inputs)
        made.output.extend(inside + name if name else "" for name in self.node.output)
        copier.nodes.append(made)
        if self.compaction is not None:
            self._add_spread(copier, self.compaction)

    @property
    def _name(self) -> str:
        """Name of the first output that the node has."""
        return next(name for name in self.node.output if name)

    def _add_spread(self, copier: Copier, mask: Compaction) -> None:
        """Add the outputs of all steps; those of skipped ones are zeros where there is no other step."""
        inside = f"{PREFIX}compacted/"
        attributes = attributes_of(self.node)
        shape = (1, None, attributes["hidden_size"])
        zeros = zero_state(copier, shape, "input.batch", f"{inside}{self._name}.first")
        for name in self.node.output[1:]:
            if name:
                copier.node("Where", [mask.is_empty, zeros, inside + name], PREFIX + name)
        if self.node.output[0]:
            direction = attributes.get("direction", b"forward")
            self._add_outputs(copier, mask, inside + self.node.output[0], direction, zeros)

    def _add_outputs(
        self, copier: Copier, mask: Compaction, inside: str, direction: bytes, zeros: str
    ) -> None:
        """Add Y of all steps from Y of the compacted ones."""
        sides = [inside]
        if direction == b"bidirectional":
            sides = [f"{inside}.forward", f"{inside}.backward"]
            for side, name in enumerate(sides):
                copier.node("Gather", [inside, copier.shape(side)], name, axis=1)
        spread = [
            mask.spread_back(copier, name, zeros, f"{name}.spread")
            if direction != b"forward" and name == sides[-1]
            else mask.spread(copier, name, zeros, f"{name}.spread")
            for name in sides
        ]
        copier.node("Concat", spread, PREFIX + self.node.output[0], axis=1)


def _graph(original: Original, padding: spec.Padding) -> onnx.ModelProto:
    copier = Copier()
    for tensor in original.model.graph.initializer:
        copier.tensor(tensor)
    skipped = skipped_of(original.drawing)
    has_lengths = padding == "lengths"
    mask = None if skipped is None else compaction(copier, skipped, PREFIX, has_lengths=has_lengths)
    nodes = original.all_nodes if has_lengths or mask is not None else []
    emitters = {name: _WithLengths(node, mask) for node in nodes for name in node.output if name}
    replaced = _replaced(copier, original, padding, _filled(copier, mask, skipped))
    named = copier.copy(original.model.graph, PREFIX, replaced, emitters)
    output, axes = named(original.roles.output), original.output
    if axes.order != tuple(range(axes.rank)):
        output = copier.node("Transpose", [output], f"{PREFIX}ordered", perm=axes.order)
    kept = (0,) if axes.time is None else (0, 0)
    copier.node("Reshape", [output, copier.shape(*kept, original.outputs)], spec.OUTPUT)
    return copier.model(original.model, "whole", _inputs(original, padding), [_output(original)])


def _filled(copier: Copier, mask: Compaction | None, skipped: Skipped | None) -> str:
    """Return the input; behind the lengths of a network that skips a value it has that value."""
    if mask is None or skipped is None or not mask.is_inside:
        return spec.INPUT
    is_inside = mask.is_inside
    if skipped.is_row:
        is_inside = copier.node("Unsqueeze", [is_inside, copier.shape(2)], f"{PREFIX}is_inside.rows")
    return copier.node("Where", [is_inside, spec.INPUT, skipped.constant(copier)], f"{PREFIX}filled")


def _replaced(copier: Copier, original: Original, padding: spec.Padding, given: str) -> dict[str, str]:
    """Add what the original gets for its inputs, `given` as the sequence, and return its names."""
    roles = original.roles
    data = original_data(copier, original, given, PREFIX)
    if original.time_first:
        rank = 2 if original.drawing.input.kind == "tokens" else 3
        data = copier.node("Transpose", [data], f"{PREFIX}data", perm=[1, 0, 2][:rank])
    replaced = {roles.data.name: data}
    shape = copier.node("Shape", [spec.INPUT], "input.shape")
    batch = copier.node("Gather", [shape, copier.shape(0)], "input.batch")
    if roles.lengths is not None:
        lengths = spec.LENGTHS
        if padding == "none":
            steps = copier.node("Gather", [shape, copier.shape(1)], "input.time")
            lengths = copier.node("Expand", [steps, batch], f"{PREFIX}steps")
        kind = helper.np_dtype_to_tensor_dtype(roles.lengths.dtype)
        replaced[roles.lengths.name] = copier.node("Cast", [lengths], f"{PREFIX}lengths", to=kind)
    for one in roles.states:
        replaced[one.name] = zero_state(copier, one.dims, batch, f"{PREFIX}{one.name}")
    return replaced


def _inputs(original: Original, padding: spec.Padding) -> list[onnx.ValueInfoProto]:
    axes: list[str | int] = ["batch", "time"]
    kind = TensorProto.INT64
    if original.drawing.input.kind == "features":
        kind = TensorProto.FLOAT
        axes.append(original.drawing.input.size)
    inputs = [helper.make_tensor_value_info(spec.INPUT, kind, axes)]
    if padding == "lengths":
        inputs.append(helper.make_tensor_value_info(spec.LENGTHS, TensorProto.INT32, ["batch"]))
    return inputs


def _output(original: Original) -> onnx.ValueInfoProto:
    axes = ["batch", "time"] if original.every_step else ["batch"]
    return helper.make_tensor_value_info(spec.OUTPUT, TensorProto.FLOAT, [*axes, original.outputs])
