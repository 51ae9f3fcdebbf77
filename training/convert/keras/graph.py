"""Writes a network as an ONNX graph in which batch and time are free. Values are batch first.

Recurrent layers read every step: whoever runs a network that skips steps has its recurrent operators leave
them out. Everything else that Keras does with a mask is written: zeros that a layer gives for a skipped step,
and the mean of the others.
"""

# ruff: noqa: ARG001 - the functions of one dispatch have the same arguments, whether they use them or not.

from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from training.convert.graph.weights import put_outside
from training.convert.keras import config as c
from training.convert.keras.graph_activations import write_activation
from training.convert.keras.graph_recurrent import write_bidirectional, write_recurrent
from training.convert.keras.network import Call, Layer, Network
from training.convert.keras.shapes import Shape
from training.export.graph_builder import IR_VERSION, OPSET, GraphBuilder, float_tensor

# The checker copies the whole model several times.
_MAX_CHECKED_BYTES = 64 << 20


def graph_of(
    network: Network, inputs: Mapping[str, str], outputs: Sequence[str], folder: Path | None = None
) -> onnx.ModelProto:
    """Return the graph of a network.

    Args:
        network: The network.
        inputs: Name of the graph's input for each value that is given.
        outputs: Names of the graph's outputs.
        folder: Folder of the file that large weights are written into; None: the graph holds them.
    """
    writer = Writer(folder)
    names = dict(inputs)
    for call in network.calls:
        given = [names[one] for one in call.inputs]
        states = [names[one] for one in call.states]
        makes_mask = isinstance(call.layer.config, c.Masking)
        shape = network.shapes[call.outputs[0] if makes_mask else call.inputs[0]]
        counts = "" if shape.skips is None else _counts(writer, network, shape.along, shape.skips, inputs)
        names.update(zip(call.outputs, _written(writer, call, given, states, counts), strict=True))
    for value, name in zip(network.outputs, outputs, strict=True):
        writer.node("Identity", [names[value]], [name])
    return writer.model(
        "keras",
        [_given(names[value], network.shapes[value]) for value, _ in network.inputs],
        [
            _asked_for(name, network.shapes[value])
            for value, name in zip(network.outputs, outputs, strict=True)
        ],
    )


def _given(name: str, shape: Shape) -> onnx.ValueInfoProto:
    if shape.kind == "tokens":
        return helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", _time(name)])
    return _asked_for(name, shape)


def _asked_for(name: str, shape: Shape) -> onnx.ValueInfoProto:
    return float_tensor(name, "batch", *([] if shape.kind == "rows" else [_time(name)]), shape.size)


def _time(name: str) -> str:
    """Return the name of a time axis: onnxruntime takes axes of one name to be of one size."""
    return "time" if name in ("input", "output") else f"{name}.time"


class Writer(GraphBuilder):
    """A graph builder that names values and shares the weights of a layer between its calls.

    Weights are written into the model, or its file, at once: a list of them would be copied when the model is
    made.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self._folder = folder
        self._is_parted = False
        self.masks: dict[tuple[str, float], str] = {}
        self._num_values = 0
        self._shared: set[str] = set()
        self._made = onnx.ModelProto(ir_version=IR_VERSION, producer_name="seqserve")
        self._size_bytes = 0

    def fresh(self) -> str:
        """Return a name for one more value."""
        self._num_values += 1
        return f"value.{self._num_values}"

    def add(self, operator: str, *inputs: str, **attributes: float | str | Sequence[float]) -> str:
        """Add a node with one output, and return its name."""
        return self.node(operator, list(inputs), [self.fresh()], **attributes)

    def shared(self, name: str, make: Callable[[], NDArray[np.generic]]) -> str:
        """Return the name of an initialiser, which is made and added at its first use."""
        if name not in self._shared:
            self._shared.add(name)
            tensor = self._made.graph.initializer.add(name=name)
            value = make()
            tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
            tensor.dims.extend(value.shape)
            if self._folder is not None and put_outside(tensor, value, self._folder):
                self._is_parted = True
            else:
                data = value.tobytes()
                del value  # before the tensor copies the bytes: of a large weight each copy counts
                tensor.raw_data = data
                self._size_bytes += len(data)
        return name

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Add an initialiser, and return its name."""
        return self.shared(name, lambda: value)

    def axis(self, axis: int) -> str:
        """Return the axis as an input of Squeeze and Unsqueeze, shared by all of them."""
        return self.constant(f"axis.{axis}", np.array([axis], np.int64))

    def model(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """Return the model of all nodes; it is checked if it holds few weights, and all of them."""
        made = self._made
        made.opset_import.append(helper.make_opsetid("", OPSET))
        made.graph.name = name
        made.graph.node.extend(self.nodes)
        made.graph.input.extend(inputs)
        made.graph.output.extend(outputs)
        if self._size_bytes <= _MAX_CHECKED_BYTES and not self._is_parted:
            onnx.checker.check_model(made, full_check=True)
        return made

    def number(self, value: float) -> str:
        """Return the name of a float32 number."""
        return self.constant(f"number.{value:.9g}", np.array(value, np.float32))


def _counts(writer: Writer, network: Network, along: str, skips: float, inputs: Mapping[str, str]) -> str:
    """Return the mask of an input, bool (B, T, 1): true where a step counts."""
    value = f"input:{along}"
    if (along, skips) not in writer.masks:
        make = _counting_tokens if network.shapes[value].kind == "tokens" else _counting_rows
        writer.masks[along, skips] = make(writer, inputs[value], skips)
    return writer.masks[along, skips]


def _counting_tokens(writer: Writer, tokens: str, skips: float) -> str:
    skipped = writer.add("Equal", tokens, writer.constant("skipped", np.array(skips, np.int64)))
    return writer.add("Unsqueeze", writer.add("Not", skipped), writer.axis(2))


def _counting_rows(writer: Writer, rows: str, skips: float) -> str:
    """Return which rows have a feature that differs from a number."""
    differs = writer.add("Not", writer.add("Equal", rows, writer.number(skips)))
    total = writer.add(
        "ReduceSum", writer.add("Cast", differs, to=TensorProto.FLOAT), writer.axis(2), keepdims=1
    )
    return writer.add("Greater", total, writer.number(0.0))


def _written(
    writer: Writer, call: Call, inputs: Sequence[str], states: Sequence[str], counts: str
) -> list[str]:
    """Add a call; `counts` is the mask that its input has, or a Masking layer makes, empty for none."""
    config = call.layer.config
    if isinstance(config, c.Bidirectional):
        outputs = write_bidirectional(writer, call.layer, config, inputs[0], states)
        gives_zeros = config.forward.return_sequences
    elif isinstance(config, c.Recurrent):
        outputs = write_recurrent(writer, call.layer, config, inputs[0], states)
        gives_zeros = config.return_sequences and config.zero_output_for_mask
    elif isinstance(config, c.GlobalPooling) and config.kind == "mean" and counts:
        return [_mean_of_counting(writer, inputs[0], counts)]
    elif isinstance(config, c.Masking):
        return [writer.add("Where", counts, inputs[0], writer.number(0.0))]
    else:
        return [write(config, writer, call.layer, inputs)]
    if counts and gives_zeros:
        outputs[0] = writer.add("Where", counts, outputs[0], writer.number(0.0))
    return outputs


def _mean_of_counting(writer: Writer, x: str, counts: str) -> str:
    kept = writer.add("Where", counts, x, writer.number(0.0))
    total = writer.add("ReduceSum", kept, writer.axis(1), keepdims=0)
    number = writer.add("Cast", counts, to=TensorProto.FLOAT)
    return writer.add("Div", total, writer.add("ReduceSum", number, writer.axis(1), keepdims=0))


def _weight(writer: Writer, layer: Layer, index: int) -> str:
    return writer.constant(f"{layer.path}.{index}", layer.weights[index])


@singledispatch
def write(config: c.LayerConfig, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    """Add the nodes of a layer that is not recurrent, and return the name of its output."""
    raise NotImplementedError(type(config).__name__)


@write.register
def _(config: c.Pass, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    return inputs[0]


@write.register
def _(config: c.Embedding, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    return writer.add("Gather", _weight(writer, layer, 0), inputs[0], axis=0)


@write.register
def _(config: c.Dense, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    made = writer.add("MatMul", inputs[0], _weight(writer, layer, 0))
    if config.use_bias:
        made = writer.add("Add", made, _weight(writer, layer, 1))
    return write_activation(writer, config.activation, made)


@write.register
def _(config: c.TimeDistributed, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    return write(config.layer, writer, layer, inputs)


@write.register
def _(config: c.ActivationLayer, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    return write_activation(writer, config.activation, inputs[0])


@write.register
def _(config: c.LeakyReLU, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    return writer.add("LeakyRelu", inputs[0], alpha=float(config.negative_slope))


@write.register
def _(config: c.ReLU, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    if config.negative_slope:
        made = writer.add("LeakyRelu", inputs[0], alpha=float(config.negative_slope))
    else:
        made = writer.add("Relu", inputs[0])
    return made if config.max_value is None else writer.add("Min", made, writer.number(config.max_value))


@write.register
def _(config: c.ELU, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    return writer.add("Elu", inputs[0], alpha=float(config.alpha))


@write.register
def _(config: c.PReLU, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    return writer.add("PRelu", inputs[0], _weight(writer, layer, 0))


@write.register
def _(config: c.Softmax, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    return writer.add("Softmax", inputs[0], axis=-1)


@write.register
def _(config: c.LayerNormalization, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    place = layer.path
    if config.scale:
        given = [_weight(writer, layer, 0)]
    else:
        size = layer.weights[0].shape if layer.weights else None
        if size is None:
            return _plain_normalization(writer, inputs[0], config.epsilon)
        given = [writer.constant(f"{place}.ones", np.ones(size, np.float32))]
    if config.center:
        given.append(_weight(writer, layer, int(config.scale)))
    return writer.add("LayerNormalization", inputs[0], *given, axis=-1, epsilon=float(config.epsilon))


def _plain_normalization(writer: Writer, x: str, epsilon: float) -> str:
    """Write the normalization without weights, whose size the operator would need."""
    centred = writer.add("Sub", x, writer.add("ReduceMean", x, axes=[-1], keepdims=1))
    variance = writer.add("ReduceMean", writer.add("Mul", centred, centred), axes=[-1], keepdims=1)
    deviation = writer.add("Sqrt", writer.add("Add", variance, writer.number(epsilon)))
    return writer.add("Div", centred, deviation)


@write.register
def _(config: c.BatchNormalization, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    mean, variance = (one.astype(np.float64) for one in layer.weights[-2:])
    scale = 1 / np.sqrt(variance + config.epsilon) * (layer.weights[0] if config.scale else 1)
    shift = (layer.weights[int(config.scale)] if config.center else 0) - mean * scale
    return _scaled(writer, layer, inputs[0], scale, shift)


@write.register
def _(config: c.Rescaling, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    scaled = writer.add("Mul", inputs[0], writer.number(config.scale))
    return writer.add("Add", scaled, writer.number(config.offset)) if config.offset else scaled


@write.register
def _(config: c.Normalization, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    mean, variance = layer.weights
    divisor = np.maximum(np.sqrt(variance), np.float32(1e-7))
    centred = writer.add("Sub", inputs[0], writer.constant(f"{layer.path}.mean", mean))
    return writer.add("Div", centred, writer.constant(f"{layer.path}.deviation", divisor))


def _scaled(
    writer: Writer, layer: Layer, x: str, scale: NDArray[np.float64], shift: NDArray[np.float64]
) -> str:
    made = writer.add("Mul", x, writer.constant(f"{layer.path}.scale", scale.astype(np.float32)))
    return writer.add("Add", made, writer.constant(f"{layer.path}.shift", shift.astype(np.float32)))


@write.register
def _(config: c.Conv1D, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    left = {"valid": 0, "same": config.reach // 2, "causal": config.reach}[config.padding]
    right = config.reach - left if config.padding == "same" else 0
    kernel = writer.constant(f"{layer.path}.0", layer.weights[0].transpose(2, 1, 0))  # (filters, features, K)
    given = [kernel, _weight(writer, layer, 1)] if config.use_bias else [kernel]
    made = writer.add(
        "Conv",
        writer.add("Transpose", inputs[0], perm=[0, 2, 1]),
        *given,
        pads=[left, right],
        strides=list(config.strides),
        dilations=list(config.dilation_rate),
        group=config.groups,
        kernel_shape=list(config.kernel_size),
    )
    return write_activation(writer, config.activation, writer.add("Transpose", made, perm=[0, 2, 1]))


@write.register
def _(config: c.GlobalPooling, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    operator = "ReduceMax" if config.kind == "max" else "ReduceMean"
    return writer.add(operator, inputs[0], axes=[1], keepdims=0)


@write.register
def _(config: c.Merge, writer: Writer, layer: Layer, inputs: Sequence[str]) -> str:
    if config.kind == "concat":
        return writer.add("Concat", *inputs, axis=-1)
    if config.kind in ("mean", "max", "min"):
        return writer.add({"mean": "Mean", "max": "Max", "min": "Min"}[config.kind], *inputs)
    operator, made = {"add": "Add", "mul": "Mul", "sub": "Sub"}[config.kind], inputs[0]
    for one in inputs[1:]:
        made = writer.add(operator, made, one)
    return made
