"""Declares the layers that can be read, with the fields of their configuration that change what they compute.

Fields about training (initializers, regularizers, constraints, dropout rates, seeds) are ignored.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Size = Annotated[int, Field(ge=1, le=1 << 24, strict=True)]
Number = Annotated[float, Field(allow_inf_nan=False)]
# The largest number of 32 bits.
LARGEST = 3.4028234663852886e38
ActivationName = Literal[
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "tanh", "sigmoid", "hard_sigmoid",
    "softmax", "softplus", "softsign", "exponential", "silu", "hard_silu", "gelu", "mish", "hard_tanh",
]  # fmt: skip


class Part(BaseModel):
    """A part of config.json; fields that are not named here do not matter."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _activation(value: object) -> object:
    """Return the name of an activation: Keras writes none as linear, and swish under its newer name."""
    if isinstance(value, dict):
        found = str(value.get("class_name"))[:60]
        raise ValueError(f"expected the name of an activation, found an object of {found}")  # noqa: TRY004
    return {"swish": "silu", None: "linear"}.get(value, value) if isinstance(value, str | None) else value


Activation = Annotated[ActivationName, BeforeValidator(_activation)]


def _policy(value: object) -> object:
    """Return the name of a policy, which Keras writes as an object."""
    inner = value.get("config") if isinstance(value, dict) else None
    return inner.get("name") if isinstance(inner, dict) else "float32" if value is None else value


Policy = Annotated[Literal["float32", "mixed_float16", "mixed_bfloat16"], BeforeValidator(_policy)]


class LayerConfig(Part):
    """What all layers have."""

    # The layer's answer at one step depends on other steps.
    mixes_steps: ClassVar[bool] = False
    name: Annotated[str, Field(min_length=1, max_length=200)]
    class_name: str
    dtype: Policy = "float32"


class Input(Part):
    """An input: [batch, time], [batch, size] or [batch, time, features]; None is any size."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    batch_shape: Annotated[tuple[Size | None, ...], Field(min_length=2, max_length=3)]
    sparse: Literal[False] = False
    ragged: Literal[False] = False


class Embedding(LayerConfig):
    """Rows of a table by token id."""

    input_dim: Size
    output_dim: Size
    mask_zero: bool = False


class Masking(LayerConfig):
    """Zeros for each step whose features all equal a value; later layers skip it."""

    mask_value: Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)] = 0.0


class Dense(LayerConfig):
    """A product with a matrix, over the last axis."""

    units: Size
    activation: Activation = "linear"
    use_bias: bool = True


class Pass(LayerConfig):
    """A layer that does nothing once the network is trained, such as Dropout."""


class ActivationLayer(LayerConfig):
    """An activation by name."""

    activation: Activation


class LeakyReLU(LayerConfig):
    """x, or negative_slope * x below 0."""

    negative_slope: Number = 0.3


class ReLU(LayerConfig):
    """x between 0 and max_value, negative_slope * x below 0."""

    max_value: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    negative_slope: Number = 0.0
    threshold: Annotated[float, Field(ge=0, le=0)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _no_slope(cls, raw: Any) -> Any:
        return (
            {name: value for name, value in raw.items() if value is not None}
            if isinstance(raw, dict)
            else raw
        )


class ELU(LayerConfig):
    """x, or alpha * (exp(x) - 1) below 0."""

    alpha: Number = 1.0


class PReLU(LayerConfig):
    """x, or a trained slope times x below 0, the same at all steps."""

    shared_axes: tuple[int, ...] | None = None


class Softmax(LayerConfig):
    """Softmax over the last axis."""

    axis: int = -1


class LayerNormalization(LayerConfig):
    """Normalization of each row over its features."""

    axis: Annotated[
        tuple[int], BeforeValidator(lambda value: [value] if isinstance(value, int) else value)
    ] = (-1,)
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-3
    center: bool = True
    scale: bool = True
    rms_scaling: Literal[False] = False


class BatchNormalization(LayerConfig):
    """Normalization of each feature with the averages of the training."""

    axis: int = -1
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-3
    center: bool = True
    scale: bool = True


class Rescaling(LayerConfig):
    """x * scale + offset."""

    scale: Number
    offset: Number = 0.0


class Normalization(LayerConfig):
    """(x - mean) / standard deviation, of the data that it was adapted to."""

    axis: Annotated[
        tuple[int], BeforeValidator(lambda value: [value] if isinstance(value, int) else value)
    ] = (-1,)
    invert: Literal[False] = False
    mean: None = None
    variance: None = None


class Conv1D(LayerConfig):
    """A convolution over time."""

    mixes_steps: ClassVar[bool] = True
    filters: Size
    kernel_size: tuple[Size]
    strides: tuple[Size] = (1,)
    padding: Literal["valid", "same", "causal"] = "valid"
    data_format: Literal["channels_last"] = "channels_last"
    dilation_rate: tuple[Size] = (1,)
    groups: Size = 1
    activation: Activation = "linear"
    use_bias: bool = True

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.filters % self.groups:
            raise ValueError(f"groups: expected a divisor of {self.filters} filters, found {self.groups}")
        if self.padding == "same" and self.strides != (1,):
            raise ValueError(f"strides: expected 1 with padding same, found {self.strides[0]}")
        return self

    @property
    def reach(self) -> int:
        """Steps before the last one that an output depends on."""
        return self.dilation_rate[0] * (self.kernel_size[0] - 1)


class GlobalPooling(LayerConfig):
    """The largest value, or the mean, over all steps."""

    mixes_steps: ClassVar[bool] = True
    kind: Literal["max", "mean"]
    data_format: Literal["channels_last"] = "channels_last"
    keepdims: Literal[False] = False


class Merge(LayerConfig):
    """Several inputs as one: joined along the features, or element by element."""

    kind: Literal["concat", "add", "mul", "sub", "mean", "max", "min"]
    axis: int = -1


class Cell(Part):
    """One recurrent cell."""

    kind: Literal["lstm", "gru", "rnn"]
    units: Size
    activation: Activation = "tanh"
    recurrent_activation: Activation = "sigmoid"
    use_bias: bool = True
    reset_after: bool = True

    @property
    def num_gates(self) -> int:
        """Blocks of its matrices."""
        return {"lstm": 4, "gru": 3, "rnn": 1}[self.kind]

    @property
    def num_states(self) -> int:
        """State tensors: h, and c for an LSTM."""
        return 2 if self.kind == "lstm" else 1


class Recurrent(LayerConfig):
    """LSTM, GRU, SimpleRNN, or RNN over one or several cells, which run one behind the other."""

    mixes_steps: ClassVar[bool] = True
    cells: Annotated[tuple[Cell, ...], Field(min_length=1, max_length=64)]
    stacked: bool = False
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    zero_output_for_mask: bool = False

    @property
    def units(self) -> int:
        """Width of its output."""
        return self.cells[-1].units

    @property
    def num_states(self) -> int:
        """State tensors of all cells."""
        return sum(cell.num_states for cell in self.cells)


class Bidirectional(LayerConfig):
    """The same sequence read in both directions."""

    mixes_steps: ClassVar[bool] = True
    merge_mode: Literal["concat", "sum", "mul", "ave"]
    forward: Recurrent
    backward: Recurrent

    @model_validator(mode="after")
    def _agree(self) -> Self:
        forward, backward = self.forward, self.backward
        for one, expected in ((forward, False), (backward, True)):
            if one.go_backwards != expected:
                raise ValueError(f"go_backwards of {one.name}: expected {expected}, found {one.go_backwards}")
        if forward.return_sequences != backward.return_sequences:
            raise ValueError("return_sequences: expected the same in both directions, found both values")
        if forward.return_state != backward.return_state:
            raise ValueError("return_state: expected the same in both directions, found both values")
        if self.merge_mode != "concat" and forward.units != backward.units:
            raise ValueError(
                f"units: expected the same in both directions, found {forward.units} and {backward.units}"
            )
        return self


class TimeDistributed(LayerConfig):
    """A layer that is applied to each step."""

    layer: LayerConfig
