"""Hands a network to the service as a version of contract 2, compared with PyTorch before it counts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from service.contract import spec
from training.errors import TrainingError
from training.export.card import CardFacts
from training.export.export import (
    ADMISSION_TOLERANCE,
    EXPORT_TOLERANCE,
    GOLDEN_STEPS,
    GRAPH_FILE,
    weights_sha256,
)
from training.export.sequences.card import card_files
from training.export.sequences.compare import Example, Graphs, first_rows, largest_error, reference
from training.export.sequences.graphs import chunk_graph, init_graph, whole_graph
from training.export.version_folder import write_version
from training.networks.sequences import SequenceConfig, SequenceNetwork

INIT_FILE = "init.onnx"

Section = spec.SequencesSpec | spec.Generation | spec.Classification | spec.ForecastSpec
_SECTIONS: dict[type, tuple[spec.Task, str]] = {
    spec.SequencesSpec: ("sequences", "sequences"),
    spec.Generation: ("text-generation", "generation"),
    spec.Classification: ("text-classification", "classification"),
    spec.ForecastSpec: ("forecasting", "forecasting"),
}


@dataclass(frozen=True, slots=True)
class SequencePackage:
    """Everything that a version folder of contract 2 is made of.

    Attributes:
        name: name of the model: its folder in the repository.
        network: trained.
        section: what its task needs; its type decides the task.
        examples: inputs of different lengths, or whole windows: the golden examples.
        metrics: held-out, baselines beside.
        provenance: where the weights come from.
        card: what the model card says.
        files: further files by name, such as a tokenizer.
        padding: of a whole network: whether rows of different lengths may share a batch.
        window: length that every sequence is brought to; None: any length.
        source: what the network's encoder reads; None: it has none.
    """

    name: str
    network: SequenceNetwork
    section: Section
    examples: Sequence[Example]
    metrics: Mapping[str, float]
    provenance: spec.Provenance
    card: CardFacts
    files: Mapping[str, bytes] = field(default_factory=dict)
    padding: spec.Padding = "lengths"
    window: spec.Window | None = None
    source: spec.SourceSpec | None = None


def graphs_of(package: SequencePackage) -> Graphs:
    """Return the serialized graphs of a package's network."""
    network = package.network
    if network.config.kind == "whole":
        return Graphs(whole_graph(network, package.padding).SerializeToString())
    init = init_graph(network).SerializeToString() if network.config.is_begun else None
    return Graphs(chunk_graph(network).SerializeToString(), init)


def export_sequences(package: SequencePackage, repository: Path) -> Path:
    """Write the next version of a model.

    Returns:
        The new folder, <repository>/<name>/<version>.

    Raises:
        TrainingError: onnxruntime does not compute what PyTorch computes.
        SpecError: the package breaks the contract.
        WriteError: the folder cannot be written. Nothing is left behind.
    """
    graphs = graphs_of(package)
    error = largest_error(package.network, graphs, package.padding, package.examples)
    if not error <= EXPORT_TOLERANCE:
        raise TrainingError(
            f"export of {package.name}: expected outputs within {EXPORT_TOLERANCE} of PyTorch's, "
            f"found {error:.2e}"
        )
    files = {GRAPH_FILE: graphs.main, **package.files}
    if graphs.init is not None:
        files[INIT_FILE] = graphs.init
    parent = repository / package.name

    def describe(number: int) -> tuple[spec.ModelSpec, Mapping[str, bytes]]:
        model = _spec(package, number, files)
        return model, {**files, **card_files(model, package.card)}

    return write_version(parent, describe)


def _spec(package: SequencePackage, number: int, files: Mapping[str, bytes]) -> spec.ModelSpec:
    config = package.network.config
    task, section = _SECTIONS[type(package.section)]
    described = {
        "contract": 2,
        "name": package.name,
        "version": number,
        "task": task,
        "input": {"kind": "tokens", "size": config.vocabulary}
        if config.vocabulary
        else {"kind": "features", "size": config.features},
        "outputs": config.output_size,
        section: package.section.model_dump(exclude_none=True),
        "variants": {
            "fp32": {
                "file": GRAPH_FILE,
                "batch_invariant": all(layer.kind != "rnn" for layer in config.layers),
                "tolerance": ADMISSION_TOLERANCE,
            }
        },
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "golden": [_golden(package.network, example) for example in package.examples],
        "metrics": {name: float(value) for name, value in package.metrics.items()},
        "provenance": package.provenance.model_dump(exclude_none=True)
        | {"weights_sha256": weights_sha256(package.network)},
    }
    return spec.parse_spec(json.dumps(described | _network(package)))


def _network(package: SequencePackage) -> dict[str, Any]:
    """Return what model.json says about the network itself."""
    config = package.network.config
    described: dict[str, Any] = {"kind": config.kind, "layers": _layers(config)}
    if package.window is not None:
        described["window"] = package.window.model_dump()
    if config.kind == "whole":
        return described | {"padding": package.padding, "pooled": config.pooling is not None}
    described["state"] = [
        {"input": name, "output": name + spec.NEXT_SUFFIX, "size": size} | _start(package.network, name)
        for name, size in config.states
    ]
    if config.is_begun:
        inputs = [{"name": name, "size": size} for name, size in config.initial]
        described["init"] = {"file": INIT_FILE, "inputs": inputs}
    if package.source is not None and config.encoder is not None:
        source = package.source.model_dump(exclude_none=True)
        described["init"]["source"] = source | {"layers": _layers(config.encoder)}
    return described


def _layers(config: SequenceConfig) -> list[dict[str, Any]]:
    return [
        {"kind": layer.kind, "width": layer.width, "direction": layer.direction}
        | ({"activations": layer.activations} if layer.activations else {})
        for layer in config.layers
    ]


def _start(network: SequenceNetwork, name: str) -> dict[str, Any]:
    """Return the constant row that a state starts with, where it is not of zeros."""
    if network.config.starts == "zeros":
        return {}
    return {"start": first_rows(network)[name].tolist()}


def _golden(network: SequenceNetwork, example: Example) -> dict[str, Any]:
    outputs, length = reference(network, example), len(example.inputs)
    if len(outputs) == length:
        steps = sorted({round(share * (length - 1) / (GOLDEN_STEPS - 1)) for share in range(GOLDEN_STEPS)})
        rows = outputs[steps]
    else:  # pooled
        steps, rows = [length - 1], outputs
    golden: dict[str, Any] = {
        **_said(example.inputs, example.text, example.values),
        "initial": {name: row.tolist() for name, row in example.initial.items()},
        "steps": steps,
        "outputs": rows.astype(float).tolist(),
    }
    if example.source is not None:
        golden["source"] = _said(example.source, example.source_text, example.source_values)
    return golden


def _said(inputs: Tensor, text: str | None, values: NDArray[np.float64] | None) -> dict[str, Any]:
    """Return a sequence as a network gets it, and as a caller may send it."""
    said: dict[str, Any] = {"features" if inputs.is_floating_point() else "tokens": inputs.tolist()}
    if text is not None:
        said["text"] = text
    if values is not None:
        said["values"] = values.tolist()
    return said
