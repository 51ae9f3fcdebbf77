"""Finds the causal convolutions of a foreign graph: those whose outputs depend on no later time step.

A convolution of kernel K and dilation D is causal if it pads its input with (K - 1) * D zeros on the left.
What it remembers of a sequence is that number of last inputs, zeros at the start. Exporters write the padding
into the Conv itself, in front of it (Pad, or Concat with zeros), or on both sides, and cut the end off again
behind it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from training.convert.graph.constants import Tensors, optional_input, tensors_of
from training.convert.graph.copying import attributes_of
from training.convert.graph.folding import evaluate
from training.convert.graph.zeros import are_zeros, length_of_zeros

# Operators between the padding and the Conv that only arrange axes.
_ARRANGING = ("Identity", "Transpose", "Unsqueeze", "Squeeze")
_FIRST_SPATIAL = 2


@dataclass(frozen=True, slots=True)
class Convolution:
    """A causal convolution of an original, over (B, C, T), or (B, C, 1, T) or (B, C, T, 1).

    Attributes:
        node: the Conv.
        source: tensor that is padded.
        arranged: nodes between the padded tensor and the Conv, first one first.
        output: tensor of as many time steps as the source has: of the Conv, or of what cuts its end off.
        time_axis: axis of time of the Conv's input and output.
        rank: number of their axes.
        kernel: number of time steps that the kernel takes.
        dilation: distance between these.
        groups: number of groups of channels.
        inputs: number of channels of the source.
        outputs: number of channels of the output.
    """

    node: onnx.NodeProto
    source: str
    arranged: tuple[onnx.NodeProto, ...]
    output: str
    time_axis: int
    rank: int
    kernel: int
    dilation: int
    groups: int
    inputs: int
    outputs: int

    @property
    def past(self) -> int:
        """Number of time steps that it looks back."""
        return (self.kernel - 1) * self.dilation


@dataclass(frozen=True, slots=True)
class NotCausal:
    """A convolution whose outputs depend on later steps, or that is none of the known forms.

    Attributes:
        node: the Conv.
        time_axis: axis that its kernel runs along.
        reason: why it is not causal, a sentence for people.
    """

    node: onnx.NodeProto
    time_axis: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Padding:
    """Padding in front of a Conv.

    Attributes:
        source: the tensor that is padded.
        arranged: nodes between the padded tensor and the Conv.
        left: number of steps of zeros before the tensor.
        right: number of steps of zeros behind it.
    """

    source: str
    arranged: tuple[onnx.NodeProto, ...]
    left: int
    right: int


def causal_convolutions(graph: onnx.GraphProto, opset: int) -> list[Convolution | NotCausal]:
    """Return the convolutions of a graph along one axis, in the graph's order.

    Which axis is time is not known here: a convolution over features is returned, too. Kernels of one step
    are left out where they have groups or several axes: these need no state.

    Args:
        graph: the original.
        opset: version of ONNX's operators that it is written in.
    """
    tensors = tensors_of(graph)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {one.name for one in graph.output}
    found: list[Convolution | NotCausal] = []
    for node in graph.node:
        if node.op_type == "Conv" and not node.domain:
            found += _convolution(
                node, tensors, opset, [] if node.output[0] in outputs else readers.get(node.output[0], [])
            )
    return found


def _convolution(
    node: onnx.NodeProto, tensors: Tensors, opset: int, readers: Sequence[onnx.NodeProto]
) -> Iterator[Convolution | NotCausal]:
    """Yield the convolution of a Conv."""
    attributes = attributes_of(node)
    dims = tensors.dims(node.input[1])
    kernel = list(attributes.get("kernel_shape") or (dims or [])[_FIRST_SPATIAL:])
    long = [index for index, size in enumerate(kernel) if size > 1]
    if not long:
        if len(kernel) != 1 or attributes.get("group", 1) != 1:
            return
        long = [0]
    place = long[-1]
    axis = _FIRST_SPATIAL + place
    if len(long) > 1:
        yield NotCausal(node, axis, f"its kernel of {_words(kernel)} runs along several axes")
        return
    if dims is None:
        yield NotCausal(node, axis, "its weights are computed in the graph")
        return
    strides = list(attributes.get("strides", [1] * len(kernel)))
    if any(size != 1 for size in strides):
        yield NotCausal(node, axis, f"it gives an output for every {max(strides)} time steps only")
        return
    dilation = list(attributes.get("dilations", [1] * len(kernel)))[place]
    past = (kernel[place] - 1) * dilation
    own = _own_padding(attributes, len(kernel), place, past)
    before = _padding(node, tensors, opset, axis, len(dims))
    if own is None or before is None:
        yield NotCausal(
            node, axis, "it pads other axes than that of its kernel, or with other numbers than zeros"
        )
        return
    left, right = own[0] + before.left, own[1] + before.right
    cut = _cut(tensors, readers, axis)
    output = node.output[0]
    if cut is not None and left + right - past == cut[1] > 0:
        output, right = cut[0].output[0], right - cut[1]
    if (left, right) != (past, 0):
        yield NotCausal(
            node,
            axis,
            f"expected {past} time steps of zeros before a sequence for its kernel of {kernel[place]}, found "
            f"{left} before and {max(right, 0)} behind it",
        )
        return
    groups = int(attributes.get("group", 1))
    yield Convolution(
        node=node,
        source=before.source,
        arranged=before.arranged,
        output=output,
        time_axis=axis,
        rank=len(dims),
        kernel=kernel[place],
        dilation=dilation,
        groups=groups,
        inputs=dims[1] * groups,
        outputs=dims[0],
    )


def _words(kernel: Sequence[int]) -> str:
    return " x ".join(map(str, kernel))


def _own_padding(attributes: dict[str, object], rank: int, place: int, past: int) -> tuple[int, int] | None:
    """Return the padding of a Conv itself along its kernel; None: it pads other axes as well."""
    kind = attributes.get("auto_pad", b"NOTSET")
    if kind in (b"SAME_UPPER", b"SAME_LOWER"):
        half, rest = past // 2, past - past // 2
        return (half, rest) if kind == b"SAME_UPPER" else (rest, half)
    pads = attributes.get("pads", [0] * 2 * rank)
    pads = [0] * 2 * rank if kind == b"VALID" or not isinstance(pads, list) else list(pads)
    others = [size for index, size in enumerate(pads) if index % rank != place]
    return None if any(others) else (pads[place], pads[rank + place])


def _padding(node: onnx.NodeProto, tensors: Tensors, opset: int, axis: int, rank: int) -> _Padding | None:
    """Return the padding in front of a Conv; None: it is of other axes, or not of zeros."""
    name = node.input[0]
    arranged: list[onnx.NodeProto] = []
    while True:
        maker = tensors.maker(name, "Pad", "Concat", *_ARRANGING)
        if maker is None:
            break
        if maker.op_type == "Pad":
            amounts = _amounts(maker, tensors, opset, axis, rank)
            return amounts and _Padding(maker.input[0], tuple(reversed(arranged)), *amounts)
        if maker.op_type == "Concat":
            length = _zeros_in_front(maker, tensors, axis, rank)
            if length is None:
                break
            return _Padding(maker.input[1], tuple(reversed(arranged)), length, 0)
        moved = _axis_before(maker, tensors, axis, rank)
        if moved is None:
            break
        arranged.append(maker)
        name, (axis, rank) = maker.input[0], moved
    return _Padding(node.input[0], (), 0, 0)


def _amounts(
    pad: onnx.NodeProto, tensors: Tensors, opset: int, axis: int, rank: int
) -> tuple[int, int] | None:
    """Return what a Pad puts before and behind an axis; None: it pads others as well, or not with zeros."""
    attributes = attributes_of(pad)
    given = attributes.get("pads")
    pads = np.array(given) if given is not None else evaluate(tensors, optional_input(pad, 1), opset)
    number = optional_input(pad, 2)
    is_zero = are_zeros(tensors, number) if number else attributes.get("value", 0.0) == 0
    axes = optional_input(pad, 3)
    order = evaluate(tensors, axes, opset) if axes else np.arange(rank)
    if attributes.get("mode", b"constant") != b"constant" or not is_zero or pads is None or order is None:
        return None
    places = [int(one) % rank for one in order.ravel()]
    if pads.size != 2 * len(places):
        return None
    sizes = pads.reshape(2, -1)
    others = [sizes[:, index] for index, one in enumerate(places) if one != axis]
    if np.any(others):
        return None
    (along,) = [sizes[:, index] for index, one in enumerate(places) if one == axis] or [np.zeros(2)]
    return int(along[0]), int(along[1])


def _zeros_in_front(concat: onnx.NodeProto, tensors: Tensors, axis: int, rank: int) -> int | None:
    """Return how many steps of zeros a Concat puts before a tensor; None: it does something else."""
    if len(concat.input) != 2 or attributes_of(concat)["axis"] % rank != axis:
        return None
    return length_of_zeros(tensors, concat.input[0], axis)


def _axis_before(node: onnx.NodeProto, tensors: Tensors, axis: int, rank: int) -> tuple[int, int] | None:
    """Return the place of an axis, and the rank, in the input of a node that arranges axes."""
    attributes = attributes_of(node)
    if node.op_type == "Identity":
        return axis, rank
    if node.op_type == "Transpose":
        order = list(attributes.get("perm", range(rank)[::-1]))
        return order[axis], rank
    axes = attributes.get("axes") or tensors.integers(optional_input(node, 1))
    if axes is None:
        return None
    if node.op_type == "Unsqueeze":
        added = {one % rank for one in axes}
        return (axis - sum(one < axis for one in added), rank - len(added)) if axis not in added else None
    wider = rank + len(axes)
    removed = {one % wider for one in axes}
    return [one for one in range(wider) if one not in removed][axis], wider


def _cut(tensors: Tensors, readers: Sequence[onnx.NodeProto], axis: int) -> tuple[onnx.NodeProto, int] | None:
    """Return the Slice that alone reads a Conv, and how many steps it cuts off its end."""
    if len(readers) != 1 or readers[0].op_type != "Slice":
        return None
    (node,) = readers
    attributes = attributes_of(node)
    given = [attributes.get(name) for name in ("starts", "ends", "axes")]
    values = [
        one if one is not None else tensors.integers(optional_input(node, index))
        for index, one in enumerate(given, start=1)
    ]
    steps = tensors.integers(optional_input(node, 4))
    if values[:2] == [[0], values[1]] and values[2] in ([axis], [-1]) and steps in (None, [1]):
        end = (values[1] or [0])[0]
        return (node, -end) if end < 0 else None
    return None
