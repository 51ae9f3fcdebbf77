"""Reads model.json, the only description of the export contract between training and the service.

A version folder, exported/<name>/<version>/, holds model.json, the graphs of its variants and the files that
preprocessing needs. The graph of a chunk cell advances a batch of rows by one chunk of time steps:

    input          int64 [batch, time] token ids, or float32 [batch, time, features]
    lengths        int32 [batch], valid steps of each row in this chunk, 1..time
    <state>        float32 [batch, size], one or more tensors of any names and sizes
    wanted         int64 [wanted], flat positions row * time + step at which the head is computed
    output         float32 [wanted, outputs]
    <next state>   float32 [batch, size], state after each row's last valid step

The graph of a whole network, which looks both ways, runs whole sequences:

    input          as above
    lengths        int32 [batch], valid steps of each row; left out where padding is none
    output         float32 [batch, outputs] if it is pooled, else [batch, time, outputs]

The init graph of a chunk cell computes states at the start of a sequence, of one sequence at a time:

    <input>        float32 [batch, size], any number of them
    source         int64 [batch, time] or float32 [batch, time, features], where it is an encoder
    <state>        float32 [batch, size], for one or more of the states, by their names as inputs

This module knows the files, but neither onnxruntime nor torch.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from service.contract.contracts import SpecV1, SpecV2
from service.contract.files import FileRefused, hash_inside, read_inside
from service.contract.forecast import CYCLES, Anomaly, Column, ColumnLevel, Cycle, ForecastSpec
from service.contract.model import INPUT, LENGTHS, NEXT_SUFFIX, OUTPUT, WANTED, ModelSpec, Task, Variant
from service.contract.network import (
    Cell,
    InitGraph,
    Kind,
    Layer,
    NamedWidth,
    Network,
    Padding,
    State,
    Window,
)
from service.contract.sections import (
    MAX_VERSION,
    NAME_PATTERN,
    Characters,
    Classification,
    FeatureInput,
    Generation,
    Golden,
    GoldenInput,
    Name,
    Normalization,
    Provenance,
    Source,
    StatePair,
    TokenInput,
    TokenizerFile,
    VariantFile,
    Version,
    field_names,
)
from service.contract.sentences import sentences
from service.contract.sequences import FeatureColumn, OutputColumn, OutputSpec, SequencesSpec
from service.contract.source import SOURCE, SourceSpec

__all__ = [
    "CONTRACTS",
    "CYCLES",
    "INPUT",
    "LENGTHS",
    "MAX_SPEC_BYTES",
    "MAX_VERSION",
    "NEXT_SUFFIX",
    "OUTPUT",
    "SOURCE",
    "SPEC_FILE",
    "WANTED",
    "Anomaly",
    "Cell",
    "Characters",
    "Classification",
    "Column",
    "ColumnLevel",
    "Cycle",
    "FeatureColumn",
    "FeatureInput",
    "ForecastSpec",
    "Generation",
    "Golden",
    "GoldenInput",
    "InitGraph",
    "Kind",
    "Layer",
    "ModelSpec",
    "Name",
    "NamedWidth",
    "Network",
    "Normalization",
    "OutputColumn",
    "OutputSpec",
    "Padding",
    "Provenance",
    "SequencesSpec",
    "Source",
    "SourceSpec",
    "SpecError",
    "SpecV1",
    "SpecV2",
    "State",
    "StatePair",
    "Task",
    "TokenInput",
    "TokenizerFile",
    "Variant",
    "VariantFile",
    "Version",
    "Window",
    "hash_of",
    "is_name",
    "parse_spec",
    "read_document",
    "read_spec",
    "read_version",
]

SPEC_FILE = "model.json"
# These limits bound the memory and time that a damaged or hostile file can take.
MAX_SPEC_BYTES = 4 << 20
MAX_KEYS = 4096  # of all objects in model.json together
MAX_FILE_BYTES = 2 << 30  # protobuf's own limit
CONTRACTS: dict[int, type[ModelSpec]] = {1: SpecV1, 2: SpecV2}
_NAME = re.compile(NAME_PATTERN)


class SpecError(Exception):
    """model.json, or a file that it names, breaks the contract.

    The text names the check, what was expected and what was found.
    """


def read_version(folder: Path, tried: str | None = None) -> tuple[ModelSpec, str, dict[str, bytes]]:
    """Read and check a version folder: model.json and the hash of every file that it names.

    Args:
        folder: .../<name>/<version>. Both names must agree with model.json, and symbolic links must not lead
            out of the folder that contains <name>.
        tried: sha256 that model.json must have before anything looks into it; None: any.

    Returns:
        The spec, the text of model.json, and the contents of the referenced files by name: the same bytes
        that were hashed, so that a later change on disk has no effect.

    Raises:
        SpecError: the first check that failed.
    """
    spec, text = read_document(folder, tried)
    root, referenced = folder.parents[1], spec.referenced_files()
    files = {}
    for name, expected in spec.files.items():
        if name in referenced:
            files[name] = _read_hashed(folder / name, root, expected)
        else:
            _check_hash(folder / name, root, expected)
    return spec, text, files


def read_document(folder: Path, tried: str | None = None) -> tuple[ModelSpec, str]:
    """Read and check the model.json of a version folder, and none of the files that it names.

    Args and errors are those of `read_version`.

    Returns:
        The spec, and the text of model.json.
    """
    data = _read_spec_file(folder, folder.parents[1])
    if tried not in (None, found := hashlib.sha256(data).hexdigest()):
        raise SpecError(f"sha256 of {SPEC_FILE}: expected {tried}, as it was tried, found {found}")
    text = _decode(data)
    spec = parse_spec(text)
    for what, expected, given in (
        ("name", folder.parent.name, spec.name),
        ("version", folder.name, str(spec.version)),
    ):
        if expected != given:
            raise SpecError(f"{what}: expected {expected}, as the folder says, found {given}")
    return spec, text


def hash_of(text: str) -> str:
    """Return the sha256 of model.json's text, as `read_version` takes it."""
    return hashlib.sha256(text.encode()).hexdigest()


def _read_spec_file(folder: Path, root: Path) -> bytes:
    try:
        return read_inside(folder / SPEC_FILE, root, MAX_SPEC_BYTES)
    except FileNotFoundError as error:
        raise SpecError(f"{SPEC_FILE}: expected a file, found none in {folder.name}") from error
    except FileRefused as error:
        raise SpecError(f"{SPEC_FILE}: expected readable UTF-8 text, found {error}") from error


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SpecError(f"{SPEC_FILE}: expected readable UTF-8 text, found {error}") from error


def _read_hashed(path: Path, root: Path, expected: str) -> bytes:
    """Read a file and compare its sha256 with `expected`."""
    with _refusing(path, expected):
        data = read_inside(path, root, MAX_FILE_BYTES)
    _compare(path, expected, hashlib.sha256(data).hexdigest())
    return data


def _check_hash(path: Path, root: Path, expected: str) -> None:
    """Compare a file's sha256 with `expected`, with little memory however large it is."""
    with _refusing(path, expected):
        found = hash_inside(path, root, MAX_FILE_BYTES)
    _compare(path, expected, found)


@contextmanager
def _refusing(path: Path, expected: str) -> Iterator[None]:
    """Raise SpecError where a file cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise SpecError(f"sha256 of {path.name}: expected {expected}, found no such file") from error
    except FileRefused as error:
        raise SpecError(f"{path.name}: expected a readable file, found {error}") from error


def _compare(path: Path, expected: str, found: str) -> None:
    if found != expected:
        raise SpecError(f"sha256 of {path.name}: expected {expected}, found {found}")


def read_spec(folder: Path) -> tuple[ModelSpec, str]:
    """Read the spec of a version folder and its text, with the same checks as `read_version`.

    Raises:
        SpecError: the first check that failed.
    """
    return read_version(folder)[:2]


def is_name(text: str) -> bool:
    """Return whether a model can have that name."""
    return _NAME.fullmatch(text) is not None


def parse_spec(text: str) -> ModelSpec:
    """Parse and validate the text of model.json.

    Raises:
        SpecError: the text is not JSON or breaks the contract; names up to five places and why.
    """
    contract = _contract_of(_loaded(text))
    try:
        return contract.model_validate_json(text)
    except ValidationError as error:
        found = sentences(error, text, field_names())
        raise SpecError(f"{SPEC_FILE}: " + "; ".join(found)) from error


def _contract_of(document: object) -> type[ModelSpec]:
    """Return the class of a document's contract; of what is no object any, to say so."""
    if not isinstance(document, dict):
        return SpecV1
    if "contract" not in document:
        raise SpecError(f"{SPEC_FILE}: contract: expected a value, found no such field")
    found = document["contract"]
    if type(found) is not int or found not in CONTRACTS:
        known = " or ".join(map(str, CONTRACTS))
        raise SpecError(f"{SPEC_FILE}: contract: expected {known}, found {json.dumps(found)[:80]}")
    return CONTRACTS[found]


def _loaded(text: str) -> object:
    """Return the JSON of a text, whose length and number of keys are checked before pydantic sees it.

    pydantic makes about a kilobyte of each thing that is wrong, and looks at all of them but for lists that
    are marked fail_fast.
    """
    if len(text) > MAX_SPEC_BYTES:
        raise SpecError(f"{SPEC_FILE}: expected at most {MAX_SPEC_BYTES} characters, found {len(text)}")
    keys = 0

    def count(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal keys
        keys += len(pairs)
        if keys > MAX_KEYS:
            raise SpecError(f"{SPEC_FILE}: expected at most {MAX_KEYS} keys in all, found more")
        return dict(pairs)

    try:
        document: object = json.loads(text, object_pairs_hook=count)
    except ValueError as error:
        raise SpecError(f"{SPEC_FILE}: expected JSON, found something else: {error}") from error
    except RecursionError as error:
        raise SpecError(f"{SPEC_FILE}: expected JSON, found it nested too deeply") from error
    return document
