"""Causal convolutions of a chunk cell: their state is the last inputs that they look back to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from service.contract import spec
from training.convert.foreign import Refused
from training.convert.graph.constants import opset_of
from training.convert.graph.copying import Copier
from training.convert.original.original import Original
from training.convert.rungs.convolution import Convolution, NotCausal, causal_convolutions
from training.convert.rungs.stateful import BODY, LENGTHS, WANTED

# Numbers of rows and of time steps that show which axes of a tensor are batch and time.
_ROWS, _STEPS = 3, (5, 11)
# The first with GatherND over batches.
_MIN_OPSET = 12
_PREFIX = "convolution"


@dataclass(frozen=True, slots=True)
class Past:
    """A causal convolution of an original.

    Its state is float32 (batch, past * channels): the inputs of the last `past` time steps, the oldest first.
    It starts with zeros, as the padding before a sequence is. A kernel of one step has none.

    The results of onnxruntime's Conv depend on the number of time steps (by 4e-6 with 64 channels), and so on
    how a sequence is cut; those of a matrix product do not. So it is computed as one, unless it has groups.

    Attributes:
        convolution: the convolution.
        index: its place among the convolutions.
    """

    convolution: Convolution
    index: int

    @property
    def states(self) -> tuple[tuple[str, int], ...]:
        """Name and width of the state, if there is one."""
        if not self.convolution.past:
            return ()
        return ((f"{_PREFIX}{self.index}.past", self.convolution.inputs * self.convolution.past),)

    @property
    def replaced(self) -> tuple[str, ...]:
        """The output, of as many time steps as the input has."""
        return (self.convolution.output,)

    def emit(self, copier: Copier, named: Callable[[str], str]) -> None:
        """Add the convolution over the state and the chunk, without padding of its own."""
        found = self.convolution
        joined = self._chunk(copier, named)
        for state, _ in self.states:
            shape = copier.shape(-1, found.past, found.inputs)
            before = copier.node("Reshape", [state, shape], self._inside("before"))
            # The state's steps stand before those of the chunk.
            joined = copier.node("Concat", [before, joined], self._inside("joined"), axis=1)
            self._add_next(copier, joined)
        weights = [named(name) for name in found.node.input[1:] if name]
        compute = self._product if found.groups == 1 else self._grouped
        rows = compute(copier, joined, weights)
        turned = copier.node("Transpose", [rows], self._inside("turned"), perm=[0, 2, 1])
        copier.node("Reshape", [turned, self._shape(copier, 0, found.outputs)], BODY + found.output)

    def head(self, copier: Copier) -> dict[str, str]:
        """Gather the output at `wanted`."""
        found, prefix = self.convolution, f"head.convolution{self.index}"
        flat = copier.node(
            "Reshape", [self._inside("rows"), copier.shape(-1, found.outputs)], f"{prefix}.flat"
        )
        picked = copier.node("Gather", [flat, WANTED], f"{prefix}.picked", axis=0)
        shape = copier.shape(-1, found.outputs, *[1] * (found.rank - 2))
        return {found.output: copier.node("Reshape", [picked, shape], f"{prefix}.output")}

    def _inside(self, name: str) -> str:
        return f"{BODY}convolution{self.index}/{name}"

    def _shape(self, copier: Copier, batch: int, channels: int) -> str:
        """Return the shape of the Conv's output for any number of time steps."""
        sizes = [batch, channels, *[1] * (self.convolution.rank - 2)]
        sizes[self.convolution.time_axis] = -1
        return copier.shape(*sizes)

    def _chunk(self, copier: Copier, named: Callable[[str], str]) -> str:
        """Return the chunk (batch, time, channels), without the padding of the original."""
        name = named(self.convolution.source)
        for index, node in enumerate(self.convolution.arranged):
            made = onnx.NodeProto()
            made.CopyFrom(node)
            made.name = self._inside(f"arranged{index}")
            for place, one in enumerate(node.input):
                made.input[place] = named(one) if place else name
            name = made.output[0] = made.name
            copier.nodes.append(made)
        flat = copier.node(
            "Reshape", [name, copier.shape(0, self.convolution.inputs, -1)], self._inside("flat")
        )
        return copier.node("Transpose", [flat], self._inside("chunk"), perm=[0, 2, 1])

    def _product(self, copier: Copier, joined: str, weights: list[str]) -> str:
        """Return the output (batch, time, channels) as a product of windows and weights."""
        found = self.convolution
        size = found.kernel * found.inputs
        windows = joined if found.kernel == 1 else self._windows(copier, joined)
        kernel = self._kernel(copier, weights[0], found.inputs)
        turned = copier.node("Transpose", [kernel], self._inside("kernel"), perm=[2, 1, 0])
        matrix = copier.node("Reshape", [turned, copier.shape(size, found.outputs)], self._inside("matrix"))
        if len(weights) == 1:
            return copier.node("MatMul", [windows, matrix], self._inside("rows"))
        product = copier.node("MatMul", [windows, matrix], self._inside("product"))
        return copier.node("Add", [product, weights[1]], self._inside("rows"))

    def _windows(self, copier: Copier, joined: str) -> str:
        """Return what the kernel sees at each step: (batch, time, kernel * channels)."""
        found = self.convolution
        end = copier.node("Reshape", ["input.time", copier.shape()], self._inside("time"))
        first = copier.node("Range", [copier.scalar(0), end, copier.scalar(1)], self._inside("first"))
        column = copier.node("Reshape", [first, copier.shape(-1, 1)], self._inside("column"))
        offsets = copier.constant(
            f"offsets.{found.kernel}.{found.dilation}", found.dilation * np.arange(found.kernel)
        )
        places = copier.node("Add", [column, offsets], self._inside("places"))  # (time, kernel)
        windows = copier.node("Gather", [joined, places], self._inside("windows"), axis=1)
        shape = copier.shape(0, -1, found.kernel * found.inputs)
        return copier.node("Reshape", [windows, shape], self._inside("window_rows"))

    def _grouped(self, copier: Copier, joined: str, weights: list[str]) -> str:
        """Return the output (batch, time, channels) as a Conv computes it."""
        found = self.convolution
        channels = copier.node("Transpose", [joined], self._inside("channels"), perm=[0, 2, 1])
        kernel = self._kernel(copier, weights[0], found.inputs // found.groups)
        output = copier.node(
            "Conv",
            [channels, kernel, *weights[1:]],
            self._inside("convolved"),
            group=found.groups,
            dilations=[found.dilation],
        )
        return copier.node("Transpose", [output], self._inside("rows"), perm=[0, 2, 1])

    def _kernel(self, copier: Copier, weights: str, inputs: int) -> str:
        """Return the weights with one spatial axis: (outputs, inputs of a group, kernel)."""
        found = self.convolution
        if found.rank == 3:
            return weights
        shape = copier.shape(found.outputs, inputs, found.kernel)
        return copier.node("Reshape", [weights, shape], self._inside("narrow"))

    def _add_next(self, copier: Copier, joined: str) -> None:
        """Add the next state: the last `past` of the state and the valid steps of each row."""
        found = self.convolution
        ((state, width),) = self.states
        lengths = copier.node("Cast", [LENGTHS], self._inside("lengths"), to=onnx.TensorProto.INT64)
        first = copier.node("Reshape", [lengths, copier.shape(-1, 1, 1)], self._inside("lengths3"))
        offsets = copier.constant(f"past.{found.past}", np.arange(found.past).reshape(1, -1, 1))
        places = copier.node("Add", [first, offsets], self._inside("last_places"))
        last = copier.node("GatherND", [joined, places], self._inside("last"), batch_dims=1)
        copier.node("Reshape", [last, copier.shape(-1, width)], state + spec.NEXT_SUFFIX)


def past_of(original: Original) -> list[Past]:
    """Return the causal convolutions over time of an original.

    Raises:
        Refused: a convolution over time is not causal; the sentence says which one and why.
    """
    opset = opset_of(original.model)
    found = causal_convolutions(original.model.graph, opset)
    over_time = _over_time(original, found) if found else []
    for one in over_time:
        if isinstance(one, NotCausal):
            name = one.node.name or one.node.output[0]
            raise Refused(f"the convolution {name} is not causal: {one.reason}")
    if over_time and opset < _MIN_OPSET:
        raise Refused(
            f"a convolution as a state needs opset {_MIN_OPSET} or newer, found {opset}", "export it with one"
        )
    causal = [one for one in over_time if isinstance(one, Convolution)]
    return [Past(one, index) for index, one in enumerate(causal)]


def _over_time(original: Original, found: Sequence[Convolution | NotCausal]) -> list[Convolution | NotCausal]:
    """Return those convolutions whose kernel runs along time: others give the same at every step."""
    names = [one.node.input[0] for one in found]
    rng = np.random.default_rng(0)
    shapes = []
    for steps in _STEPS:
        cases = [original.drawing.case(rng, steps) for _ in range(_ROWS)]
        shapes.append([array.shape for array in original.probe(names, cases)])
    return [
        one
        for one, few, many in zip(found, *shapes, strict=True)
        if few[one.time_axis] != many[one.time_axis]
    ]


def described(states: Sequence[spec.State]) -> tuple[str, ...]:
    """Return a sentence on the convolutions among the states of a cell, none where there are none."""
    sizes = [one.size for one in states if one.input.startswith(_PREFIX)]
    if not sizes:
        return ()
    return (f"causal convolutions: {len(sizes)}, whose last inputs are states of {sum(sizes)} numbers",)
