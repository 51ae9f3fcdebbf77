"""Writes recurrent layers as ONNX's LSTM, GRU and RNN, whose arrays are time first; others batch first."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.convert.foreign import Refused
from training.convert.keras import config as c
from training.convert.keras.graph_activations import OF_OPERATORS
from training.convert.keras.network import Layer
from training.convert.keras.parsing import EXPORT

if TYPE_CHECKING:
    from training.convert.keras.graph import Writer

Floats = NDArray[np.float32]
OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
# Keras stacks the gates of an LSTM as (i, f, c, o), ONNX as (i, o, f, c). Of a GRU both have (z, r, h).
GATES = {"lstm": (0, 3, 1, 2), "gru": (0, 1, 2), "rnn": (0,)}
_LAST_INT = np.iinfo(np.int64).min  # the end of a Slice that runs backwards to the first step


class _Direction(NamedTuple):
    """One cell in one direction, with its kernel, recurrent kernel and bias."""

    cell: c.Cell
    kernel: Floats
    recurrent: Floats
    bias: Floats | None


class _Node(NamedTuple):
    """Outputs of an operator: all steps (T, directions, B, H), and the last h and c (directions, B, H)."""

    steps: str
    last: str
    carry: str


def write_recurrent(
    writer: "Writer", layer: Layer, config: c.Recurrent, x: str, states: Sequence[str]
) -> list[str]:
    """Add a recurrent layer, one operator a cell, and return the names of its output and of its states."""
    names = list(states)
    steps = writer.add("Transpose", x, perm=[1, 0, 2])
    node, ends = _Node("", "", ""), []
    for index, direction in enumerate(_directions(config, layer.weights)):
        initial = [names.pop(0) for _ in range(direction.cell.num_states)] if names else []
        place = f"{layer.path}.{index}"
        node = _operator(
            writer, config.name, place, [direction], steps, [[one] for one in initial], config.go_backwards
        )
        steps = writer.add("Squeeze", node.steps, writer.axis(1))
        ends += [writer.add("Squeeze", one, writer.axis(0)) for one in (node.last, node.carry) if one]
    if not config.return_sequences:
        output = writer.add("Squeeze", node.last, writer.axis(0))
    else:
        output = writer.add("Transpose", steps, perm=[1, 0, 2])
        output = _reversed(writer, output) if config.go_backwards else output
    return [output, *ends] if config.return_state else [output]


def write_bidirectional(
    writer: "Writer", layer: Layer, config: c.Bidirectional, x: str, states: Sequence[str]
) -> list[str]:
    """Add a bidirectional layer: one operator where both directions have one cell of one kind and width."""
    forward, backward = config.forward, config.backward
    split = len(layer.weights) - len(_flat(backward))
    there, back = _directions(forward, layer.weights[:split]), _directions(backward, layer.weights[split:])
    if not _fit(there, back):
        return _as_two_layers(writer, layer, config, x, states)
    half = forward.num_states
    initial = list(zip(states[:half], states[half:], strict=True))
    steps = writer.add("Transpose", x, perm=[1, 0, 2])
    node = _operator(writer, config.name, f"{layer.path}.0", [*there, *back], steps, initial, False)
    # (T, 2, B, H) or (2, B, H) with the directions before the features.
    if forward.return_sequences:
        both, axis = writer.add("Transpose", node.steps, perm=[2, 0, 1, 3]), 2
    else:
        both, axis = writer.add("Transpose", node.last, perm=[1, 0, 2]), 1
    output = _merged(writer, config, both, axis)
    return [output, *_ends(writer, node)] if forward.return_state else [output]


def _fit(there: Sequence[_Direction], back: Sequence[_Direction]) -> bool:
    if len(there) != 1 or len(back) != 1:
        return False
    one, other = there[0].cell, back[0].cell
    return (one.kind, one.units, one.reset_after) == (other.kind, other.units, other.reset_after)


def _ends(writer: "Writer", node: _Node) -> list[str]:
    """Return the last states of both directions: h, and c of an LSTM, of the first, then of the second."""
    kinds = [one for one in (node.last, node.carry) if one]
    return [
        writer.add("Gather", one, _index(writer, direction), axis=0) for direction in (0, 1) for one in kinds
    ]


def _index(writer: "Writer", value: int) -> str:
    return writer.constant(f"index.{value}", np.array(value, np.int64))


def _merged(writer: "Writer", config: c.Bidirectional, both: str, axis: int) -> str:
    """Merge the directions, which lie on an axis right before the features."""
    if config.merge_mode == "concat":
        kept = [0] * axis
        return writer.add("Reshape", both, writer.constant(f"join.{axis}", np.array([*kept, -1], np.int64)))
    there, back = (writer.add("Gather", both, _index(writer, index), axis=axis) for index in (0, 1))
    return _of_two(writer, config, there, back)


def _of_two(writer: "Writer", config: c.Bidirectional, there: str, back: str) -> str:
    if config.merge_mode == "concat":
        return writer.add("Concat", there, back, axis=-1)
    if config.merge_mode == "mul":
        return writer.add("Mul", there, back)
    total = writer.add("Add", there, back)
    return total if config.merge_mode == "sum" else writer.add("Mul", total, writer.number(0.5))


def _as_two_layers(
    writer: "Writer", layer: Layer, config: c.Bidirectional, x: str, states: Sequence[str]
) -> list[str]:
    split = len(layer.weights) - len(_flat(config.backward))
    half = config.forward.num_states
    ways = []
    for place, one, weights, given in (
        ("forward", config.forward, layer.weights[:split], states[:half]),
        ("backward", config.backward, layer.weights[split:], states[half:]),
    ):
        ways.append(
            write_recurrent(writer, Layer(f"{layer.path}.{place}", one, tuple(weights)), one, x, given)
        )
    there, back = ways[0][0], ways[1][0]
    back = _reversed(writer, back) if config.forward.return_sequences else back
    return [_of_two(writer, config, there, back), *ways[0][1:], *ways[1][1:]]


def _reversed(writer: "Writer", x: str) -> str:
    """Turn the time axis of (B, T, H) round."""
    bounds = [
        writer.constant(f"reverse.{name}", np.array([value], np.int64))
        for name, value in (("start", -1), ("end", _LAST_INT), ("axis", 1), ("step", -1))
    ]
    return writer.add("Slice", x, *bounds)


def _flat(config: c.Recurrent) -> list[int]:
    return [index for cell in config.cells for index in range(2 + cell.use_bias)]


def _directions(config: c.Recurrent, weights: Sequence[Floats]) -> list[_Direction]:
    left, found = list(weights), []
    for cell in config.cells:
        kernel, recurrent = left.pop(0), left.pop(0)
        found.append(_Direction(cell, kernel, recurrent, left.pop(0) if cell.use_bias else None))
    return found


def _operator(
    writer: "Writer",
    name: str,
    place: str,
    directions: Sequence[_Direction],
    x: str,
    initial: Sequence[Sequence[str]],
    is_reverse: bool,
) -> _Node:
    """Add one operator.

    Args:
        writer: The graph.
        name: The layer's name, for errors.
        place: Prefix of its weights' names.
        directions: One cell, or two for both directions.
        x: (T, B, features).
        initial: For each state the names of (B, H) of each direction; none: zeros.
        is_reverse: One cell reads the sequence from its end.
    """
    cell = directions[0].cell
    weights = [
        writer.shared(f"{place}.W", lambda: _stacked_gates(cell, [one.kernel for one in directions])),
        writer.shared(f"{place}.R", lambda: _stacked_gates(cell, [one.recurrent for one in directions])),
        _bias(writer, place, directions),
    ]
    states = [_stacked(writer, names) for names in initial]
    direction = "bidirectional" if len(directions) == 2 else "reverse" if is_reverse else "forward"
    attributes = _activations(name, [one.cell for one in directions])
    reset = {"linear_before_reset": int(cell.reset_after)} if cell.kind == "gru" else {}
    outputs = [writer.fresh() for _ in range(1 + cell.num_states)]
    writer.node(
        OPERATORS[cell.kind],
        _without_trailing([x, *weights, "", *states]),
        outputs,
        hidden_size=cell.units,
        direction=direction,
        **attributes,
        **reset,
    )
    return _Node(outputs[0], outputs[1], outputs[2] if cell.kind == "lstm" else "")


def _without_trailing(inputs: list[str]) -> list[str]:
    while not inputs[-1]:
        inputs = inputs[:-1]
    return inputs


def _stacked_gates(cell: c.Cell, matrices: Sequence[Floats]) -> Floats:
    """Return the matrices of all directions as one, (directions, gates * H, in)."""
    made = [_gates(cell, one)[None] for one in matrices]
    return made[0] if len(made) == 1 else np.concatenate(made)


def _gates(cell: c.Cell, matrix: Floats) -> Floats:
    """Return a matrix (in, gates * H) as ONNX has it, (gates * H, in)."""
    blocks = np.split(matrix.T, cell.num_gates)
    return np.concatenate([blocks[index] for index in GATES[cell.kind]])


def _bias(writer: "Writer", place: str, directions: Sequence[_Direction]) -> str:
    """Return the name of the biases (directions, 2 * gates * H): of the input, then of the state."""
    if all(one.bias is None for one in directions):
        return ""
    rows = []
    for one in directions:
        width = one.cell.num_gates * one.cell.units
        bias = np.zeros((2, width), np.float32)
        if one.bias is not None:
            bias[: len(np.atleast_2d(one.bias))] = one.bias
        rows.append(np.concatenate([_gates(one.cell, row[None])[:, 0] for row in bias]))
    return writer.constant(f"{place}.B", np.stack(rows))


def _stacked(writer: "Writer", names: Sequence[str]) -> str:
    """Return the states (B, H) of the directions as one (directions, B, H)."""
    rows = [writer.add("Unsqueeze", one, writer.axis(0)) for one in names]
    return rows[0] if len(rows) == 1 else writer.add("Concat", *rows, axis=0)


def _activations(name: str, cells: Sequence[c.Cell]) -> dict[str, Sequence[str] | Sequence[float]]:
    """Return the attributes of the activations; none where they are the usual ones of the operator."""
    usual = all((one.activation, one.recurrent_activation) == ("tanh", "sigmoid") for one in cells)
    if usual or all(one.kind == "rnn" and one.activation == "tanh" for one in cells):
        return {}
    wanted = []
    for cell in cells:
        gate, candidate = cell.recurrent_activation, cell.activation
        wanted += {"lstm": [gate, candidate, candidate], "gru": [gate, candidate], "rnn": [candidate]}[
            cell.kind
        ]
    for one in wanted:
        if one not in OF_OPERATORS:
            known = ", ".join(OF_OPERATORS)
            raise Refused(
                f"layer {name!r}: activation: expected one of {known} in a recurrent layer, found {one}",
                f"ONNX's recurrent operators have no other: train the layer with one of these; or {EXPORT}, "
                "which can be served whole where the exporter keeps the loop over time",
            )
    found = [OF_OPERATORS[one] for one in wanted]
    attributes: dict[str, Sequence[str] | Sequence[float]] = {"activations": [one.name for one in found]}
    # onnxruntime hands the numbers out in order to the activations that take one.
    if alphas := [one.alpha for one in found if one.alpha is not None]:
        attributes["activation_alpha"] = alphas
    if betas := [one.beta for one in found if one.beta is not None]:
        attributes["activation_beta"] = betas
    return attributes
