"""Recurrent nodes of a chunk cell: they take lengths and states in its body, and are replaced in its head."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import onnx

from service.contract import spec
from training.convert.foreign import Refused
from training.convert.graph.copying import Copier, Emitter, attributes_of
from training.convert.rungs.masking import Compaction

STATES = {"LSTM": ("h", "c"), "GRU": ("h",), "RNN": ("h",)}
BODY = "body/"
# Names of tensors that the cell's body begins with.
LENGTHS = "lengths"
WANTED = "wanted"

_INITIAL = 5  # place of the first state among a recurrent node's inputs
_SEQUENCE_LENS = 4


class Stateful(Emitter, Protocol):
    """Nodes of an original that remember something from step to step.

    Attributes:
        replaced: tensors of the original that the body gives to the head, gathered at `wanted`.
        states: names and widths of what they remember.
    """

    @property
    def replaced(self) -> tuple[str, ...]:
        """Tensors of the original that the body gives to the head."""
        ...

    @property
    def states(self) -> tuple[tuple[str, int], ...]:
        """Names and widths of the states."""
        ...

    def head(self, copier: Copier) -> dict[str, str]:
        """Gather what the body computed at `wanted`; return its names by those in the original."""
        ...


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A forward LSTM, GRU or RNN node of an original.

    Attributes:
        node: the node.
        index: its place among the layers.
        compaction: which steps are skipped; None: none.
    """

    node: onnx.NodeProto
    index: int
    compaction: Compaction | None = None

    @property
    def width(self) -> int:
        """Width of the hidden state."""
        return int(attributes_of(self.node)["hidden_size"])

    @property
    def states(self) -> tuple[tuple[str, int], ...]:
        """Names and widths of the states."""
        return tuple((f"layer{self.index}.{kind}", self.width) for kind in STATES[self.node.op_type])

    @property
    def replaced(self) -> tuple[str, ...]:
        """Y and Y_h of the original."""
        return tuple(name for name in self.node.output[:2] if name)

    def emit(self, copier: Copier, named: Callable[[str], str]) -> None:
        """Add the node with `lengths` and states in place of its own."""
        inputs = [named(name) for name in self.node.input]
        inputs += [""] * (_INITIAL + 2 - len(inputs))
        inputs[_SEQUENCE_LENS] = LENGTHS if self.compaction is None else self.compaction.count
        if self.compaction is not None:
            inputs[0] = self.compaction.compacted(copier, inputs[0], self._inside("X"))
        computed = self._inside("Y" if self.compaction is None else "Y.compacted")
        outputs = [computed]
        for place, (state, width) in enumerate(self.states):
            inputs[_INITIAL + place] = copier.node(
                "Reshape", [state, copier.shape(1, -1, width)], f"{state}.initial"
            )
            outputs.append(self._inside(state))
        # Peepholes of an LSTM stay behind the states.
        made = onnx.NodeProto()
        made.CopyFrom(self.node)
        made.name = f"{BODY}layer{self.index}"
        del made.input[:], made.output[:]
        made.input.extend(_without_empty_end(inputs))
        made.output.extend(outputs)
        copier.nodes.append(made)
        for state, width in self.states:
            self._add_next(copier, state, width)
        if self.compaction is not None:
            first = f"{self.states[0][0]}.initial"
            outputs[0] = self.compaction.spread(copier, computed, first, self._inside("Y"))
        for name, found in zip(self.node.output, outputs, strict=False):
            if name:
                copier.node("Identity", [found], BODY + name)

    def _add_next(self, copier: Copier, state: str, width: int) -> None:
        """Add the state after the chunk."""
        target = state + spec.NEXT_SUFFIX
        if self.compaction is None:
            copier.node("Reshape", [self._inside(state), copier.shape(-1, width)], target)
            return
        after = copier.node("Reshape", [self._inside(state), copier.shape(-1, width)], f"{state}.after")
        self.compaction.kept(copier, state, after, target)

    def head(self, copier: Copier) -> dict[str, str]:
        """Gather Y, (time, 1, batch, width), at `wanted`."""
        width, prefix = self.width, f"head.layer{self.index}"
        swapped = copier.node("Transpose", [self._inside("Y")], f"{prefix}.rows", perm=[2, 0, 1, 3])
        flat = copier.node("Reshape", [swapped, copier.shape(-1, width)], f"{prefix}.flat")
        picked = copier.node("Gather", [flat, WANTED], f"{prefix}.picked", axis=0)
        found = {}
        for name, shape in zip(self.node.output[:2], ((1, 1, -1, width), (1, -1, width)), strict=False):
            if name:
                target = f"{prefix}.Y" if len(shape) == 4 else f"{prefix}.Y_h"
                found[name] = copier.node("Reshape", [picked, copier.shape(*shape)], target)
        return found

    def _inside(self, name: str) -> str:
        return f"{BODY}layer{self.index}/{name}"


def recurrent(node: onnx.NodeProto, index: int, compaction: Compaction | None) -> Recurrent:
    """Return a recurrent node as one of a chunk cell.

    Raises:
        Refused: it looks back from the end of the sequence, or its data are not time first.
    """
    attributes = attributes_of(node)
    direction = attributes.get("direction", b"forward").decode()
    if direction != "forward":
        raise Refused(f"{node.op_type} of layer {index} is {direction}, which needs the whole sequence")
    if attributes.get("layout", 0):
        raise Refused(f"{node.op_type} of layer {index} has layout 1, which onnxruntime does not run")
    return Recurrent(node, index, compaction)


def _without_empty_end(names: list[str]) -> list[str]:
    while names and not names[-1]:
        names = names[:-1]
    return names
