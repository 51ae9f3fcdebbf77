"""Computes recurrent layers in numpy, step by step, as Keras's cells do. Arrays are batch first."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.convert.keras import config as c
from training.convert.keras.reference_activations import activate

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_] | None


def run_recurrent(
    config: c.Recurrent, weights: Sequence[Floats], x: Floats, mask: Mask, initial: Sequence[Floats]
) -> list[Floats]:
    """Run a recurrent layer.

    Args:
        config: The layer.
        weights: Kernel, recurrent kernel and bias, if it has one, of each cell.
        x: (B, T, features).
        mask: (B, T), false where a step is skipped: state and output stay as they are.
        initial: (B, units) for each state, or none for zeros.

    Returns:
        The output (B, T, units) in the order in which the steps were read, or (B, units) of the last one;
        then the states, where the layer returns them.
    """
    batch, num_steps = x.shape[:2]
    cells = _with_weights(config, weights)
    state = list(initial) or [
        np.zeros((batch, cell.units), np.float32) for cell in config.cells for _ in range(cell.num_states)
    ]
    output, outputs = np.zeros((batch, config.units), np.float32), []
    order = range(num_steps - 1, -1, -1) if config.go_backwards else range(num_steps)
    for step in order:
        made, new_state = _run_cells(cells, x[:, step], state)
        if mask is not None:
            counts = mask[:, step, None]
            made = np.where(counts, made, 0 if config.zero_output_for_mask else output)
            new_state = [np.where(counts, new, old) for new, old in zip(new_state, state, strict=True)]
        output, state = made, new_state
        outputs.append(output)
    first = np.stack(outputs, 1) if config.return_sequences else output
    return [first, *state] if config.return_state else [first]


def run_bidirectional(
    config: c.Bidirectional, weights: Sequence[Floats], x: Floats, mask: Mask, initial: Sequence[Floats]
) -> list[Floats]:
    """Run both directions and merge them; arguments and results are those of `run_recurrent`."""
    split = len(_flat_shapes(config.forward))
    half = config.forward.num_states if initial else 0
    returns_steps = config.forward.return_sequences
    # Bidirectional overrules the layers' own setting: skipped steps become zeros where all are returned.
    zeros = {"zero_output_for_mask": returns_steps}
    forward = run_recurrent(config.forward.model_copy(update=zeros), weights[:split], x, mask, initial[:half])
    backward = run_recurrent(
        config.backward.model_copy(update=zeros), weights[split:], x, mask, initial[half:]
    )
    there, back = forward[0], backward[0][:, ::-1] if returns_steps else backward[0]
    merged = _merged(config.merge_mode, there, back)
    return [merged, *forward[1:], *backward[1:]]


def _merged(mode: str, there: Floats, back: Floats) -> Floats:
    if mode == "concat":
        return np.concatenate([there, back], -1)
    if mode == "mul":
        return there * back
    return there + back if mode == "sum" else (there + back) / np.float32(2)


def _flat_shapes(config: c.Recurrent) -> list[int]:
    return [index for cell in config.cells for index in range(2 + cell.use_bias)]


CellWeights = tuple[Floats, Floats, Floats | None]


def _with_weights(config: c.Recurrent, weights: Sequence[Floats]) -> list[tuple[c.Cell, CellWeights]]:
    left, found = list(weights), []
    for cell in config.cells:
        kernel, recurrent = left.pop(0), left.pop(0)
        found.append((cell, (kernel, recurrent, left.pop(0) if cell.use_bias else None)))
    return found


def _run_cells(
    cells: Sequence[tuple[c.Cell, CellWeights]], x: Floats, state: Sequence[Floats]
) -> tuple[Floats, list[Floats]]:
    """Run one step through all cells, and return the output with the next states."""
    after: list[Floats] = []
    for cell, weights in cells:
        before = state[len(after) : len(after) + cell.num_states]
        run = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}[cell.kind]
        new = run(cell, weights, x, before)
        after += new
        x = new[0]
    return x, after


def _rnn(cell: c.Cell, weights: CellWeights, x: Floats, state: Sequence[Floats]) -> list[Floats]:
    kernel, recurrent, bias = weights
    total = x @ kernel + state[0] @ recurrent
    return [activate(cell.activation, total if bias is None else total + bias)]


def _lstm(cell: c.Cell, weights: CellWeights, x: Floats, state: Sequence[Floats]) -> list[Floats]:
    kernel, recurrent, bias = weights
    h, carry = state
    total = x @ kernel + h @ recurrent
    gates = np.split(total if bias is None else total + bias, 4, -1)
    i, f, o = (activate(cell.recurrent_activation, gates[index]) for index in (0, 1, 3))
    carry = f * carry + i * activate(cell.activation, gates[2])
    return [o * activate(cell.activation, carry), carry]


def _gru(cell: c.Cell, weights: CellWeights, x: Floats, state: Sequence[Floats]) -> list[Floats]:
    kernel, recurrent, bias = weights
    h, units = state[0], cell.units
    given = x @ kernel
    if bias is not None:
        given = given + (bias[0] if cell.reset_after else bias)
    past = h @ recurrent[:, : 2 * units]
    if bias is not None and cell.reset_after:
        past = past + bias[1, : 2 * units]
    gates = activate(cell.recurrent_activation, (given[:, : 2 * units] + past).reshape(len(x), 2, units))
    z, r = gates[:, 0], gates[:, 1]
    if cell.reset_after:
        candidate = h @ recurrent[:, 2 * units :]
        candidate = r * (candidate if bias is None else candidate + bias[1, 2 * units :])
    else:
        candidate = (r * h) @ recurrent[:, 2 * units :]
    return [z * h + (1 - z) * activate(cell.activation, given[:, 2 * units :] + candidate)]
