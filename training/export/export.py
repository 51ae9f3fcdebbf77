"""Writes a trained network as a version folder, checked against PyTorch before it counts.

The folder is written whole, under a number of its own (training.export.version_folder).
"""

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.contract import spec
from training.errors import TrainingError
from training.export.card import CardFacts, card_files
from training.export.chunks import ChunkCell, Take
from training.export.generation import generation_graph
from training.export.generation_graph import StateTensor
from training.export.graph import build_graph, reference_outputs
from training.export.pictures import Fans, Labels
from training.export.quantize import is_wide
from training.export.version_folder import next_version, write_version
from training.loop.environment import environment
from training.networks.mixture import MixedNetwork
from training.networks.network import RecurrentNetwork

GRAPH_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
# The generation graph of each of these: its weights are in that file.
GENERATION_FILES = {GRAPH_FILE: "generation.onnx", INT8_FILE: "generation.int8.onnx"}
# What onnxruntime may differ from PyTorch by where it is exported; admission allows more, since other
# processors sum in another order.
EXPORT_TOLERANCE = 1e-5
# Of an output's size, beside that: float32 rounds large outputs by more. Logarithms of small probabilities,
# about -17, were seen 1.14e-5 apart.
EXPORT_TOLERANCE_SHARE = 1e-6
ADMISSION_TOLERANCE = 1e-4
# Int8 weights are admitted up to so many times the largest error seen here, in whatever batches and chunks
# golden examples are run there, ...
INT8_MARGIN = 2.0
# ... and at least this share of the largest golden output: few examples may happen to come out close.
INT8_FLOOR = 0.01
GOLDEN_STEPS = 3
# How examples are cut when they are compared: into chunks of so many steps, whole, and unequally.
CHECK_CHUNKS = (1, 2, 4, 8, 16)
CHECK_UNEQUAL = 3


@dataclass(frozen=True, slots=True)
class Package:
    """Contents of a version folder.

    Attributes:
        name: of the model: its folder in the repository.
        network: trained.
        section: what its task needs; its type decides the task.
        examples: whole inputs of different lengths, int64 (T,) or float32 (T, F): the golden examples.
        metrics: held-out, baselines beside.
        provenance: where the weights come from.
        card: for the model card.
        files: further files by name, such as a tokenizer.
        int8: the graph with int8 weights, where they passed their gate.
        texts: of token models, a text for each example that preprocessing turns into it; (): none.
        values: of forecasters, the observations of each example, (T, columns), as a caller sends them; ():
            none are recorded.
        evidence: given the version's folder, model.json and files, what the model card shows of it on
            held-out data.
        has_generation: write the generation graphs of a model that generates, which need contract 2.
    """

    name: str
    network: RecurrentNetwork
    section: spec.Generation | spec.Classification | spec.ForecastSpec
    examples: Sequence[Tensor]
    metrics: Mapping[str, float]
    provenance: spec.Provenance
    card: CardFacts
    files: Mapping[str, bytes] = field(default_factory=dict)
    int8: bytes | None = None
    texts: Sequence[str] = ()
    values: Sequence[NDArray[np.float64]] = ()
    evidence: Callable[[Path, spec.ModelSpec, Mapping[str, bytes]], Labels | Fans | None] = lambda *_: None
    has_generation: bool = True


def provenance(data: str, licence: str, data_sha256: str, seed: int, **facts: str) -> spec.Provenance:
    """Return the provenance of this run: command line, commit, time, versions and environment.

    The facts are added to the environment. The command line goes without --resume, since a resumed run ends
    with the same weights as one that was not.

    Of the command line without --resume, for a run that was resumed ends with the same weights as one that
    was not.
    """
    arguments = [without_folders(one) for one in sys.argv[1:] if one != "--resume"]
    names = ("torch", "onnx", "onnxruntime", "numpy", "tokenizers")
    return spec.Provenance(
        data=data,
        data_licence=licence,
        data_sha256=data_sha256,
        recipe=shlex.join(["python", "-m", "training", *arguments]),
        commit=commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        versions={name: installed_version(name) for name in names},
        environment=environment() | facts,
    )


def weights_sha256(network: nn.Module) -> str:
    """Return the hash of all parameters by name, whatever format they are exported in.

    The same run on the same machine gives the same hash.
    """
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.cpu().contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def without_folders(argument: str) -> str:
    """Return an argument, or --option=path, whose path outside of the repository is cut to its last part.

    So a model names no machine's folders.
    """
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    path = Path(value)
    return f"{option}{equals}{path.name if path.is_absolute() or '..' in path.parts else value}"


def export(package: Package, repository: Path) -> Path:
    """Write the next version of a model.

    Returns:
        The new folder, <repository>/<name>/<version>.
    Raises:
        TrainingError: onnxruntime does not compute what PyTorch computes.
        WriteError: the folder cannot be written. Nothing is left behind.
    """
    graph = build_graph(package.network).SerializeToString()
    error = largest_error(ChunkCell(graph), package.network, package.examples, EXPORT_TOLERANCE_SHARE)
    if not error <= EXPORT_TOLERANCE:
        raise TrainingError(
            f"export of {package.name}: expected outputs within {EXPORT_TOLERANCE} of PyTorch's, "
            f"and {EXPORT_TOLERANCE_SHARE} of their size, found {error:.2e}"
        )
    files = {GRAPH_FILE: graph, **package.files}
    if package.int8 is not None:
        files[INT8_FILE] = package.int8
    files |= _generation_files(package, files)
    parent = repository / package.name
    first = _spec(package, next_version(parent), files)
    # The evidence takes a while, and no other number changes it.
    facts = replace(package.card, evidence=package.evidence(parent / str(first.version), first, files))

    def describe(number: int) -> tuple[spec.ModelSpec, Mapping[str, bytes]]:
        model = first.model_copy(update={"version": number})
        return model, {**files, **card_files(model, facts)}

    return write_version(parent, describe)


def largest_error(
    cell: ChunkCell, network: RecurrentNetwork, examples: Sequence[Tensor], share: float = 0.0
) -> float:
    """Return the largest absolute difference between onnxruntime and PyTorch.

    Each example is run alone, and all in one batch: whole, in equal and in unequal chunks.

    Args:
        cell: the graph.
        network: that it was made from.
        examples: inputs.
        share: of the size of each of PyTorch's outputs, which is taken off its difference.
    """
    inputs = [example.numpy() for example in examples]
    expected = [reference_outputs(network, example) for example in examples]
    longest = max(map(len, inputs))
    found = [*zip(expected, (cell.outputs([one], _in_chunks_of(longest))[0] for one in inputs), strict=True)]
    for take in (
        *map(_in_chunks_of, (*CHECK_CHUNKS, longest)),
        lambda row, tick: 1 + (row + tick) % CHECK_UNEQUAL,
    ):
        found += zip(expected, cell.outputs(inputs, take), strict=True)
    # Not max(): it passes over NaN.
    return float(np.max([(np.abs(one - other) - share * np.abs(one)).max() for one, other in found]))


def _in_chunks_of(steps: int) -> Take:
    return lambda row, tick: steps  # noqa: ARG005


def _int8_tolerance(package: Package, graph: bytes) -> float:
    """Return how far int8 outputs may be from PyTorch's golden ones.

    It is the error that is seen here, with a margin, since other cuts round by other scales.
    """
    largest = max(
        float(np.abs(reference_outputs(package.network, example)).max()) for example in package.examples
    )
    error = largest_error(ChunkCell(graph), package.network, package.examples)
    return float(f"{max(INT8_MARGIN * error, INT8_FLOOR * largest):.2g}")


def _generation_files(package: Package, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the generation graph of each set of weights of a model that generates, by file name."""
    if not isinstance(package.section, spec.Generation) or not package.has_generation:
        return {}
    config = package.network.config
    states = [StateTensor(name, name + spec.NEXT_SUFFIX, size) for name, size in package.network.state_sizes]
    mixed = package.network if isinstance(package.network, MixedNetwork) else None
    made: dict[str, bytes] = {}
    for file, name in GENERATION_FILES.items():
        if file not in files:
            continue
        known = config if file == GRAPH_FILE else None
        graph = generation_graph(files[file], file, states, config.output_size, known, mixed)
        if graph is not None:
            made[name] = graph
    return made


def _network(network: RecurrentNetwork, needs_contract_2: bool) -> dict[str, Any]:
    """Return what model.json says of the network.

    It is in contract 2 where another section needs that, or where there is a state that is no layer's.
    """
    config = network.config
    state = [
        {"input": name, "output": name + spec.NEXT_SUFFIX, "size": size} for name, size in network.state_sizes
    ]
    if needs_contract_2 or len(state) > len(config.recurrent_state_names):
        layer = {"kind": config.cell, "width": config.hidden}
        return {"contract": 2, "kind": "chunk", "layers": [layer] * config.layers, "state": state}
    return {
        "contract": 1,
        "cell": config.cell,
        "layers": config.layers,
        "hidden": config.hidden,
        "state": state,
    }


def _spec(package: Package, number: int, files: Mapping[str, bytes]) -> spec.ModelSpec:
    config = package.network.config
    sections: dict[type, tuple[spec.Task, str]] = {
        spec.Generation: ("text-generation", "generation"),
        spec.Classification: ("text-classification", "classification"),
        spec.ForecastSpec: ("forecasting", "forecasting"),
    }
    task, section = sections[type(package.section)]
    variants: dict[str, dict[str, Any]] = {
        "fp32": {
            "file": GRAPH_FILE,
            "batch_invariant": config.cell != "rnn",
            "tolerance": ADMISSION_TOLERANCE,
        }
    }
    if package.int8 is not None:
        variants["int8"] = {
            "file": INT8_FILE,
            "batch_invariant": is_wide(config),
            "tolerance": _int8_tolerance(package, package.int8),
        }
    for variant in variants.values():
        if (generation := GENERATION_FILES[variant["file"]]) in files:
            variant["generation"] = generation
    described = {
        **_network(
            package.network,
            any("generation" in variant for variant in variants.values())
            or (isinstance(package.section, spec.ForecastSpec) and package.section.needs_contract_2),
        ),
        "name": package.name,
        "version": number,
        "task": task,
        "input": {"kind": "tokens", "size": config.vocabulary}
        if config.vocabulary
        else {"kind": "features", "size": config.features},
        "outputs": config.output_size,
        section: package.section.model_dump(),
        "variants": variants,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "golden": _goldens(package),
        "metrics": {name: float(value) for name, value in package.metrics.items()},
        "provenance": package.provenance.model_dump(exclude_none=True)
        | {"weights_sha256": weights_sha256(package.network)},
    }
    return spec.parse_spec(json.dumps(described))


def _goldens(package: Package) -> list[dict[str, Any]]:
    goldens = [_golden(package.network, example) for example in package.examples]
    if package.texts:
        for golden, text in zip(goldens, package.texts, strict=True):
            golden["text"] = text
    if package.values:
        for golden, rows in zip(goldens, package.values, strict=True):
            golden["values"] = rows.tolist()
    return goldens


def _golden(network: RecurrentNetwork, example: Tensor) -> dict[str, Any]:
    outputs = reference_outputs(network, example)
    steps = sorted({round(share * (len(example) - 1) / (GOLDEN_STEPS - 1)) for share in range(GOLDEN_STEPS)})
    kind = "features" if example.is_floating_point() else "tokens"
    return {
        kind: example.tolist(),
        "steps": steps,
        "outputs": [[float(value) for value in outputs[step]] for step in steps],
    }


def commit() -> str:
    """Return the commit of the repository, "unknown" outside of a checkout such as an unpacked archive."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def seeded_examples(inputs: Sequence[Tensor], count: int, seed: int) -> list[int]:
    """Choose a few of the given inputs for golden examples, shortest and longest among them.

    Returns:
        Their indices, rising in length.
    """
    by_length = sorted(range(len(inputs)), key=lambda index: len(inputs[index]))
    generator = torch.Generator().manual_seed(seed)
    inner = sorted(
        int(index) for index in torch.randperm(len(by_length), generator=generator)[: max(0, count - 2)]
    )
    return [by_length[index] for index in sorted({0, *inner, len(by_length) - 1})]
