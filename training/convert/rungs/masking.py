"""Skips time steps as Keras does: those of one token id (`mask_zero`), or of rows of one number (Masking).

A skipped step leaves the state as it was.
ONNX's recurrent nodes cannot skip a step. The other steps of each row are put together at its beginning, the
node runs on so many steps, and each skipped step gets the output before it (of the other direction: the one
behind it), zeros where there is none.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from service.contract import spec
from training.convert.cases import Drawing
from training.convert.graph.copying import Copier


@dataclass(frozen=True, slots=True)
class Skipped:
    """The time steps that a network skips.

    Attributes:
        value: the token id, or the number that all features of a skipped step equal in float32.
        is_row: the input has features.
    """

    value: float
    is_row: bool

    def constant(self, copier: Copier) -> str:
        """Return the name of the value as a constant of the input's type."""
        if not self.is_row:
            return copier.scalar(int(self.value))
        return copier.constant("skipped.value", np.array(self.value, np.float32))

    def found(self, copier: Copier, name: str) -> str:
        """Return which steps of `input` are not skipped by their value, bool (B, T)."""
        is_equal = copier.node("Equal", [spec.INPUT, self.constant(copier)], f"{name}.is_equal")
        differs = copier.node("Not", [is_equal], f"{name}.differs")
        if not self.is_row:
            return differs
        numbers = copier.node("Cast", [differs], f"{name}.numbers", to=TensorProto.INT64)
        count = copier.node("ReduceSum", [numbers, copier.shape(2)], f"{name}.differing", keepdims=0)
        return copier.node("Greater", [count, copier.scalar(0)], f"{name}.differs_anywhere")


def skipped_of(drawing: Drawing) -> Skipped | None:
    """Return the time steps that a network skips, or None."""
    if drawing.skipped_value is None:
        return None
    return Skipped(drawing.skipped_value, drawing.input.kind == "features")


@dataclass(frozen=True, slots=True)
class Compaction:
    """Tensors of a graph that say which steps of its input are skipped.

    Attributes:
        order: int64 (B, T, 1), steps of each row, the skipped ones last.
        count: int32 (B,), steps that are not skipped, at least 1.
        is_empty: bool (B, 1), all steps of a row are skipped.
        before: int64 (B, T, 1), number of steps up to each one, itself among them, that are not skipped.
        behind: int64 (B, T, 1), number of steps before each one, without itself, that are not skipped.
        is_inside: bool (B, T), the step is not behind `lengths`; empty: there are no lengths.
    """

    order: str
    count: str
    is_empty: str
    before: str
    behind: str
    is_inside: str = ""

    def compacted(self, copier: Copier, data: str, name: str) -> str:
        """Return X, (T, B, C), with the skipped steps behind the others."""
        rows = copier.node("Transpose", [data], f"{name}.rows", perm=[1, 0, 2])
        picked = copier.node("GatherND", [rows, self.order], f"{name}.picked", batch_dims=1)
        return copier.node("Transpose", [picked], f"{name}.compacted", perm=[1, 0, 2])

    def kept(self, copier: Copier, before: str, after: str, output: str) -> str:
        """Return a state after the steps, (B, H), that is the one before where all are skipped."""
        return copier.node("Where", [self.is_empty, before, after], output)

    def spread(self, copier: Copier, outputs: str, first: str, output: str) -> str:
        """Return Y of one direction, (T, 1, B, H), with the output before it at each skipped step.

        Args:
            copier: collects the nodes.
            outputs: Y of the compacted steps.
            first: (1, B, H), the output where no step before is left.
            output: name of the result.
        """
        row = copier.node("Unsqueeze", [first, copier.shape(0)], f"{output}.first")
        joined = copier.node("Concat", [row, outputs], f"{output}.joined", axis=0)
        return _picked(copier, joined, self.before, output)

    def spread_back(self, copier: Copier, outputs: str, last: str, output: str) -> str:
        """Return Y of the backward direction, (T, 1, B, H), with the output behind it at each skipped step.

        Args:
            copier: collects the nodes.
            outputs: Y of the compacted steps.
            last: (1, B, H), the output where no step behind is left.
            output: name of the result.
        """
        row = copier.node("Unsqueeze", [last, copier.shape(0)], f"{output}.last")
        # A row without a step to keep has run on one that is skipped.
        run = copier.node("Where", [self.is_empty, row, outputs], f"{output}.run")
        joined = copier.node("Concat", [run, row], f"{output}.joined", axis=0)
        return _picked(copier, joined, self.behind, output)


def _picked(copier: Copier, joined: str, places: str, output: str) -> str:
    """Return the rows of (T + 1, 1, B, H) at places, int64 (B, T, 1): (T, 1, B, H)."""
    rows = copier.node("Transpose", [joined], f"{output}.rows", perm=[2, 0, 1, 3])
    picked = copier.node("GatherND", [rows, places], f"{output}.picked", batch_dims=1)
    return copier.node("Transpose", [picked], output, perm=[1, 2, 0, 3])


def compaction(copier: Copier, skipped: Skipped, prefix: str, *, has_lengths: bool = True) -> Compaction:
    """Add what says which steps of `input` are skipped: those of a value, and those behind `lengths`.

    Args:
        copier: collects the nodes.
        skipped: the value whose steps are skipped.
        prefix: prefix of their names.
        has_lengths: the graph has the input `lengths`.
    """

    def name(part: str) -> str:
        return f"{prefix}mask.{part}"

    shape = copier.node("Shape", [spec.INPUT], name("shape"))
    steps = copier.node("Gather", [shape, copier.scalar(1)], name("steps"))
    places = copier.node("Range", [copier.scalar(0), steps, copier.scalar(1)], name("places"))
    is_kept = skipped.found(copier, name("value"))
    is_inside = ""
    if has_lengths:
        lengths = copier.node("Cast", [spec.LENGTHS], name("lengths"), to=TensorProto.INT64)
        column = copier.node("Unsqueeze", [lengths, copier.shape(1)], name("column"))
        is_inside = copier.node("Less", [places, column], name("is_inside"))
        is_kept = copier.node("And", [is_inside, is_kept], name("is_kept"))
    number = copier.node("Cast", [is_kept], name("number"), to=TensorProto.INT64)
    # All keys differ, kept steps have the larger ones, and earlier steps larger ones than later steps.
    key = copier.node("Sub", [copier.node("Mul", [number, steps], name("weight")), places], name("key"))
    order = _order(copier, key, steps, name("order"))
    before = copier.node("CumSum", [number, copier.scalar(1)], name("before.row"))
    behind = copier.node("Sub", [before, number], name("behind.row"))
    total = copier.node("ReduceSum", [number, copier.shape(1)], name("total"), keepdims=0)
    at_least_one = copier.node("Max", [total, copier.scalar(1)], name("at_least_one"))
    return Compaction(
        order=copier.node("Unsqueeze", [order, copier.shape(2)], name("order.column")),
        count=copier.node("Cast", [at_least_one], name("count"), to=TensorProto.INT32),
        is_empty=copier.node(
            "Equal",
            [copier.node("Unsqueeze", [total, copier.shape(1)], name("total.column")), copier.scalar(0)],
            name("is_empty"),
        ),
        before=copier.node("Unsqueeze", [before, copier.shape(2)], name("before")),
        behind=copier.node("Unsqueeze", [behind, copier.shape(2)], name("behind")),
        is_inside=is_inside,
    )


def _order(copier: Copier, key: str, steps: str, output: str) -> str:
    """Return the steps of each row with the largest keys first, int64 (B, T)."""
    count = copier.node("Reshape", [steps, copier.constant("shape.one", np.array([1]))], f"{output}.count")
    copier.nodes.append(
        onnx.helper.make_node("TopK", [key, count], [f"{output}.keys", output], name=output, axis=1)
    )
    return output
