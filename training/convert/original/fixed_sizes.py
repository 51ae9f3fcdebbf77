"""Finds the constants of a foreign graph that hold sizes of batch and time, and replaces them with free ones.

Shapes are inferred twice: with the sizes of the export, and with names for the free axes. An axis whose size
is no number in the second moves; a constant that must agree with it held the size of the export.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from training.convert.foreign import Refused
from training.convert.graph.constants import optional_input, tensors_of
from training.convert.graph.copying import attributes_of

# Fixed axes of inputs with their sizes, by input and axis.
Fixed = Mapping[str, Mapping[int, int]]
# Sizes of axes; None: the size moves with batch or time, or is unknown.
Sizes = tuple[int | None, ...]
# Prefix of the names of constants that replace others.
FREED = "freed."
_LAST = int(np.iinfo(np.int64).max)
_SKELETON_NUMBERS = 1024
_MAX_NUMBERS = 1 << 31
# Each repair lets inference go on behind it; more in a row have not been seen.
_MAX_ROUNDS = 64


@dataclass(frozen=True, slots=True)
class _Site:
    """A node that may hold sizes of the export.

    Attributes:
        node: the node.
        constants: its inputs that are constants of integers, None for others.
        before: sizes of its first input at the export.
        after: the same, None where they move.
        result: sizes of its output at the export.
        axes: fixed axes of the data with their sizes.
    """

    node: onnx.NodeProto
    constants: list[list[int] | None]
    before: Sizes
    after: Sizes
    result: Sizes | None
    axes: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class _Repair:
    """A new constant for one input of a node.

    Attributes:
        index: index of the input.
        values: what it holds; an entry ("axis", n) is the size of axis n of the data.
    """

    index: int
    values: tuple[int | tuple[str, int], ...]


def free_sizes(model: onnx.ModelProto, fixed: Fixed) -> list[str]:
    """Free the axes of a model's inputs, and the constants that hold their sizes; the model is changed.

    Args:
        model: the model.
        fixed: fixed axes of its inputs.

    Returns:
        A sentence for each kind of change.
    """
    if not fixed:
        return []
    exported = _inferred(model)
    _name_axes(model.graph, fixed)
    data = max(fixed, key=lambda name: len(fixed[name]))
    done: dict[str, str] = {}
    freed = {node.output[0] for node in model.graph.node for name in node.input if name.startswith(FREED)}
    for _ in range(_MAX_ROUNDS):
        node = _repair_first(model, exported, data, fixed[data], freed | set(done))
        if node is None:
            break
        done[node.output[0]] = node.op_type
    axes = ", ".join(
        f"axis {axis} of {name} ({size})" for name, sizes in fixed.items() for axis, size in sizes.items()
    )
    sentences = [f"axes that the export fixed were freed: {axes}"]
    if done:
        kinds = ", ".join(sorted({f"{list(done.values()).count(one)} {one}" for one in done.values()}))
        sentences.append(f"constants of nodes that held these sizes were freed: {kinds}")
    return sentences


def _name_axes(graph: onnx.GraphProto, fixed: Fixed) -> None:
    for one in graph.input:
        for axis in fixed.get(one.name, ()):
            one.type.tensor_type.shape.dim[axis].dim_param = f"free.{one.name}.{axis}"
    del graph.value_info[:]
    for output in graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()


def _repair_first(
    model: onnx.ModelProto, exported: Mapping[str, Sizes], data: str, axes: Mapping[int, int], done: set[str]
) -> onnx.NodeProto | None:
    """Repair the first node that needs it and is not done, and return it."""
    moving = _inferred(model)
    tensors = tensors_of(model.graph)
    for node in model.graph.node:
        if not node.output or node.output[0] in done or node.op_type not in _RULES:
            continue
        before = exported.get(optional_input(node, 0))
        after = moving.get(node.input[0])
        if before is None or after is None or None in before or None not in after:
            continue
        constants = [tensors.integers(name) for name in node.input]
        site = _Site(node, constants, before, after, exported.get(node.output[0]), axes)
        repair = _RULES[node.op_type](site)
        if repair is not None:
            _apply(model.graph, node, repair, data)
            return node
    return None


def _reshape(site: _Site) -> _Repair | None:
    target = site.constants[1]
    if target is None or site.result is None or None in site.result or len(site.result) != len(target):
        return None
    sizes = reshape_sizes(site.before, site.after, tuple(one or 0 for one in site.result), site.axes)
    return None if sizes is None or list(sizes) == target else _Repair(1, sizes)


def reshape_sizes(
    before: Sizes, after: Sizes, target: tuple[int, ...], axes: Mapping[int, int]
) -> tuple[int | tuple[str, int], ...] | None:
    """Return a free shape for a Reshape whose shape holds the sizes of the export.

    Args:
        before: sizes of the input's axes at the export.
        after: the same, None where they move.
        target: sizes of the result at the export.
        axes: fixed axes of the data with their sizes.

    Returns:
        The shape, 0 for the size of the input's axis, -1 for what is left, ("axis", n) for the size of axis n
        of the data; None: no free shape is known.
    """
    tail = 0
    while (
        tail < min(len(before), len(target))
        and after[len(after) - 1 - tail] == target[len(target) - 1 - tail] is not None
    ):
        tail += 1
    head, aim = before[: len(before) - tail], target[: len(target) - tail]
    moves = after[: len(after) - tail]
    kept = target[len(target) - tail :]
    if len(aim) == 1:
        return (-1 if len(moves) != 1 else 0, *kept)
    # Batch and time were joined before, and are taken apart again.
    is_joined = moves[:1] == (None,) and moves.count(None) == 1
    for order in (sorted(axes), sorted(axes, reverse=True)):
        if len(axes) == 2 and is_joined and aim[:2] == tuple(axes[axis] for axis in order):
            return (*(("axis", axis) for axis in order), *aim[2:], *kept)
    same = 0
    while same < min(len(head), len(aim)) and head[same] == aim[same]:
        same += 1
    zeros = (0,) * same
    if same == len(aim) == len(head) or None not in moves[same:]:
        return (*zeros, *aim[same:], *kept) if None in moves[:same] else None
    if len(aim) - same == 1:
        return (*zeros, -1, *kept)
    return None


def _slice(site: _Site) -> _Repair | None:
    """Let a slice that ended at the end of the export's sequences end at that of any."""
    if len(site.constants) < 3 or site.constants[2] is None:
        return None
    along = (
        site.constants[3]
        if len(site.constants) > 3 and site.node.input[3]
        else list(range(len(site.constants[2])))
    )
    if along is None:
        return None
    ends = [
        _LAST if site.after[axis] is None and end == site.before[axis] else end
        for axis, end in zip(along, site.constants[2], strict=True)
    ]
    return None if ends == site.constants[2] else _Repair(2, tuple(ends))


def _gather(site: _Site) -> _Repair | None:
    """Let an index of the export's last step be that of any last step."""
    axis = attributes_of(site.node).get("axis", 0)
    if not -len(site.before) <= axis < len(site.before):
        return None
    size = site.before[axis]
    if site.after[axis] is not None or size is None or size < 2 or site.constants[1] != [size - 1]:
        return None
    return _Repair(1, (-1,))


def _expand(site: _Site) -> _Repair | None:
    """Let a tensor whose axes move anyway keep their sizes: Expand takes 1 for the size that is there."""
    target = site.constants[1]
    if target is None or len(target) != len(site.before):
        return None
    sizes = [
        1 if site.after[axis] is None and size == site.before[axis] else size
        for axis, size in enumerate(target)
    ]
    return None if sizes == target else _Repair(1, tuple(sizes))


_RULES = {"Reshape": _reshape, "Slice": _slice, "Gather": _gather, "Expand": _expand}


def _apply(graph: onnx.GraphProto, node: onnx.NodeProto, repair: _Repair, data: str) -> None:
    name = f"{FREED}{node.output[0]}"
    if all(isinstance(one, int) for one in repair.values):
        old = tensors_of(graph).value(optional_input(node, repair.index))
        kind, shape = (np.dtype(np.int64), (-1,)) if old is None else (old.dtype, old.shape)
        value = np.array(repair.values, kind).reshape(shape)
        graph.initializer.append(numpy_helper.from_array(value, name))
    else:
        _insert_before(graph, node, _shape_nodes(repair.values, data, name))
    changed = next(one for one in graph.node if one.output and one.output[0] == node.output[0])
    changed.input[repair.index] = name
    for one in [one for one in changed.attribute if one.name == "allowzero"]:
        changed.attribute.remove(one)


def _shape_nodes(values: Sequence[int | tuple[str, int]], data: str, name: str) -> list[onnx.NodeProto]:
    """Return the nodes that put a shape together from constants and sizes of the data's axes."""
    made = [helper.make_node("Shape", [data], [f"{name}.data"])]
    parts = []
    for index, one in enumerate(values):
        part = f"{name}.{index}"
        number = one if isinstance(one, int) else one[1]
        constant = numpy_helper.from_array(np.array([number], np.int64))
        made.append(helper.make_node("Constant", [], [f"{part}.number"], value=constant))
        if not isinstance(one, int):
            made.append(helper.make_node("Gather", [f"{name}.data", f"{part}.number"], [part]))
        parts.append(f"{part}.number" if isinstance(one, int) else part)
    return [*made, helper.make_node("Concat", parts, [name], axis=0)]


def _insert_before(graph: onnx.GraphProto, node: onnx.NodeProto, made: list[onnx.NodeProto]) -> None:
    place = next(index for index, one in enumerate(graph.node) if one.output == node.output)
    for offset, one in enumerate(made):
        graph.node.insert(place + offset, one)


def _inferred(model: onnx.ModelProto) -> dict[str, Sizes]:
    """Infer the sizes of all tensors, None for those that are names or unknown."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(_without_weights(model))
    try:
        found = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise Refused(
            f"the sizes of the graph's tensors do not fit: {' '.join(str(error).split())[:200]}"
        ) from error
    known: dict[str, Sizes] = {one.name: tuple(one.dims) for one in model.graph.initializer}
    for one in (*found.value_info, *found.input, *found.output):
        if one.type.tensor_type.HasField("shape"):
            known[one.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None for dim in one.type.tensor_type.shape.dim
            )
    return known


def follows_rules(model: onnx.ModelProto) -> bool:
    """Return whether nodes have the inputs, outputs and attributes that ONNX asks for."""
    try:
        onnx.checker.check_model(_without_weights(model))
    except onnx.checker.ValidationError:
        return False
    return True


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose large weights are inputs, so that inference copies no weights."""
    made = onnx.ModelProto(ir_version=model.ir_version)
    made.opset_import.extend(model.opset_import)
    made.functions.extend(model.functions)
    made.graph.name = model.graph.name or "graph"
    made.graph.node.extend(model.graph.node)
    made.graph.input.extend(model.graph.input)
    made.graph.output.extend(model.graph.output)
    names = {one.name for one in model.graph.input}
    for edge in model.graph.input:
        _check_sizes(edge.name, [dim.dim_value for dim in edge.type.tensor_type.shape.dim])
    for one in model.graph.initializer:
        _check_sizes(one.name, one.dims)
        if np.prod(one.dims, dtype=np.int64) <= _SKELETON_NUMBERS and not one.external_data:
            made.graph.initializer.append(one)
        elif one.name not in names:
            made.graph.input.append(helper.make_tensor_value_info(one.name, one.data_type, list(one.dims)))
    return made


def _check_sizes(name: str, sizes: Sequence[int]) -> None:
    """Raise Refused if a tensor cannot have such sizes: inference would take time for each of its numbers."""
    if any(size < 0 for size in sizes) or np.prod(np.array(sizes, np.float64)) > _MAX_NUMBERS:
        raise Refused(f"tensor {name}: expected sizes of at most {_MAX_NUMBERS} numbers, found {list(sizes)}")
