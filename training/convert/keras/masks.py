"""Follows the masks of skipped steps through a model: those that layers make, and operations of Functionals.

Keras records the operations by which it computes masks in a Functional model, and gives their results to
layers by name. Each is followed here as what it skips, so that a mask of another kind is refused.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from training.convert.foreign import Refused
from training.convert.keras import config as c
from training.convert.keras.nodes import MASK_OPERATIONS
from training.convert.keras.parsing import EXPORT, WITHOUT
from training.convert.keras.shapes import ALL_SKIPPED, SKIPPED_TOKEN, Shape, merged_skips

_PLACE: Final = (
    "behind an input, with nothing but layers such as Dropout between, found another layer before it"
)
_ADVICE: Final = f"put it first in the model; or {WITHOUT}, and leave out the steps that it would skip"
# Axes of features of (B, T, F), as Keras writes them.
_FEATURE_AXES: Final = (-1, 2, [-1], [2])


def check_mask(mask: Shape, given: Shape) -> None:
    """Refuse a mask that a layer is given by name, and that is not that of its input."""
    if _skipped(mask) != _skipped(given):
        raise Refused("mask: expected that of the Embedding or Masking before it, found another one", EXPORT)


def check_place(config: c.LayerConfig, is_given: bool) -> None:
    """Refuse a Masking layer whose input is computed: the steps that it skips must be seen in the input."""
    if isinstance(config, c.Masking) and not is_given:
        raise Refused(f"expected it {_PLACE}", _ADVICE)


def mask_of_operation(
    raw: dict[str, Any], shapes: Sequence[Shape], constants: Sequence[float], is_given: bool, owner: str
) -> Shape:
    """Return the mask that an operation on tensors computes.

    Args:
        raw: the operation's object in config.json.
        shapes: of its inputs.
        constants: plain numbers among its arguments.
        is_given: its input is an input of the network.
        owner: what errors call it.

    Raises:
        Refused: it is no operation on masks, or computes none that Keras itself would.
    """
    if raw.get("class_name") not in MASK_OPERATIONS:
        raise Refused(f"{owner}: expected a layer, found an operation on tensors", EXPORT)
    match str(raw.get("class_name")), len(shapes):
        case "NotEqual", 1 if len(constants) == 1:
            if shapes[0].kind == "tokens" and constants[0] == SKIPPED_TOKEN:
                return Shape("mask", 0, shapes[0].along, SKIPPED_TOKEN)
            if shapes[0].kind == "steps" and not is_given:
                raise Refused(f"{owner}: expected a Masking layer {_PLACE}", _ADVICE)
            if shapes[0].kind == "steps" and abs(constants[0]) <= c.LARGEST:
                return Shape("mask", 0, shapes[0].along, float(np.float32(constants[0])))
        case "ZerosLike", 1:
            return Shape("mask", 0, shapes[0].along, ALL_SKIPPED)
        case "OnesLike", 1:
            return Shape("mask", 0, shapes[0].along)
        case "Any", 1 if raw["config"].get("axis") in _FEATURE_AXES and shapes[0].kind == "mask":
            return shapes[0]
        case "LogicalOr" | "ExpandDims" | "Concatenate", _ if {one.kind for one in shapes} == {"mask"}:
            if len({one.along for one in shapes}) == 1:
                return Shape("mask", 0, shapes[0].along, merged_skips(shapes))
    raise Refused(f"{owner}: expected the mask of token 0 or of a Masking layer, found another one", EXPORT)


def _skipped(shape: Shape) -> tuple[str, float] | None:
    """Return the input and the value of the steps that are skipped, or None if all count."""
    return None if shape.skips is None else (shape.along, shape.skips)
