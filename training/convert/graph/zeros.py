"""Finds tensors of a foreign graph that are zeros whatever their size."""

import numpy as np
from onnx import numpy_helper

from training.convert.graph.constants import Tensors
from training.convert.graph.copying import attributes_of

# Operators that give zeros where the inputs listed are zeros.
_KEEP_ZEROS = (
    "Cast",
    "Expand",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)


def are_zeros(tensors: Tensors, name: str) -> bool:
    """Return whether a tensor is zeros whatever its size, as far as constants and moving operators tell."""
    waiting, seen = [name], {name}
    while waiting:
        one = waiting.pop()
        if one in tensors.constants:
            value = tensors.value(one)
            if value is None or np.any(value):
                return False
            continue
        node = tensors.makers.get(one)
        if node is None:
            return False
        if node.op_type == "ConstantOfShape":
            if np.any([numpy_helper.to_array(value).any() for value in attributes_of(node).values()]):
                return False
        elif node.op_type in (*_KEEP_ZEROS, "Concat"):
            before = node.input if node.op_type == "Concat" else node.input[:1]
            waiting += [each for each in before if each not in seen]
            seen.update(before)
        else:
            return False
    return True


def length_of_zeros(tensors: Tensors, name: str, axis: int) -> int | None:
    """Return the length of an axis of a tensor of zeros, or None if it is not zeros of a known length."""
    if not are_zeros(tensors, name):
        return None
    dims = tensors.dims(name)
    if dims is not None:
        return dims[axis] if axis < len(dims) else None
    maker = tensors.maker(name, "ConstantOfShape", "Expand")
    if maker is None:
        return None
    shape = maker.input[-1]
    sizes = tensors.integers(shape)
    if sizes is not None:
        return sizes[axis] if axis < len(sizes) else None
    joined = tensors.maker(shape, "Concat")
    if joined is None or axis >= len(joined.input):
        return None
    parts = [tensors.integers(one) for one in joined.input[: axis + 1]]
    # Sizes that the data decide are one number each, where exporters write them.
    if any(one is not None and len(one) != 1 for one in parts) or parts[axis] is None:
        return None
    return (parts[axis] or [0])[0]
