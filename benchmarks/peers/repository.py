"""Writes Triton's model repository: for each model a config.pbtxt, and a model.py that imports its class.

<repository>/<name>/config.pbtxt
<repository>/<name>/1/model.py
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.environment import ROOT

ROOM = "benchmarks.peers"


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as Triton's configuration declares it.

    Attributes:
        name: as requests give it.
        datatype: without the prefix TYPE_, such as FP32.
        dims: the shape without the batch's dimension; -1 for any size.
    """

    name: str
    datatype: str
    dims: Sequence[int]


@dataclass(frozen=True, slots=True)
class Batching:
    """Triton's dynamic batching.

    Attributes:
        max_queue_delay_us: how long a request waits for others, microseconds.
        preferred: sizes of a batch that is sent before that time is over; none: the largest one.
    """

    max_queue_delay_us: int = 0
    preferred: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class TritonModel:
    """A model of the Python backend.

    Attributes:
        name: as requests give it.
        module: in benchmarks.peers, without that prefix.
        class_name: of the model in that module.
        inputs, outputs: its tensors.
        max_batch_size: the most requests of a batch.
        batching: dynamic batching; None: each request comes as it is.
        is_decoupled: a request may have any number of responses.
        parameters: what the class reads, by name.
    """

    name: str
    module: str
    class_name: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    max_batch_size: int
    batching: Batching | None = None
    is_decoupled: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)


def config_of(model: TritonModel) -> str:
    """Return the text of config.pbtxt: one instance on the CPU."""
    lines = [
        f"name: {_quoted(model.name)}",
        'backend: "python"',
        f"max_batch_size: {model.max_batch_size}",
        *(f"input {_tensor(one)}" for one in model.inputs),
        *(f"output {_tensor(one)}" for one in model.outputs),
        "instance_group [ { kind: KIND_CPU, count: 1 } ]",
    ]
    if model.batching is not None:
        lines.append(_batching(model.batching))
    if model.is_decoupled:
        lines.append("model_transaction_policy { decoupled: true }")
    lines += [
        f"parameters {{ key: {_quoted(key)}, value: {{ string_value: {_quoted(value)} }} }}"
        for key, value in model.parameters.items()
    ]
    return "\n".join(lines) + "\n"


def write_repository(folder: Path, models: Sequence[TritonModel]) -> None:
    """Write the repository of these models into an existing folder."""
    for model in models:
        version = folder / model.name / "1"
        version.mkdir(parents=True)
        (folder / model.name / "config.pbtxt").write_text(config_of(model))
        (version / "model.py").write_text(source_of(model))


def source_of(model: TritonModel) -> str:
    """Return the text of model.py. Triton's stub ignores PYTHONPATH, so it adds this repository itself."""
    return (
        f"import sys\n\nsys.path.append({str(ROOT)!r})\n"
        f"from {ROOM}.{model.module} import {model.class_name} as TritonPythonModel\n"
    )


def _tensor(tensor: Tensor) -> str:
    dims = ", ".join(map(str, tensor.dims))
    return f"[ {{ name: {_quoted(tensor.name)}, data_type: TYPE_{tensor.datatype}, dims: [ {dims} ] }} ]"


def _batching(batching: Batching) -> str:
    preferred = ", ".join(map(str, batching.preferred))
    sizes = f"preferred_batch_size: [ {preferred} ], " if preferred else ""
    return f"dynamic_batching {{ {sizes}max_queue_delay_microseconds: {batching.max_queue_delay_us} }}"


def _quoted(text: str) -> str:
    """Return a string of the text format of protobuf, which takes the escapes of JSON for printable text."""
    return json.dumps(text)
