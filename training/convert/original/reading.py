"""Reads ONNX files of anyone, and makes their graphs ready to be converted."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, inliner, numpy_helper

from service.contract import spec
from training.convert.foreign import Foreign, Refused
from training.convert.graph.bounds import check_expansion
from training.convert.graph.copying import every_node
from training.convert.graph.weights import Weights, move_out
from training.convert.options import Choices
from training.convert.original.repairs import relax

# A protobuf message can be no larger.
MAX_FILE_BYTES = (1 << 31) - 1
_DOMAINS = {"", "ai.onnx", "com.microsoft"}
_TYPES = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
_HASHED_AT_ONCE = 1 << 20
_ADVICE = (
    "name an .onnx or .keras file; a class of PyTorch is named as module:Class, without .py, and its weights "
    "by --checkpoint"
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A foreign graph, ready to be converted.

    Attributes:
        exact: the graph as the file has it, its weights in a file and its fixed inputs constant.
        model: the same with frozen axes made free.
        weights: the file of its weights.
        repaired: sentences on what was changed.
    """

    exact: onnx.ModelProto
    model: onnx.ModelProto
    weights: Weights
    repaired: tuple[str, ...]


def read_onnx(path: Path, folder: Path) -> Foreign:
    """Read an ONNX file.

    Args:
        path: the file.
        folder: folder into which its large weights go, which the ladder gets as well.

    Raises:
        Refused: it is no ONNX file, too large, or needs files beside it or operators that are not ONNX's.
    """
    if not path.is_file():
        raise Refused(f"{path}: expected an ONNX file, found {'a folder' if path.is_dir() else 'nothing'}")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise Refused(f"{path}: expected at most {MAX_FILE_BYTES} bytes, found {size}")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise Refused(f"{path}: expected an ONNX file, found one that does not parse", _ADVICE) from error
    if not model.graph.node:
        raise Refused(f"{path}: expected an ONNX graph with nodes, found none")
    _check_self_contained(model)
    check_expansion(model)
    _check_numbers(model.graph)
    small, _ = move_out(model, folder)
    return Foreign(small, source_of(path, model))


def source_of(path: Path, model: onnx.ModelProto) -> spec.Source:
    """Return what is known of the origin of an ONNX file."""
    producer = model.producer_name.lower()
    framework = "PyTorch" if "torch" in producer else "Keras" if "tf2onnx" in producer else ""
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), None)
    return spec.Source(
        file=path.name,
        sha256=hash_of(path),
        framework=framework,
        exporter=f"{model.producer_name} {model.producer_version}".strip()[:100],
        opset=opset,
    )


def hash_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepare(foreign: Foreign, choices: Choices, folder: Path) -> Prepared:
    """Move weights out of a graph, fix inputs, and free axes that its exporter froze."""
    model, weights = move_out(foreign.graph, folder)
    for name, number in choices.fixed.items():
        _fix(model.graph, name, number)
    if model.functions:
        model = inliner.inline_local_functions(model)
    if choices.fixed or any(node.op_type == "If" for node in model.graph.node):
        from onnxscript import optimizer  # noqa: PLC0415 -- takes a second to import, and few graphs need it

        model = optimizer.optimize(model)
    relaxed, repaired = relax(model)
    return Prepared(model, relaxed, weights, repaired)


def _check_self_contained(model: onnx.ModelProto) -> None:
    """Raise Refused if the graph needs other files, or operators that onnxruntime does not have itself."""
    for tensor in _tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise Refused(
                f"the weights of {tensor.name} lie in a file beside the graph",
                "save it as one file: onnx.save_model(onnx.load(FILE), NEW_FILE)",
            )
        if tensor.data_type not in _TYPES:
            raise Refused(f"tensor {tensor.name}: expected a type of ONNX, found number {tensor.data_type}")
    own = {one.domain for one in model.functions}
    strange = {
        f"{node.domain}.{node.op_type}"
        for node in every_node(model.graph.node)
        if node.domain not in _DOMAINS | own
    }
    if strange:
        raise Refused(
            f"expected operators of ONNX, found {', '.join(sorted(strange))}",
            "custom operators need code that is not in the file: export the network without them",
        )


def _check_numbers(graph: onnx.GraphProto) -> None:
    """Raise Refused if a weight is no number: onnxruntime gives finite answers for some of these."""
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    for tensor in graph.initializer:
        if tensor.data_type in kinds and np.isnan(numpy_helper.to_array(tensor)).any():
            raise Refused(f"the weights {tensor.name} hold NaN, as those of a training that diverged do")


def _tensors(graph: onnx.GraphProto) -> list[TensorProto]:
    constants = [one.t for node in every_node(graph.node) for one in node.attribute if one.HasField("t")]
    inner = [
        tensor
        for node in graph.node
        for one in node.attribute
        if one.HasField("g")
        for tensor in _tensors(one.g)
    ]
    return [*graph.initializer, *constants, *inner]


def _fix(graph: onnx.GraphProto, name: str, number: float) -> None:
    """Make a constant of an input."""
    for index, one in enumerate(graph.input):
        if one.name == name:
            kind = one.type.tensor_type
            sizes = [dim.dim_value or 1 for dim in kind.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            graph.initializer.append(numpy_helper.from_array(np.full(sizes, number, dtype), name))
            del graph.input[index]
            return
    names = ", ".join(one.name for one in graph.input)
    raise Refused(f"--set {name}: expected one of the inputs {names}, found {name}")
