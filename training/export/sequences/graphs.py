"""The three graphs of contract 2, written from the weights of a `SequenceNetwork`: chunk cell, whole, init.

service/contract/spec.py documents their tensors. Only operations that give a row the same bits whatever else
is in the batch are used where rows of different lengths share one: MatMul, Gemm, LayerNormalization, masked
maximum, and the mean over time as a MatMul of two rows of weights that are 0 behind a row's length.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.contract import spec
from training.export.graph_builder import GraphBuilder, float_tensor
from training.export.sequences.layers import batch_first, input_layer, linear, norm, recurrent_layer
from training.networks.sequences import FORECAST, SequenceConfig, SequenceNetwork


def chunk_graph(network: SequenceNetwork) -> onnx.ModelProto:
    """Return the chunk cell of a network whose layers all look forward."""
    config, builder = network.config, GraphBuilder()
    sequence = input_layer(builder, network)  # (T, B, E)
    for index in range(len(config.layers)):
        sequence = _chunk_layer(builder, network, index, sequence)
    hidden = batch_first(builder, sequence)  # (B, T, H)
    if config.is_error:
        _error_head(builder, network, hidden)
    else:
        rows = _wanted(builder, hidden, config.layers[-1].output_width, "hidden.wanted")
        linear(builder, network.head, norm(builder, network, rows), spec.OUTPUT)
    inputs = [
        _input(config),
        helper.make_tensor_value_info(spec.LENGTHS, TensorProto.INT32, ["batch"]),
        *(float_tensor(name, "batch", size) for name, size in config.states),
        helper.make_tensor_value_info(spec.WANTED, TensorProto.INT64, ["wanted"]),
    ]
    outputs = [
        float_tensor(spec.OUTPUT, "wanted", config.output_size),
        *(float_tensor(name + spec.NEXT_SUFFIX, "batch", size) for name, size in config.states),
    ]
    return builder.model("chunk_cell", inputs, outputs)


def whole_graph(network: SequenceNetwork, padding: spec.Padding = "lengths") -> onnx.ModelProto:
    """Return the graph of a whole network; with padding "none" it has no input `lengths`."""
    config, builder = network.config, GraphBuilder()
    lengths = spec.LENGTHS if padding == "lengths" else ""
    sequence = input_layer(builder, network)  # (T, B, E)
    last = ""
    for index in range(len(config.layers)):
        sequence, (last, *_) = recurrent_layer(builder, network, index, sequence, lengths)
    if config.pooling is None:
        pooled = batch_first(builder, sequence)  # (B, T, C)
    elif config.pooling == "last":
        pooled = _joined(builder, last)
    else:
        pooled = _over_time(builder, config, batch_first(builder, sequence), lengths)
    linear(builder, network.head, norm(builder, network, pooled), spec.OUTPUT)
    inputs = [_input(config)]
    if lengths:
        inputs.append(helper.make_tensor_value_info(lengths, TensorProto.INT32, ["batch"]))
    axes = ("batch",) if config.pooling else ("batch", "time")
    return builder.model("whole", inputs, [float_tensor(spec.OUTPUT, *axes, config.output_size)])


def init_graph(network: SequenceNetwork) -> onnx.ModelProto:
    """Return the graph of the first states, whose outputs are named as the states."""
    config, builder = network.config, GraphBuilder()
    names = [name for name, _ in config.initial]
    inputs = [float_tensor(name, "batch", size) for name, size in config.initial]
    if network.encoder is not None:
        names.append(_encoder(builder, network.encoder))
        inputs.append(_input(network.encoder.config, spec.SOURCE))
    given = builder.node("Concat", names, ["given"], axis=1)
    for (name, _), layer in zip(config.layer_states, network.init_layers, strict=True):
        builder.node("Tanh", [linear(builder, layer, given, f"{name}.before")], [name])
    outputs = [float_tensor(name, "batch", size) for name, size in config.layer_states]
    return builder.model("init", inputs, outputs)


def _encoder(builder: GraphBuilder, encoder: SequenceNetwork) -> str:
    """Add an encoder that reads the input `source`; returns its output, (B, C)."""
    graph, output = whole_graph(encoder, "none").graph, "source.encoded"
    renamed = {spec.INPUT: spec.SOURCE, spec.OUTPUT: output}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    builder.nodes.extend(graph.node)
    builder.initializers.extend(graph.initializer)
    return output


def _input(config: SequenceConfig, name: str = spec.INPUT) -> onnx.ValueInfoProto:
    if config.vocabulary:
        return helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "time"])
    return float_tensor(name, "batch", "time", config.features)


def _chunk_layer(builder: GraphBuilder, network: SequenceNetwork, index: int, sequence: str) -> str:
    """Add a layer that begins with the states and gives the next ones; returns (T, B, H)."""
    kind = network.config.layers[index].kind
    names = [name for name, _ in network.config.layer_states if name.startswith(f"{kind}{index}.")]
    before = [builder.node("Unsqueeze", [name, builder.axis(0)], [f"{name}.before"]) for name in names]
    hidden, after = recurrent_layer(builder, network, index, sequence, spec.LENGTHS, before)
    for name, tensor in zip(names, after, strict=True):
        builder.node("Squeeze", [tensor, builder.axis(0)], [name + spec.NEXT_SUFFIX])  # (B, H)
    return hidden


def _wanted(builder: GraphBuilder, rows: str, width: int, name: str) -> str:
    """Gather the wanted steps, (B, T, width) -> (wanted, width)."""
    flat_shape = builder.constant(f"{name}.shape", np.array([-1, width], np.int64))
    flat = builder.node("Reshape", [rows, flat_shape], [f"{name}.flat"])
    return builder.node("Gather", [flat, spec.WANTED], [name], axis=0)


def _error_head(builder: GraphBuilder, network: SequenceNetwork, hidden: str) -> None:
    """Add the errors of the forecasts made one step before, and the state that keeps the last forecast."""
    width = network.config.outputs
    forecasts = linear(builder, network.head, norm(builder, network, hidden), "forecasts")  # (B, T, outputs)
    before = builder.node("Unsqueeze", [FORECAST, builder.axis(1)], [f"{FORECAST}.before"])
    known = builder.node("Concat", [before, forecasts], ["forecasts.known"], axis=1)  # (B, T + 1, outputs)
    shape = builder.node("Shape", [spec.INPUT], ["input.shape"])
    time = builder.node("Slice", [shape, *_range(builder, "time", 1, 2)], ["time"])
    zero = builder.constant("zero", np.array([0], np.int64))
    shifted = builder.node("Slice", [known, zero, time, builder.axis(1)], ["forecasts.shifted"])
    observed = builder.node("Slice", [spec.INPUT, *_range(builder, "observed", 0, width, 2)], ["observed"])
    error = builder.node("Abs", [builder.node("Sub", [observed, shifted], ["difference"])], ["error"])
    scale = builder.constant("deviation", network.deviation.detach().cpu().numpy())
    scores = builder.node("Div", [error, scale], ["scores"])
    builder.node("Identity", [_wanted(builder, scores, width, "scores.wanted")], [spec.OUTPUT])
    # Row `lengths` of what is known is the forecast after the last valid step.
    lengths = builder.node("Cast", [spec.LENGTHS], ["lengths.int64"], to=TensorProto.INT64)
    places = builder.node("Unsqueeze", [lengths, builder.axis(1)], ["lengths.column"])
    builder.node("GatherND", [known, places], [FORECAST + spec.NEXT_SUFFIX], batch_dims=1)


def _range(builder: GraphBuilder, name: str, start: int, stop: int, axis: int = 0) -> tuple[str, str, str]:
    """Return the inputs of a Slice of one axis: start, stop, axis."""
    return (
        builder.constant(f"{name}.start", np.array([start], np.int64)),
        builder.constant(f"{name}.stop", np.array([stop], np.int64)),
        builder.axis(axis),
    )


def _joined(builder: GraphBuilder, last: str) -> str:
    """Join the directions' last hidden states, (D, B, H) -> (B, D*H)."""
    rows = builder.node("Transpose", [last], ["last.rows"], perm=[1, 0, 2])
    shape = builder.constant("last.shape", np.array([0, -1], np.int64))
    return builder.node("Reshape", [rows, shape], ["last.joined"])


def _over_time(builder: GraphBuilder, config: SequenceConfig, hidden: str, lengths: str) -> str:
    """Add the mean or the maximum over valid steps, (B, T, C) -> (B, C)."""
    operator = "ReduceMean" if config.pooling == "mean" else "ReduceMax"
    if not lengths:
        return builder.node(operator, [hidden], ["pooled"], axes=[1], keepdims=0)
    valid = _valid(builder, lengths)  # (B, T)
    if config.pooling == "max":
        column = builder.node("Unsqueeze", [valid, builder.axis(2)], ["valid.column"])
        lowest = builder.constant("lowest", np.array(np.finfo(np.float32).min, np.float32))
        masked = builder.node("Where", [column, hidden, lowest], ["masked"])
        return builder.node(operator, [masked], ["pooled"], axes=[1], keepdims=0)
    ones = builder.node("Cast", [valid], ["valid.ones"], to=TensorProto.FLOAT)
    count = builder.node("Cast", [lengths], ["lengths.float"], to=TensorProto.FLOAT)
    column = builder.node("Unsqueeze", [count, builder.axis(1)], ["lengths.column"])
    weights = builder.node("Div", [ones, column], ["mean.weights"])  # (B, T)
    row = builder.node("Unsqueeze", [weights, builder.axis(1)], ["mean.row"])  # (B, 1, T)
    # Of one row onnxruntime sums the steps in groups, which depend on T; of two it adds step after step.
    rows = builder.node("Concat", [row, row], ["mean.rows"], axis=1)  # (B, 2, T)
    means = builder.node("MatMul", [rows, hidden], ["means"])  # (B, 2, C)
    first = builder.constant("mean.first", np.array(0, np.int64))
    return builder.node("Gather", [means, first], ["pooled"], axis=1)


def _valid(builder: GraphBuilder, lengths: str) -> str:
    """Add a bool (B, T), true where a step is before its row's length."""
    shape = builder.node("Shape", [spec.INPUT], ["input.shape"])
    index = builder.constant("time.index", np.array(1, np.int64))
    time = builder.node("Gather", [shape, index], ["time"], axis=0)
    first = builder.constant("time.first", np.array(0, np.int64))
    step = builder.constant("time.step", np.array(1, np.int64))
    steps = builder.node("Range", [first, time, step], ["steps"])
    wide = builder.node("Cast", [lengths], ["lengths.int64"], to=TensorProto.INT64)
    column = builder.node("Unsqueeze", [wide, builder.axis(1)], ["lengths.rows"])  # (B, 1)
    return builder.node("Less", [steps, column], ["valid"])
