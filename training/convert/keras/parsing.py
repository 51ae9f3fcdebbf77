"""Reads the configuration of a layer from config.json, and refuses layers that cannot be read, by name.

Classes are looked up in tables here; nothing that a file names is imported.
"""

import json
from typing import Any, TypeVar

from pydantic import ValidationError

from service.contract.sentences import sentences
from training.convert.foreign import Refused
from training.convert.keras import config as c

EXPORT = "export the model with model.export('model.onnx', format='onnx') and convert that file"
WITHOUT = "build the model without it, load the weights, and save it again"
CELLS = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}
_PASS = (
    "Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
    "ActivityRegularization", "Identity",
)  # fmt: skip
_PLAIN: dict[str, type[c.LayerConfig]] = {
    "Embedding": c.Embedding,
    "Masking": c.Masking,
    "Dense": c.Dense,
    "Activation": c.ActivationLayer,
    "LeakyReLU": c.LeakyReLU,
    "ReLU": c.ReLU,
    "ELU": c.ELU,
    "PReLU": c.PReLU,
    "Softmax": c.Softmax,
    "LayerNormalization": c.LayerNormalization,
    "BatchNormalization": c.BatchNormalization,
    "Rescaling": c.Rescaling,
    "Normalization": c.Normalization,
    "Conv1D": c.Conv1D,
    **dict.fromkeys(_PASS, c.Pass),
}
_MERGES = {
    "Concatenate": "concat", "Add": "add", "Multiply": "mul", "Subtract": "sub",
    "Average": "mean", "Maximum": "max", "Minimum": "min",
}  # fmt: skip
_POOLS = {"GlobalMaxPooling1D": "max", "GlobalAveragePooling1D": "mean"}
_OF_EACH_STEP = (
    c.Dense, c.Pass, c.ActivationLayer, c.LeakyReLU, c.ReLU, c.ELU, c.Softmax,
    c.LayerNormalization, c.BatchNormalization, c.Rescaling,
)  # fmt: skip
_REASONS = {
    "Lambda": (
        "holds Python code, which is never run from a file",
        "write it as layers of Keras, and save it again",
    ),
    "Flatten": (
        "makes the network depend on one number of steps",
        "pool over time or take the last step instead",
    ),
    "Reshape": (
        "makes the network depend on one number of steps",
        "pool over time or take the last step instead",
    ),
    "RepeatVector": ("makes the network depend on one number of steps", EXPORT),
    "MaxPooling1D": ("changes the number of steps by a divisor of the length", EXPORT),
    "AveragePooling1D": ("changes the number of steps by a divisor of the length", EXPORT),
    "Attention": ("looks at a second sequence or at all steps of its own", EXPORT),
    "AdditiveAttention": ("looks at a second sequence or at all steps of its own", EXPORT),
    "MultiHeadAttention": ("looks at a second sequence or at all steps of its own", EXPORT),
}


def label(name: object, class_name: object) -> str:
    """Return what errors call a layer; both texts come from the file and are cut."""
    return f"layer {str(name)[:80]!r} ({str(class_name)[:60]})"


def layer_config(raw: Any) -> c.LayerConfig:
    """Return the typed configuration of a layer.

    Args:
        raw: the layer's object in config.json, with module, class_name and config.

    Raises:
        Refused: its class cannot be read, or a field is not what it may be; names the layer and the field.
    """
    class_name, config, owner = _opened(raw)
    if class_name in _REASONS:
        reason, advice = _REASONS[class_name]
        raise Refused(f"{owner}: {reason}", advice)
    if class_name in _PLAIN:
        return validated(_PLAIN[class_name], config, owner)
    if class_name in _MERGES:
        return validated(c.Merge, {**config, "kind": _MERGES[class_name]}, owner)
    if class_name in _POOLS:
        return validated(c.GlobalPooling, {**config, "kind": _POOLS[class_name]}, owner)
    if class_name in CELLS or class_name == "RNN":
        return _recurrent(class_name, config, owner)
    if class_name == "Bidirectional":
        return _bidirectional(config, owner)
    if class_name == "TimeDistributed":
        return _time_distributed(config, owner)
    raise Refused(f"{owner}: expected a layer that can be read, found another class", EXPORT)


def _opened(raw: Any) -> tuple[str, dict[str, Any], str]:
    """Return class, configuration and label of a layer's object, and refuse classes that are not Keras's."""
    if not isinstance(raw, dict) or not isinstance(raw.get("config"), dict):
        raise Refused("config.json: expected a layer with class_name and config, found something else")
    class_name, config = str(raw.get("class_name")), raw["config"]
    owner = label(config.get("name"), class_name)
    module = raw.get("module")
    if module not in ("keras", "keras.layers", "keras.models") or raw.get("registered_name") is not None:
        raise Refused(f"{owner}: expected a layer of Keras, found a class of {str(module)[:60]}", EXPORT)
    return class_name, {**config, "class_name": class_name}, owner


PartT = TypeVar("PartT", bound=c.Part)


def validated(kind: type[PartT], config: dict[str, Any], owner: str) -> PartT:
    """Return a checked configuration, or refuse with the field, what was expected and what was found."""
    try:
        return kind.model_validate(config)
    except ValidationError as error:
        found = sentences(error, json.dumps(config, default=str), kind.model_fields)
        raise Refused(f"{owner}: {'; '.join(found)}") from error


def _cell(class_name: str, config: dict[str, Any], owner: str) -> dict[str, Any]:
    kind = CELLS.get(class_name.removesuffix("Cell"))
    if kind is None:
        raise Refused(
            f"{owner}: cell: expected LSTMCell, GRUCell or SimpleRNNCell, found {class_name[:60]}", EXPORT
        )
    return {**config, "kind": kind}


def _recurrent(class_name: str, config: dict[str, Any], owner: str) -> c.Recurrent:
    if class_name != "RNN":
        return validated(c.Recurrent, {**config, "cells": [_cell(class_name, config, owner)]}, owner)
    inner, inner_config, _ = _opened(config.get("cell"))
    if inner != "StackedRNNCells":
        return validated(c.Recurrent, {**config, "cells": [_cell(inner, inner_config, owner)]}, owner)
    parts = inner_config.get("cells")
    if not isinstance(parts, list):
        raise Refused(f"{owner}: cells: expected a list, found something else")
    cells = [_cell(*_opened(part)[:2], owner) for part in parts[:65]]
    return validated(c.Recurrent, {**config, "cells": cells, "stacked": True}, owner)


def _bidirectional(config: dict[str, Any], owner: str) -> c.Bidirectional:
    forward = _opened(config.get("layer"))
    if "backward_layer" in config:
        backward = _opened(config["backward_layer"])
    else:
        turned = {**forward[1], "go_backwards": not forward[1].get("go_backwards", False)}
        backward = (forward[0], turned, forward[2])
    for class_name, _, _ in (forward, backward):
        if class_name not in CELLS and class_name != "RNN":
            raise Refused(f"{owner}: expected a recurrent layer in it, found {class_name[:60]}", EXPORT)
    both = {"forward": _recurrent(*forward), "backward": _recurrent(*backward)}
    return validated(c.Bidirectional, {**config, **both}, owner)


def _time_distributed(config: dict[str, Any], owner: str) -> c.TimeDistributed:
    class_name, _, _ = _opened(config.get("layer"))
    inner = layer_config(config["layer"]) if class_name in _PLAIN else None
    if not isinstance(inner, _OF_EACH_STEP):
        raise Refused(
            f"{owner}: expected a Dense or another layer of single rows in it, found {class_name[:60]}",
            EXPORT,
        )
    return validated(c.TimeDistributed, {**config, "layer": inner}, owner)
