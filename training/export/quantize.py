"""Makes the int8 weights of a network: the chunk cell with recurrent layers of 8-bit integers, for CPUs.

Wide LSTMs are written out as products of integers (training/export/quantized_cell.py), so that a row's answer
does not depend on the others. In narrow ones the calls of operators take more time than what these compute,
so onnxruntime's dynamic quantization turns each LSTM node into DynamicQuantizeLSTM: weights are integers,
inputs and hidden states are rounded to 8 bits in each step by one scale for all rows, sums are 32-bit
integers, gates and cell states stay float32. There is neither for GRU and RNN. Names, symbolic axes and
`lengths` stay. What int8 costs in accuracy is measured elsewhere (training/export/gate.py).
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from training.export.graph import build_graph
from training.export.quantized_cell import write_cell
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork

QUANTIZED_CELL: Cell = "lstm"
# Units of a layer from which on it is written out. Measured with VNNI against DynamicQuantizeLSTM: layers of
# 512 take 0.9 times as long for one time step of 64 rows, and for 4 time steps 1.0 to 1.07 times as long with
# 64 rows and twice as long with one; layers of 256 take 0.9 times as long for one time step, and for 4 time
# steps 1.2 times as long with 16 rows and more than twice as long with one.
WIDE = 512
# Embedding and head stay float32: they are 1 % of the work of the 2 x 512 character model, and in int8 cost
# five times the loss of its LSTM layers.
OPERATORS = ["LSTM"]
# Without this mark quantize_dynamic asks, on standard error, for a preparation that a graph written node by
# node does not need.
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}


def quantize(network: RecurrentNetwork) -> bytes:
    """Return a network's chunk cell with int8 weights; the same network gives the same bytes.

    Args:
        network: in any mode; dropout is left out.
    Returns:
        The serialized graph.
    Raises:
        ValueError: its cells are no LSTMs.
    """
    if network.config.cell != QUANTIZED_CELL:
        raise ValueError(f"expected a network of {QUANTIZED_CELL} cells, found {network.config.cell}")
    return write_cell(network) if is_wide(network.config) else _quantize_nodes(build_graph(network))


def is_wide(config: NetworkConfig) -> bool:
    """Return whether int8 weights are written out as integer products.

    Then a row's answer does not depend on the others.
    """
    return config.hidden >= WIDE


def _quantize_nodes(graph: onnx.ModelProto) -> bytes:
    """Return a graph whose LSTM nodes are DynamicQuantizeLSTM; the one given is not changed."""
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
