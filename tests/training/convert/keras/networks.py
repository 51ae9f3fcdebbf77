"""Random networks of Keras: a plan says what one is, and the model of a plan follows from the plan alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.training.convert.keras.models import FEATURES, VOCABULARY, randomize

MASK_VALUE = -0.4
BETWEEN = ("none", "dense", "norm", "batch", "dropout", "activation", "conv", "distributed")
_KEEPING = tuple(one for one in BETWEEN if one != "conv")
ENDS = ("last", "last", "all", "all", "max", "mean")


@dataclass(frozen=True)
class Plan:
    """A network.

    Attributes:
        seed: of its weights.
        given: rows, tokens, masking (rows behind that layer) or mask_zero (tokens behind that Embedding).
        is_functional: built as a Functional model, else as a Sequential.
        recurrent: class, options and merge mode (None: one direction) of its recurrent layers.
        between: what stands before each of them.
        end: all steps, the last one, or a pooling over all.
        joins: each layer's input is joined to its output, in a Functional.
        head: activation of the last Dense layer; "": there is none.
    """

    seed: int
    given: str
    is_functional: bool
    recurrent: tuple[tuple[str, dict[str, Any], str | None], ...]
    between: tuple[str, ...]
    end: str
    joins: bool
    head: str

    @property
    def is_masked(self) -> bool:
        """Some steps are skipped."""
        return self.given in ("masking", "mask_zero")


def random_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    rng = np.random.default_rng(seed)
    layers = tuple(_recurrent(rng) for _ in range(rng.integers(1, 4)))
    given = str(rng.choice(["rows", "tokens", "masking", "masking", "mask_zero", "mask_zero"]))
    # A convolution drops the mask, so that most networks that have one are refused.
    kinds = BETWEEN if given in ("rows", "tokens") or rng.random() < 0.1 else _KEEPING
    return Plan(
        seed,
        given,
        bool(rng.random() < 0.5),
        layers,
        tuple(str(rng.choice(kinds)) for _ in layers),
        str(rng.choice(ENDS)),
        bool(rng.random() < 0.3),
        str(rng.choice(["linear", "softmax", "gelu", ""])),
    )


def _recurrent(rng: np.random.Generator) -> tuple[str, dict[str, Any], str | None]:
    kind = str(rng.choice(["LSTM", "GRU", "SimpleRNN"]))
    options: dict[str, Any] = {
        "units": int(rng.integers(1, 7)),
        "activation": str(rng.choice(["tanh", "tanh", "softsign", "sigmoid", "elu"])),
        "use_bias": bool(rng.random() < 0.8),
    }
    if kind != "SimpleRNN":
        options["recurrent_activation"] = str(rng.choice(["sigmoid", "hard_sigmoid"]))
    if kind == "GRU":
        options["reset_after"] = bool(rng.random() < 0.5)
    merge = str(rng.choice(["concat", "sum", "mul", "ave"])) if rng.random() < 0.2 else None
    if merge is None:
        options["go_backwards"] = bool(rng.random() < 0.08)
        options["zero_output_for_mask"] = bool(rng.random() < 0.1)
    return kind, options, merge


def build(plan: Plan, keras: Any) -> Any:
    """Return the model of a plan, with random weights."""
    layers = keras.layers
    given = keras.Input((None,) if plan.given in ("tokens", "mask_zero") else (None, FEATURES))
    model = keras.Sequential([given])

    def add(layer: Any, x: Any) -> Any:
        if plan.is_functional:
            return layer(x)
        model.add(layer)
        return x

    x = given
    if plan.given in ("tokens", "mask_zero"):
        x = add(layers.Embedding(VOCABULARY, 4, mask_zero=plan.is_masked), x)
    elif plan.is_masked:
        x = add(layers.Masking(mask_value=MASK_VALUE), x)
    for index, (kind, options, merge) in enumerate(plan.recurrent):
        for layer in between(plan.between[index], layers):
            x = add(layer, x)
        is_last = index == len(plan.recurrent) - 1 and plan.end == "last"
        made = getattr(layers, kind)(**options, return_sequences=not is_last)
        y = add(made if merge is None else layers.Bidirectional(made, merge_mode=merge), x)
        x = layers.Concatenate()([x, y]) if plan.joins and plan.is_functional and not is_last else y
    if plan.end in ("max", "mean"):
        x = add(layers.GlobalMaxPooling1D() if plan.end == "max" else layers.GlobalAveragePooling1D(), x)
    if plan.head:
        x = add(layers.Dense(3, activation=plan.head), x)
    return randomize(keras.Model(given, x) if plan.is_functional else model, plan.seed)


def between(name: str, layers: Any) -> list[Any]:
    """Return layers that may stand between recurrent ones."""
    made: list[Any] = {
        "none": lambda: [layers.Identity()],
        "dense": lambda: [layers.Dense(3, activation="elu")],
        "norm": lambda: [layers.LayerNormalization()],
        "batch": lambda: [layers.BatchNormalization()],
        "dropout": lambda: [layers.SpatialDropout1D(0.3), layers.Dropout(0.3)],
        "activation": lambda: [layers.LeakyReLU()],
        "conv": lambda: [layers.Conv1D(4, 3, padding="causal", dilation_rate=2)],
        "distributed": lambda: [layers.TimeDistributed(layers.Dense(4, activation="silu"))],
    }[name]()
    return made
