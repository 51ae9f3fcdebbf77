"""Refuses graphs with dynamic quantization, whose answers are no function of the sequence alone.

Its scales are taken from all rows and time steps of a tensor together. Measured on LSTMs of 32 and 128 units
(quantize_dynamic of onnxruntime), as parts of the largest output: a sequence beside 7 others differs
from itself alone by 0.8 to 1.1 %, beside louder ones by up to 6 %, and its prefixes from the whole by up to
0.8 %. The float network is no further away (0.9 %). No proof with a tolerance that finds a wrong conversion
holds for such an original, and in a batch one request would change the answer to another.
"""

import onnx

from training.convert.foreign import Refused
from training.convert.graph.copying import every_node

DYNAMIC = frozenset({"DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul"})


def refuse_dynamic_quantization(graph: onnx.GraphProto) -> None:
    """Raise Refused if a graph quantizes activations with scales that it takes from them.

    Weights of int8 alone (DequantizeLinear), and activations with constant scales, are right.
    """
    found = sorted({node.op_type for node in every_node(graph.node)} & DYNAMIC)
    if found:
        raise Refused(
            f"expected a float network, found one with dynamic quantization ({', '.join(found)}): its scales "
            "are taken from all rows of a batch and all time steps together, so that its answer depends on "
            "the length of a sequence and on what else is served",
            "convert the float file that it was quantized from",
        )
