"""The int8 weights of a network: the same chunk cell with recurrent layers of 8-bit integers, for CPUs (the
contract is in service/contract/spec.py).

onnxruntime's dynamic quantization turns each LSTM node into DynamicQuantizeLSTM: weights are integers, inputs
and hidden states are rounded to 8 bits in each step by one scale for all rows, sums are 32-bit integers,
gates and cell states stay float32. It knows no GRU and no RNN. Names, symbolic axes and `lengths` stay. What
it costs in accuracy is measured elsewhere (training/gate.py).
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from training.network import Cell

QUANTIZED_CELL: Cell = "lstm"
# Embedding and head stay float32: they are 1 % of the work of the 2 x 512 character model, and in int8 cost
# five times the loss of its LSTM layers.
OPERATORS = ["LSTM"]
# Without this mark quantize_dynamic asks, on standard error, for a preparation that a graph written node by
# node does not need.
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}


def quantize(graph: onnx.ModelProto) -> bytes:
    """A graph of LSTM nodes with int8 weights; the same graph gives the same bytes.

    Args:
        graph: of `training.graph.build_graph`; not changed.
    Returns:
        The serialized graph.
    Raises:
        ValueError: it holds no LSTM node.
    """
    if not any(node.op_type in OPERATORS for node in graph.graph.node):
        raise ValueError(
            f"expected a graph with LSTM nodes, found {sorted({node.op_type for node in graph.graph.node})}"
        )
    prepared = onnx.ModelProto()
    prepared.CopyFrom(graph)
    helper.set_model_props(prepared, PREPARED)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        # A scale for each gate of each unit (per_channel) halves the loss that one scale a matrix costs. CPUs
        # without VNNI add pairs of products in 16 bits: with weights of 7 bits (reduce_range) 2 * 255 * 64
        # always fits, with 8 they saturate, and answers differ from CPU to CPU.
        quantize_dynamic(
            prepared,
            path,
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return path.read_bytes()
