"""Evaluates small tensors of a foreign graph that are computed from constants alone."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from training.convert.graph.constants import Tensors

# What exporters compute amounts of padding and axes with. None of them makes a tensor larger than its inputs
# together, but ConstantOfShape and Expand, whose results are bounded below.
_OPERATORS = frozenset(
    {
        *("Add", "Cast", "Concat", "ConstantOfShape", "Div", "Expand", "Gather", "Identity"),
        *("Mul", "Neg", "Reshape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
    }
)
_MAX_NODES = 100
_MAX_NUMBERS = 10_000


def evaluate(tensors: Tensors, name: str, opset: int) -> NDArray[np.generic] | None:
    """Return the values of a tensor, or None if they depend on the graph's inputs or are not small.

    Args:
        tensors: the tensors of the graph.
        name: the tensor.
        opset: version of ONNX's operators that the graph is written in.
    """
    found: dict[str, NDArray[np.generic]] = {}
    order = _behind(tensors, name)
    if order is None:
        return None
    for node in order:
        for each in node.input:
            value = tensors.value(each) if each and each not in found else None
            if value is not None:
                found[each] = value
        if any(each and each not in found for each in node.input) or not _is_small(node, found):
            return None
        values = _run(node, found, opset)
        found |= {each: value for each, value in zip(node.output, values, strict=False) if each}
    return found.get(name, tensors.value(name))


def _behind(tensors: Tensors, name: str) -> list[onnx.NodeProto] | None:
    """Return the nodes that a tensor is computed by, in order; None: there are others than foldable ones."""
    order: list[onnx.NodeProto] = []
    waiting = [(name, False)]
    seen: set[str] = set()
    while waiting:
        one, is_done = waiting.pop()
        node = tensors.makers.get(one)
        if node is None or one in tensors.constants:
            continue
        if is_done:
            order.append(node)
        elif one not in seen:
            if node.op_type not in _OPERATORS or len(seen) == _MAX_NODES:
                return None
            seen.add(one)
            waiting.append((one, True))
            waiting += [(each, False) for each in node.input if each]
    return order


def _is_small(node: onnx.NodeProto, found: dict[str, NDArray[np.generic]]) -> bool:
    if any(found[each].size > _MAX_NUMBERS for each in node.input if each):
        return False
    if node.op_type not in ("ConstantOfShape", "Expand"):
        return True
    sizes = found[node.input[-1]].ravel().tolist()
    return bool(np.prod(np.array(sizes, np.float64)) <= _MAX_NUMBERS and len(sizes) <= 8)


def _run(
    node: onnx.NodeProto, found: dict[str, NDArray[np.generic]], opset: int
) -> list[NDArray[np.generic]]:
    """Run one node by ONNX's reference."""
    feeds = {each: found[each] for each in node.input if each}
    inputs = [onnx.helper.make_empty_tensor_value_info(each) for each in feeds]
    outputs = [onnx.helper.make_empty_tensor_value_info(each) for each in node.output if each]
    graph = onnx.helper.make_graph([node], "folded", inputs, outputs)
    opsets = [onnx.helper.make_opsetid("", opset)]
    run = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opsets))
    return [np.asarray(value) for value in run.run(None, feeds)]
