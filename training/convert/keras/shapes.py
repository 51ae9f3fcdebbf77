"""Computes what shape each layer gives, and which weights it has, from its configuration and its inputs."""

# ruff: noqa: ARG001 - the functions of one dispatch have the same arguments, whether they use them or not.

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Final, Literal

import numpy as np

from training.convert.foreign import Refused
from training.convert.keras import config as c
from training.convert.keras.parsing import EXPORT

# Keras masks this token where an Embedding has mask_zero.
SKIPPED_TOKEN: Final = 0
ALL_SKIPPED: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape of a value between layers.

    Attributes:
        kind: tokens [batch, time], rows [batch, size], steps [batch, time, size], or a mask, of any shape.
        size: of the last axis; 0 where there is none.
        along: whose time axis it has: an input's name, and that of each layer that changed its length.
        skips: Keras hands a mask on with it: steps are skipped where the input that `along` names has this
            token, or this number in all features; None: there is no mask, or all steps count in it; infinity:
            of a mask, no step counts.
    """

    kind: Literal["tokens", "rows", "steps", "mask"]
    size: int = 0
    along: str = ""
    skips: float | None = None

    @property
    def is_masked(self) -> bool:
        """Some of its steps may be skipped."""
        return self.skips is not None


@dataclass(frozen=True, slots=True)
class Weight:
    """Place of a weight below its layer's own, and its shape."""

    path: str
    shape: tuple[int, ...]


def one_of(kinds: Sequence[str], inputs: Sequence[Shape]) -> Shape:
    """Return the only input, which must be of one of the kinds."""
    if len(inputs) != 1:
        raise Refused(f"expected one input, found {len(inputs)}")
    if inputs[0].kind not in kinds:
        raise Refused(f"expected an input of {' or '.join(kinds)}, found {inputs[0].kind}")
    return inputs[0]


@singledispatch
def output_shapes(config: c.LayerConfig, inputs: Sequence[Shape]) -> list[Shape]:
    """Return the shapes of a layer's outputs; without a rule of its own a layer keeps its input's shape."""
    del config
    return [one_of(("rows", "steps"), inputs)]


@output_shapes.register
def _(config: c.Embedding, inputs: Sequence[Shape]) -> list[Shape]:
    tokens = one_of(("tokens",), inputs)
    return [Shape("steps", config.output_dim, tokens.along, SKIPPED_TOKEN if config.mask_zero else None)]


@output_shapes.register
def _(config: c.Masking, inputs: Sequence[Shape]) -> list[Shape]:
    return [replace(one_of(("steps",), inputs), skips=float(np.float32(config.mask_value)))]


@output_shapes.register
def _(config: c.Dense, inputs: Sequence[Shape]) -> list[Shape]:
    return [replace(one_of(("rows", "steps"), inputs), size=config.units)]


@output_shapes.register
def _(config: c.TimeDistributed, inputs: Sequence[Shape]) -> list[Shape]:
    return output_shapes(config.layer, [one_of(("steps",), inputs)])


@output_shapes.register
def _(config: c.GlobalPooling, inputs: Sequence[Shape]) -> list[Shape]:
    return [Shape("rows", one_of(("steps",), inputs).size)]


@output_shapes.register
def _(config: c.Softmax, inputs: Sequence[Shape]) -> list[Shape]:
    shape = one_of(("rows", "steps"), inputs)
    _last_axis("axis", config.axis, shape)
    if shape.is_masked:
        raise Refused("expected no mask before a Softmax layer, found one", EXPORT)
    return [shape]


@output_shapes.register
def _(config: c.PReLU, inputs: Sequence[Shape]) -> list[Shape]:
    shape = one_of(("rows", "steps"), inputs)
    if shape.kind == "steps" and config.shared_axes != (1,):
        raise Refused("shared_axes: expected [1], found slopes that differ from step to step", EXPORT)
    if shape.kind == "rows" and config.shared_axes:
        raise Refused(f"shared_axes: expected none, found {list(config.shared_axes)}", EXPORT)
    return [shape]


@output_shapes.register(c.LayerNormalization)
@output_shapes.register(c.BatchNormalization)
@output_shapes.register(c.Normalization)
def _(
    config: c.LayerNormalization | c.BatchNormalization | c.Normalization, inputs: Sequence[Shape]
) -> list[Shape]:
    shape = one_of(("rows", "steps"), inputs)
    _last_axis("axis", config.axis if isinstance(config.axis, int) else config.axis[0], shape)
    return [shape]


@output_shapes.register
def _(config: c.Conv1D, inputs: Sequence[Shape]) -> list[Shape]:
    shape = one_of(("steps",), inputs)
    if shape.size % config.groups:
        raise Refused(f"groups: expected a divisor of {shape.size} features, found {config.groups}")
    keeps_time = config.strides == (1,) and (config.padding != "valid" or config.reach == 0)
    along = shape.along if keeps_time else f"{shape.along}/{config.name}"
    return [Shape("steps", config.filters, along)]


@output_shapes.register
def _(config: c.Merge, inputs: Sequence[Shape]) -> list[Shape]:
    if not 2 <= len(inputs) <= 64:
        raise Refused(f"expected 2 to 64 inputs, found {len(inputs)}")
    first = inputs[0]
    for one in inputs:
        if one.kind not in ("rows", "steps") or one.kind != first.kind:
            raise Refused(
                f"expected inputs that are all rows or all steps, found {first.kind} and {one.kind}", EXPORT
            )
        if one.along != first.along:
            raise Refused(
                "expected inputs with the same steps, found two sequences of different lengths", EXPORT
            )
    skips = merged_skips(inputs)
    if config.kind == "concat":
        _last_axis("axis", config.axis, first)
        return [replace(first, size=sum(one.size for one in inputs), skips=skips)]
    if any(one.size != first.size for one in inputs):
        raise Refused(f"expected inputs of one size, found {sorted({one.size for one in inputs})}", EXPORT)
    return [replace(first, skips=skips)]


def merged_skips(inputs: Sequence[Shape]) -> float | None:
    """Return what steps are skipped where one counts that counts in any of the inputs.

    Raises:
        Refused: the inputs skip steps of different values.
    """
    found = {one.skips for one in inputs}
    if None in found:
        return None
    if len(found) > 1:
        found.discard(ALL_SKIPPED)
    if len(found) > 1:
        raise Refused("expected inputs that skip the same steps, found those of two values", EXPORT)
    return found.pop()


@output_shapes.register
def _(config: c.Recurrent, inputs: Sequence[Shape]) -> list[Shape]:
    shape = one_of(("steps",), inputs)
    if config.return_state and config.stacked:
        raise Refused("return_state: expected false with StackedRNNCells, found true", EXPORT)
    if shape.is_masked and config.go_backwards and config.return_sequences:
        raise Refused("go_backwards: expected false where steps are skipped and all are returned, found true")
    if shape.is_masked and config.zero_output_for_mask and not config.return_sequences:
        raise Refused(
            "zero_output_for_mask: expected false where the last step alone is returned, found true"
        )
    return [_sequence_or_last(config, config.units, shape), *_states(config)]


@output_shapes.register
def _(config: c.Bidirectional, inputs: Sequence[Shape]) -> list[Shape]:
    shape = one_of(("steps",), inputs)
    both = config.forward.units + config.backward.units
    size = both if config.merge_mode == "concat" else config.forward.units
    for one in (config.forward, config.backward):
        if one.return_state and one.stacked:
            raise Refused("return_state: expected false with StackedRNNCells, found true", EXPORT)
    return [
        _sequence_or_last(config.forward, size, shape),
        *_states(config.forward),
        *_states(config.backward),
    ]


def _sequence_or_last(config: c.Recurrent, size: int, shape: Shape) -> Shape:
    if not config.return_sequences:
        return Shape("rows", size)
    return replace(shape, size=size)


def _states(config: c.Recurrent) -> list[Shape]:
    if not config.return_state:
        return []
    return [Shape("rows", cell.units) for cell in config.cells for _ in range(cell.num_states)]


def _last_axis(field: str, axis: int, shape: Shape) -> None:
    last = 1 if shape.kind == "rows" else 2
    if axis not in (-1, last):
        raise Refused(f"{field}: expected the last axis, -1 or {last}, found {axis}", EXPORT)


def state_sizes(config: c.LayerConfig) -> list[int]:
    """Return the widths of the initial states that a layer can be given; empty: it takes none."""
    if isinstance(config, c.Bidirectional):
        return state_sizes(config.forward) + state_sizes(config.backward)
    if isinstance(config, c.Recurrent) and not config.stacked:
        return [cell.units for cell in config.cells for _ in range(cell.num_states)]
    return []


@singledispatch
def weights_of(config: c.LayerConfig, size: int) -> list[Weight]:
    """Return the weights of a layer whose input has rows of a size; without a rule of its own it has none."""
    del config, size
    return []


@weights_of.register
def _(config: c.Embedding, size: int) -> list[Weight]:
    return [Weight("vars/0", (config.input_dim, config.output_dim))]


@weights_of.register
def _(config: c.Dense, size: int) -> list[Weight]:
    return [Weight("vars/0", (size, config.units)), *_bias(config.use_bias, config.units)]


def _bias(use_bias: bool, size: int) -> list[Weight]:
    return [Weight("vars/1", (size,))] if use_bias else []


@weights_of.register
def _(config: c.TimeDistributed, size: int) -> list[Weight]:
    return [Weight(f"layer/{one.path}", one.shape) for one in weights_of(config.layer, size)]


@weights_of.register
def _(config: c.PReLU, size: int) -> list[Weight]:
    return [Weight("vars/0", (1, size) if config.shared_axes else (size,))]


@weights_of.register(c.LayerNormalization)
@weights_of.register(c.BatchNormalization)
def _(config: c.LayerNormalization | c.BatchNormalization, size: int) -> list[Weight]:
    trained = config.scale + config.center
    num = trained + 2 if isinstance(config, c.BatchNormalization) else trained
    return [Weight(f"vars/{index}", (size,)) for index in range(num)]


@weights_of.register
def _(config: c.Normalization, size: int) -> list[Weight]:
    return [Weight("vars/0", (size,)), Weight("vars/1", (size,))]


@weights_of.register
def _(config: c.Conv1D, size: int) -> list[Weight]:
    kernel = (config.kernel_size[0], size // config.groups, config.filters)
    return [Weight("vars/0", kernel), *_bias(config.use_bias, config.filters)]


@weights_of.register
def _(config: c.Recurrent, size: int) -> list[Weight]:
    found: list[Weight] = []
    used: dict[str, int] = {}
    for cell in config.cells:
        name = unique({"lstm": "lstm_cell", "gru": "gru_cell", "rnn": "simple_rnn_cell"}[cell.kind], used)
        place = f"cell/cells/{name}/vars" if config.stacked else "cell/vars"
        width = cell.num_gates * cell.units
        found += [Weight(f"{place}/0", (size, width)), Weight(f"{place}/1", (cell.units, width))]
        if cell.use_bias:
            bias = (2, width) if cell.kind == "gru" and cell.reset_after else (width,)
            found.append(Weight(f"{place}/2", bias))
        size = cell.units
    return found


@weights_of.register
def _(config: c.Bidirectional, size: int) -> list[Weight]:
    return [
        Weight(f"{place}/{one.path}", one.shape)
        for place, layer in (("forward_layer", config.forward), ("backward_layer", config.backward))
        for one in weights_of(layer, size)
    ]


def unique(name: str, used: dict[str, int]) -> str:
    """Return a name as Keras numbers those of one kind: lstm, lstm_1, lstm_2; `used` counts them."""
    used[name] = used.get(name, -1) + 1
    return f"{name}_{used[name]}" if used[name] else name
