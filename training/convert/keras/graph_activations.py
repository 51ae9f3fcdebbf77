"""Writes Keras's activations as ONNX nodes, and names those that the recurrent operators have themselves."""

import math
from typing import TYPE_CHECKING, NamedTuple

from training.convert.keras.config import ActivationName

if TYPE_CHECKING:
    from training.convert.keras.graph import Writer

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


class OfOperator(NamedTuple):
    """An activation of ONNX's recurrent operators."""

    name: str
    alpha: float | None = None
    beta: float | None = None


# onnxruntime's defaults for alpha and beta differ from Keras's, so that each is written.
OF_OPERATORS: dict[ActivationName, OfOperator] = {
    "linear": OfOperator("Affine", 1.0, 0.0),
    "relu": OfOperator("Relu"),
    "leaky_relu": OfOperator("LeakyRelu", 0.2),
    "elu": OfOperator("Elu", 1.0),
    "celu": OfOperator("Elu", 1.0),
    "tanh": OfOperator("Tanh"),
    "sigmoid": OfOperator("Sigmoid"),
    "hard_sigmoid": OfOperator("HardSigmoid", 1 / 6, 0.5),
    "softplus": OfOperator("Softplus"),
    "softsign": OfOperator("Softsign"),
}
_OPERATORS: dict[ActivationName, tuple[str, dict[str, float]]] = {
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
    "elu": ("Elu", {"alpha": 1.0}),
    "celu": ("Elu", {"alpha": 1.0}),
    "selu": ("Selu", {"alpha": SELU_ALPHA, "gamma": SELU_SCALE}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "softmax": ("Softmax", {"axis": -1}),
    "softplus": ("Softplus", {}),
    "softsign": ("Softsign", {}),
    "exponential": ("Exp", {}),
}


def write_activation(writer: "Writer", name: ActivationName, x: str) -> str:
    """Add the nodes of an activation, and return the name of its output."""
    if name == "linear":
        return x
    if name in _OPERATORS:
        operator, attributes = _OPERATORS[name]
        return writer.add(operator, x, **attributes)
    if name == "relu6":
        return writer.add("Clip", x, writer.number(0.0), writer.number(6.0))
    if name == "hard_tanh":
        return writer.add("Clip", x, writer.number(-1.0), writer.number(1.0))
    return writer.add("Mul", x, _factor(writer, name, x))


def _factor(writer: "Writer", name: ActivationName, x: str) -> str:
    """Write what x is multiplied with in silu, hard_silu, mish and gelu."""
    if name == "silu":
        return writer.add("Sigmoid", x)
    if name == "hard_silu":
        return writer.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    if name == "mish":
        return writer.add("Tanh", writer.add("Softplus", x))
    error = writer.add("Erf", writer.add("Mul", x, writer.number(1 / math.sqrt(2))))
    return writer.add("Mul", writer.add("Add", error, writer.number(1.0)), writer.number(0.5))
