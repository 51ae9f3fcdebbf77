"""Writes a converted network as the next version of a model: whole and admitted, or not at all.

The version is written in a hidden folder of the repository, which servers pass over. It passes the service's
own checks there before it is moved to its place.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, TypeVar

import onnx

from service.contract import spec
from training.convert.converted import Converted
from training.convert.foreign import Refused
from training.convert.graph.serializing import serialized
from training.convert.meaning.golden import Goldens
from training.convert.meaning.meaning import Meaning
from training.convert.version.calling import call_files
from training.export.card import CARD_FILE
from training.export.export import GENERATION_FILES, GRAPH_FILE
from training.export.generation import generation_graph
from training.export.generation_graph import StateTensor
from training.export.hidden import hidden_folder
from training.export.sequences.export import INIT_FILE
from training.export.version_folder import next_version, take_place, write_files
from training.writing import disk_errors

# A protobuf message can be no larger.
MAX_GRAPH_BYTES = (1 << 31) - 1
_SECTIONS: Mapping[spec.Task, str] = {
    "sequences": "sequences",
    "text-generation": "generation",
    "text-classification": "classification",
    "forecasting": "forecasting",
}
_LIBRARIES = ("onnx", "onnxruntime", "onnxscript", "numpy", "tokenizers")
_Admission = TypeVar("_Admission")
Admit = Callable[[Path], _Admission]
Card = Callable[[spec.ModelSpec], str]


@dataclass(frozen=True, slots=True)
class Package:
    """Everything that a version is made of.

    Attributes:
        name: name of the model: its folder in the repository.
        converted: the network.
        meaning: what its numbers mean.
        goldens: golden examples.
        provenance: where it comes from.
        card: returns the text of the model card.
    """

    name: str
    converted: Converted
    meaning: Meaning
    goldens: Goldens
    provenance: spec.Provenance
    card: Card


def provenance_of(source: spec.Source, data: str, licence: str, recipe: str) -> spec.Provenance:
    """Return the provenance of a conversion that is made now.

    Args:
        source: the original file.
        data: what the network was trained on, in the user's words.
        licence: licence of that.
        recipe: command that made the conversion.
    """
    return spec.Provenance(
        data=data,
        data_licence=licence,
        recipe=recipe,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: installed_version(name) for name in _LIBRARIES},
        source=source,
    )


def write_package(
    package: Package, repository: Path, admit: Admit[_Admission]
) -> tuple[Path, spec.ModelSpec, _Admission]:
    """Write the next version of a model.

    Args:
        package: the version.
        repository: folder of models.
        admit: runs the service's checks on the folder of a version, and raises Refused if one fails.

    Returns:
        The new folder, its model.json, and what `admit` returned.

    Raises:
        Refused: a check of the service failed, or a graph is too large.
        WriteError: the folder cannot be written.
        In either case nothing is left behind.
    """
    parent = repository / package.name
    while True:
        with ExitStack() as stack:
            with disk_errors(repository):
                staging = stack.enter_context(hidden_folder(repository, "convert"))
            folder, model = _write(package, staging / package.name, next_version(parent))
            admission = admit(folder)
            if _is_placed(folder, parent):
                return parent / folder.name, model, admission


def _is_placed(folder: Path, parent: Path) -> bool:
    """Rename a version's folder to its place, unless another process has taken its number.

    It is one rename either way: whoever looks sees a whole version, or none.
    """
    with disk_errors(parent):
        if parent.exists():
            return take_place(folder, parent / folder.name)
        return take_place(folder.parent, parent)


def _write(package: Package, parent: Path, number: int) -> tuple[Path, spec.ModelSpec]:
    """Write the version's files; the graphs' bytes are gone when it returns."""
    files = graph_files(package.converted) | package.meaning.files
    files |= generation_files(package, files[GRAPH_FILE])
    model = model_of(package, number, files)
    beside = {CARD_FILE: package.card(model).encode(), **call_files(model, package.goldens)}
    folder = parent / str(number)
    with disk_errors(folder):
        write_files(folder, model, {**files, **beside})
    return folder, model


def graph_files(converted: Converted) -> dict[str, bytes]:
    """Return the graphs by file name, each with its weights in it.

    Raises:
        Refused: one is larger than a protobuf message can be.
    """
    files = {GRAPH_FILE: _serialized(converted.graph, converted.weights_folder)}
    if converted.init is not None:
        files[INIT_FILE] = _serialized(converted.init, converted.weights_folder)
    return files


def generation_files(package: Package, graph: bytes) -> dict[str, bytes]:
    """Return the generation graph of a model that generates, where one has the bits of single steps."""
    converted = package.converted
    if package.meaning.task != "text-generation":
        return {}
    states = [StateTensor(one.input, one.output, one.size) for one in converted.states]
    made = generation_graph(graph, GRAPH_FILE, states, converted.outputs)
    return {} if made is None else {GENERATION_FILES[GRAPH_FILE]: made}


def _serialized(graph: onnx.ModelProto, folder: str) -> bytes:
    outside = (
        one for tensor in graph.graph.initializer for one in tensor.external_data if one.key == "length"
    )
    size = graph.ByteSize() + sum(int(one.value) for one in outside)
    if size > MAX_GRAPH_BYTES:
        raise Refused(f"expected a graph of at most {MAX_GRAPH_BYTES} bytes with its weights, found {size}")
    return serialized(graph, Path(folder)) if folder else bytes(graph.SerializeToString())


def model_of(package: Package, number: int, files: Mapping[str, bytes]) -> spec.ModelSpec:
    """Return model.json of a version.

    Raises:
        Refused: the package breaks the contract.
    """
    converted, meaning = package.converted, package.meaning
    generation = GENERATION_FILES[GRAPH_FILE]
    described: dict[str, Any] = {
        "contract": 2,
        "name": package.name,
        "version": number,
        "task": meaning.task,
        "kind": converted.kind,
        "layers": [one.model_dump(exclude_none=True) for one in converted.layers],
        "input": converted.input.model_dump(),
        "outputs": converted.outputs,
        _SECTIONS[meaning.task]: meaning.section.model_dump(exclude_none=True),
        "variants": {
            "fp32": {
                "file": GRAPH_FILE,
                "batch_invariant": is_batch_invariant(converted),
                "tolerance": package.goldens.tolerance,
                **({"generation": generation} if generation in files else {}),
            }
        },
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "golden": list(package.goldens.examples),
        "metrics": {"largest_difference": converted.difference},
        "provenance": package.provenance.model_dump(exclude_none=True),
    }
    try:
        return spec.parse_spec(json.dumps(described | _network(converted, meaning)))
    except spec.SpecError as error:
        raise Refused(f"model.json of the conversion breaks the contract: {error}") from error


def _network(converted: Converted, meaning: Meaning) -> dict[str, Any]:
    """Return what model.json says about the kind of network."""
    described: dict[str, Any] = {}
    if meaning.window is not None:
        described["window"] = meaning.window.model_dump()
    if converted.kind == "whole":
        return described | {"padding": converted.padding, "pooled": converted.pooled}
    described["state"] = [one.model_dump() for one in converted.states]
    if converted.init is not None:
        described["init"] = {"file": INIT_FILE, "inputs": [one.model_dump() for one in converted.initial]}
    if converted.source is not None:
        described["init"]["source"] = {"input": converted.source.model_dump()} | (
            {"text": meaning.source_text.section.model_dump(exclude_none=True)} if meaning.source_text else {}
        )
    return described


def is_batch_invariant(converted: Converted) -> bool:
    """Return whether a row's outputs are known not to depend on other rows: the service measures it, too."""
    dynamic = {"DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger"}
    operators = {node.op_type for node in converted.graph.graph.node}
    has_rnn = any(layer.kind == "rnn" for layer in converted.layers)
    return converted.kind == "chunk" and not has_rnn and not operators & dynamic
