"""model.json as typed data: the only description of the export contract between training and the service.

A version folder, exported/<name>/<version>/, holds model.json, the graphs of its variants and the files that
preprocessing needs. The graph advances a batch of rows by one chunk of time steps:

    input          int64 [batch, time] token ids, or float32 [batch, time, features]
    lengths        int32 [batch], valid steps of each row in this chunk, 1..time
    <state>        float32 [batch, hidden], one tensor for each layer and kind; zeros start a sequence
    wanted         int64 [wanted], flat positions row * time + step at which the head is computed
    output         float32 [wanted, outputs]
    <state>.next   float32 [batch, hidden], state after each row's last valid step

This module knows the files, but neither onnxruntime nor torch.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, ValidationError, model_validator

from service.contract.files import FileRefused, hash_inside, read_inside
from service.contract.sections import (
    Characters,
    Classification,
    Column,
    FeatureInput,
    ForecastSpec,
    Generation,
    Golden,
    Normalization,
    Provenance,
    Sha256,
    Size,
    SpecPart,
    StatePair,
    TokenInput,
    TokenizerFile,
    VariantFile,
    Width,
    field_names,
)
from service.contract.sentences import MAX_PLACE, sentences

__all__ = [
    "CONTRACT_VERSION",
    "INPUT",
    "LENGTHS",
    "MAX_SPEC_BYTES",
    "MAX_VERSION",
    "NEXT_SUFFIX",
    "OUTPUT",
    "SPEC_FILE",
    "WANTED",
    "Cell",
    "Characters",
    "Classification",
    "Column",
    "FeatureInput",
    "ForecastSpec",
    "Generation",
    "Golden",
    "ModelSpec",
    "Name",
    "Normalization",
    "Provenance",
    "SpecError",
    "StatePair",
    "Task",
    "TokenInput",
    "TokenizerFile",
    "Variant",
    "VariantFile",
    "Version",
    "hash_of",
    "is_name",
    "parse_spec",
    "read_spec",
    "read_version",
]

CONTRACT_VERSION = 1
SPEC_FILE = "model.json"
INPUT = "input"
LENGTHS = "lengths"
WANTED = "wanted"
OUTPUT = "output"
NEXT_SUFFIX = ".next"

Task = Literal["text-generation", "text-classification", "forecasting"]
Cell = Literal["rnn", "lstm", "gru"]
Variant = Literal["fp32", "int8"]
# These limits bound the memory and time that a damaged or hostile folder can take. They are far above what a
# recurrent network on one machine needs: the models that ship have 30 KB and 160 keys at most.
MAX_SPEC_BYTES = 4 << 20
MAX_KEYS = 4096  # of all objects in model.json together
MAX_GOLDEN = 256
MAX_LAYERS = 1024
MAX_FILE_BYTES = 2 << 30  # protobuf's own limit
MAX_FILES = 64
MAX_GOLDEN_VALUES = 1 << 23  # over all steps of all examples
# The gRPC interface carries versions as uint32.
MAX_VERSION = (1 << 32) - 1
Version = Annotated[int, Field(ge=1, le=MAX_VERSION)]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Name = Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]


class SpecError(Exception):
    """model.json, or a file that it names, breaks the contract.

    The text names the check, what was expected and what was found.
    """


class ModelSpec(SpecPart):
    """The whole of model.json."""

    contract: Literal[1]
    name: Name
    version: Version
    task: Task
    cell: Cell
    layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)]
    hidden: Width
    input: Annotated[TokenInput | FeatureInput, Field(discriminator="kind")]
    outputs: Size
    state: Annotated[list[StatePair], Field(min_length=1, max_length=2 * MAX_LAYERS, fail_fast=True)]
    generation: Generation | None = None
    classification: Classification | None = None
    forecasting: ForecastSpec | None = None
    variants: dict[Variant, VariantFile]
    files: Annotated[dict[str, Sha256], Field(max_length=MAX_FILES)]
    golden: Annotated[list[Golden], Field(min_length=1, max_length=MAX_GOLDEN, fail_fast=True)]
    metrics: dict[str, FiniteFloat]
    provenance: Provenance

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._check_state()
        self._check_variants()
        self._check_task()
        self._check_files()
        width = max(self.outputs, self.input.size if self.input.kind == "features" else 1)
        if (values := width * sum(golden.length for golden in self.golden)) > MAX_GOLDEN_VALUES:
            raise ValueError(
                f"golden must be at most {MAX_GOLDEN_VALUES} values, "
                f"steps times the wider of input and outputs, found {values}"
            )
        for index, golden in enumerate(self.golden):
            self._check_golden(index, golden)
        return self

    def _check_state(self) -> None:
        kinds = ("h", "c") if self.cell == "lstm" else ("h",)
        names = [f"layer{layer}.{kind}" for layer in range(self.layers) for kind in kinds]
        expected = [StatePair(input=name, output=name + NEXT_SUFFIX, size=self.hidden) for name in names]
        if len(self.state) != len(expected):
            raise ValueError(
                f"state must hold {len(expected)} tensors, {', '.join(names)}, found {len(self.state)}"
            )
        for index, (pair, wanted) in enumerate(zip(self.state, expected, strict=True)):
            if pair != wanted:
                raise ValueError(
                    f"state[{index}] must be {wanted.input} and {wanted.output} of size {wanted.size}, "
                    f"found {pair.input[:MAX_PLACE]} and {pair.output[:MAX_PLACE]} of size {pair.size}"
                )

    def _check_variants(self) -> None:
        if "fp32" not in self.variants:
            raise ValueError(f"variants must hold fp32, found {sorted(self.variants)}")
        if "int8" in self.variants and self.variants["int8"].batch_invariant:
            raise ValueError(
                "variants.int8.batch_invariant must be false, "
                "since all rows of a run share one scale, found true"
            )

    def _check_task(self) -> None:
        sections = {
            "text-generation": self.generation,
            "text-classification": self.classification,
            "forecasting": self.forecasting,
        }
        given = [task for task, section in sections.items() if section is not None]
        if given != [self.task]:
            raise ValueError(f"exactly the section of task {self.task} must be given, found those of {given}")
        if self.generation is not None:
            self._expect("input.size", len(self.generation.text.vocabulary), self.input.size)
            self._expect("outputs", len(self.generation.text.vocabulary), self.outputs)
            if self.generation.start_token >= self.input.size:
                raise ValueError(
                    f"start_token must be below {self.input.size}, found {self.generation.start_token}"
                )
        if self.classification is not None:
            self._expect("outputs", len(self.classification.labels), self.outputs)
        if self.forecasting is not None:
            self._expect("input.size", len(self.forecasting.columns), self.input.size)
            self._expect("outputs", self.forecasting.horizon * len(self.forecasting.quantiles), self.outputs)
        self._expect("input.kind", "features" if self.task == "forecasting" else "tokens", self.input.kind)

    def _check_files(self) -> None:
        for name in self.referenced_files():
            if name not in self.files:
                raise ValueError(f"files must give the sha256 of {name}, found {sorted(self.files)}")
        for name in self.files:
            if PurePosixPath(name).name != name or name in ("", ".", "..") or not name.isprintable():
                raise ValueError(f"files must be plain names in the version's folder, found {name!r}")

    def _check_golden(self, index: int, golden: Golden) -> None:
        if (golden.tokens is None) == (self.input.kind == "tokens") or (golden.features is None) == (
            self.input.kind == "features"
        ):
            raise ValueError(f"golden[{index}] must hold {self.input.kind} alone")
        if golden.text is not None and golden.tokens is None:
            raise ValueError(f"golden[{index}] must hold a text beside tokens alone")
        if golden.length < 1 or any(len(row) != self.input.size for row in golden.features or ()):
            raise ValueError(f"golden[{index}] must hold rows of {self.input.size} values, at least one")
        if any(not 0 <= token < self.input.size for token in golden.tokens or ()):
            raise ValueError(f"golden[{index}] must hold tokens below {self.input.size}")
        if golden.steps != sorted(set(golden.steps)) or golden.steps[-1] >= golden.length:
            raise ValueError(
                f"golden[{index}].steps must rise within 0..{golden.length - 1}, found {golden.steps}"
            )
        if len(golden.outputs) != len(golden.steps) or any(
            len(row) != self.outputs for row in golden.outputs
        ):
            raise ValueError(f"golden[{index}].outputs must be {len(golden.steps)} rows of {self.outputs}")

    @staticmethod
    def _expect(what: str, expected: object, found: object) -> None:
        if expected != found:
            raise ValueError(f"{what} must be {expected}, found {found}")

    def referenced_files(self) -> list[str]:
        """List the files that the spec refers to: the graphs and, for classification, the tokenizer."""
        names = [variant.file for variant in self.variants.values()]
        if self.classification is not None:
            names.append(self.classification.text.file)
        return names

    @property
    def has_batch_invariant_kernel(self) -> bool:
        """True if onnxruntime's CPU kernel of this cell gives the same bits in every batch.

        Measured: LSTM and GRU do, RNN differs by 1 ulp.
        """
        return self.cell != "rnn"


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
    root = folder.parents[1]
    data = _read_spec_file(folder, root)
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
    referenced = spec.referenced_files()
    files = {}
    for name, expected in spec.files.items():
        if name in referenced:
            files[name] = _read_hashed(folder / name, root, expected)
        else:
            _check_hash(folder / name, root, expected)
    return spec, text, files


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
    _check_size(text)
    try:
        return ModelSpec.model_validate_json(text)
    except ValidationError as error:
        found = sentences(error, text, field_names())
        raise SpecError(f"{SPEC_FILE}: " + "; ".join(found)) from error


def _check_size(text: str) -> None:
    """Check length and number of keys before pydantic sees the text.

    pydantic makes about a kilobyte of each thing that is wrong, and looks at all of them but for lists that
    are marked fail_fast.
    """
    if len(text) > MAX_SPEC_BYTES:
        raise SpecError(f"{SPEC_FILE}: expected at most {MAX_SPEC_BYTES} characters, found {len(text)}")
    keys = 0

    def count(pairs: list[tuple[str, object]]) -> None:
        nonlocal keys
        keys += len(pairs)
        if keys > MAX_KEYS:
            raise SpecError(f"{SPEC_FILE}: expected at most {MAX_KEYS} keys in all, found more")

    try:
        json.loads(text, object_pairs_hook=count)
    except ValueError as error:
        raise SpecError(f"{SPEC_FILE}: expected JSON, found something else: {error}") from error
    except RecursionError as error:
        raise SpecError(f"{SPEC_FILE}: expected JSON, found it nested too deeply") from error
