"""model.json as typed data: the only description of the export contract between training and the service.

A version folder, exported/<name>/<version>/, holds model.json, the graphs of its variants and what
preprocessing needs. The graph is a chunk cell:

    input      int64 [batch, time] token ids, or float32 [batch, time, features]
    lengths    int32 [batch], valid steps of each row in this chunk, 1..time
    <state>    float32 [batch, hidden], one tensor a layer and kind; zeros start a sequence
    wanted     int64 [wanted], flat positions row * time + step at which the head is asked for
    output     float32 [wanted, outputs]
    <state>.next   float32 [batch, hidden], after each row's last valid step

This module knows the file, not onnxruntime and not torch.
"""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from service.contract.files import FileRefused, read_inside

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
# Bounds keep a damaged or hostile file from taking memory and time without end; they lie far above what a
# recurrent network on one machine has.
MOST_SPEC_BYTES = 64 << 20
MOST_FILE_BYTES = 2 << 30  # what protobuf can hold
MOST_FILES = 64
MOST_GOLDEN_VALUES = 1 << 26  # of all steps of all examples
Count = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]
Width = Annotated[int, Field(ge=1, le=1 << 16)]
Size = Annotated[int, Field(ge=1, le=1 << 20)]
# The interface carries versions as uint32.
MOST_VERSION = (1 << 32) - 1
Version = Annotated[int, Field(ge=1, le=MOST_VERSION)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Level = Annotated[FiniteFloat, Field(gt=0, lt=1)]


class SpecError(Exception):
    """model.json, or a file it names, is not what the contract calls for. The text names the check, what was
    expected and what was found.
    """


class Part(BaseModel):
    """Base of everything in model.json: immutable, and nothing unknown is let through."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TokenInput(Part):
    """Token ids 0..size-1."""

    kind: Literal["tokens"]
    size: Size


class FeatureInput(Part):
    """Feature rows of `size` float32 values."""

    kind: Literal["features"]
    size: Width


class Characters(Part):
    """Text to ids by a table of characters: a character's index is its token id. Characters outside it are
    refused.
    """

    kind: Literal["characters"]
    vocabulary: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _is_unique(self) -> Self:
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("characters occur twice")
        return self


class TokenizerFile(Part):
    """Text to ids by a file of the `tokenizers` library, with an unknown token in it."""

    kind: Literal["tokenizer"]
    file: str


class Generation(Part):
    """What a text-generation model needs beside its graph.

    Attributes:
        start_token: id fed for an empty prompt.
        max_tokens: tokens generated where the request does not say.
    """

    text: Characters
    start_token: Annotated[int, Field(ge=0)]
    max_tokens: Count


class Classification(Part):
    """What a text-classification model needs: outputs are logits, one a label."""

    text: TokenizerFile
    labels: Annotated[list[str], Field(min_length=2)]


class Column(Part):
    """How one observed value becomes a feature: (f(value) - f(reference one step before)) / scale.

    The first observation stands in for its own predecessor.

    Attributes:
        name: of the value in an observation.
        unit: for people.
        transform: f: the natural logarithm (values must be positive) or nothing.
        reference: the column whose earlier value is subtracted.
        scale: standard deviation on the training part.
    """

    name: str
    unit: str
    transform: Literal["log", "none"]
    reference: str
    scale: Annotated[FiniteFloat, Field(gt=0)]


class ForecastSpec(Part):
    """What a forecasting model needs: outputs are changes of the target from its last value, horizon x
    quantiles, step by step.

    f(target in step s) = f(last) + output[s, q] * scales[s], f being the target column's transform.

    Attributes:
        columns: the values of an observation, in order.
        target: the column forecast.
        horizon: steps ahead.
        quantiles: levels, rising, the median among them.
        scales: of each step ahead, from the training part.
        least_observations: fewest observations that the model was trained on.
    """

    columns: Annotated[list[Column], Field(min_length=1)]
    target: str
    horizon: Width
    quantiles: Annotated[list[Level], Field(min_length=1)]
    scales: list[Annotated[FiniteFloat, Field(gt=0)]]
    least_observations: Count

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"column names must differ, found {names}")
        if self.target not in names:
            raise ValueError(f"target must be one of {names}, found {self.target!r}")
        for column in self.columns:
            if column.reference not in names:
                raise ValueError(
                    f"reference of {column.name} must be one of {names}, found {column.reference!r}"
                )
            if column.transform != self.column(column.reference).transform:
                raise ValueError(
                    f"{column.name} and its reference {column.reference} must have one transform"
                )
        if len(self.scales) != self.horizon:
            raise ValueError(f"scales must be {self.horizon}, one a step ahead, found {len(self.scales)}")
        if self.quantiles != sorted(set(self.quantiles)) or 0.5 not in self.quantiles:
            raise ValueError(f"quantiles must rise and hold 0.5, found {self.quantiles}")
        return self

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)


class StatePair(Part):
    """One state tensor: its name as graph input and as graph output, and its width."""

    input: str
    output: str
    size: Width


class VariantFile(Part):
    """One set of weights.

    Attributes:
        file: the graph.
        batch_invariant: answers are bit-identical whatever the batch and the chunking.
        tolerance: largest absolute difference from PyTorch's golden outputs that is admitted.
    """

    file: str
    batch_invariant: bool
    tolerance: Annotated[FiniteFloat, Field(gt=0)]


class Golden(Part):
    """One example: a whole input and what PyTorch computed for it.

    Attributes:
        tokens: the input of a token model.
        features: the input of a feature model, one row a step.
        steps: the steps at which outputs are given, rising.
        outputs: one row a step of `steps`.
    """

    tokens: list[int] | None = None
    features: list[list[FiniteFloat]] | None = None
    steps: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    outputs: list[list[FiniteFloat]]

    @property
    def length(self) -> int:
        """Time steps of the input."""
        return len(self.tokens or self.features or ())


class Provenance(Part):
    """Where the weights come from.

    Attributes:
        data, data_licence, data_sha256: what it was trained on.
        recipe: the training command.
        commit: of the repository, as far as it is known.
        created: date and time, UTC, ISO 8601.
        seed: of the run.
        versions: of the libraries that made it.
        weights_sha256: of the trained weights, by which a repeated run is compared with this one.
        environment: interpreter, machine and settings that the weights depend on.
    """

    data: str
    data_licence: str
    data_sha256: Sha256
    recipe: str
    commit: str
    created: str
    seed: int
    versions: dict[str, str]
    weights_sha256: Sha256 | None = None
    environment: dict[str, str] = Field(default_factory=dict)


class ModelSpec(Part):
    """The whole of model.json."""

    contract: Literal[1]
    name: Name
    version: Version
    task: Task
    cell: Cell
    layers: Annotated[int, Field(ge=1, le=1024)]
    hidden: Width
    input: Annotated[TokenInput | FeatureInput, Field(discriminator="kind")]
    outputs: Size
    state: Annotated[list[StatePair], Field(min_length=1)]
    generation: Generation | None = None
    classification: Classification | None = None
    forecasting: ForecastSpec | None = None
    variants: dict[Variant, VariantFile]
    files: Annotated[dict[str, Sha256], Field(max_length=MOST_FILES)]
    golden: Annotated[list[Golden], Field(min_length=1)]
    metrics: dict[str, FiniteFloat]
    provenance: Provenance

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        kinds = ("h", "c") if self.cell == "lstm" else ("h",)
        names = [f"layer{layer}.{kind}" for layer in range(self.layers) for kind in kinds]
        expected = [StatePair(input=name, output=name + NEXT_SUFFIX, size=self.hidden) for name in names]
        if self.state != expected:
            raise ValueError(
                f"state must be {[pair.input for pair in expected]} of {self.hidden} each, found {self.state}"
            )
        if "fp32" not in self.variants:
            raise ValueError(f"variants must hold fp32, found {sorted(self.variants)}")
        if "int8" in self.variants and self.variants["int8"].batch_invariant:
            raise ValueError(
                "variants.int8.batch_invariant must be false, since all rows of a run share one scale, found true"
            )
        self._check_task()
        for name in self.referenced_files():
            if name not in self.files:
                raise ValueError(f"files must give the sha256 of {name}, found {sorted(self.files)}")
        for name in self.files:
            if PurePosixPath(name).name != name or name in ("", ".", "..") or not name.isprintable():
                raise ValueError(f"files must be plain names in the version's folder, found {name!r}")
        width = max(self.outputs, self.input.size if self.input.kind == "features" else 1)
        if (values := width * sum(golden.length for golden in self.golden)) > MOST_GOLDEN_VALUES:
            raise ValueError(
                f"golden must be at most {MOST_GOLDEN_VALUES} values, steps times the wider of input and outputs, found {values}"
            )
        for index, golden in enumerate(self.golden):
            self._check_golden(index, golden)
        return self

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

    def _check_golden(self, index: int, golden: Golden) -> None:
        if (golden.tokens is None) == (self.input.kind == "tokens") or (golden.features is None) == (
            self.input.kind == "features"
        ):
            raise ValueError(f"golden[{index}] must hold {self.input.kind} alone")
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
        """Every file that the spec needs beside model.json."""
        names = [variant.file for variant in self.variants.values()]
        if self.classification is not None:
            names.append(self.classification.text.file)
        return names

    @property
    def invariant_cell(self) -> bool:
        """Whether onnxruntime's CPU kernel of this cell gives the same bits in every batch (measured; RNN's
        differs by 1 ulp).
        """
        return self.cell != "rnn"


def read_version(folder: Path) -> tuple[ModelSpec, str, dict[str, bytes]]:
    """Read and check a version folder: model.json and the hash of every file it names.

    Args:
        folder: .../<name>/<version>, both of which must agree with the file; links may not lead out of the
            folder above them.

    Returns:
        The spec, the text of model.json, and the contents of what it refers to, by name: the very bytes that
        were hashed.

    Raises:
        SpecError: the first check that failed.
    """
    root = folder.parents[1]
    try:
        text = read_inside(folder / SPEC_FILE, root, MOST_SPEC_BYTES).decode()
    except FileNotFoundError as error:
        raise SpecError(f"{SPEC_FILE}: expected a file, found none in {folder.name}") from error
    except (FileRefused, UnicodeDecodeError) as error:
        raise SpecError(f"{SPEC_FILE}: expected readable UTF-8 text, found {error}") from error
    spec = parse_spec(text)
    for what, expected, found in (
        ("name", folder.parent.name, spec.name),
        ("version", folder.name, str(spec.version)),
    ):
        if expected != found:
            raise SpecError(f"{what}: expected {expected}, as the folder says, found {found}")
    files = {}
    for name, expected in spec.files.items():
        try:
            data = read_inside(folder / name, root, MOST_FILE_BYTES)
        except FileNotFoundError as error:
            raise SpecError(f"sha256 of {name}: expected {expected}, found no such file") from error
        except FileRefused as error:
            raise SpecError(f"{name}: expected a readable file, found {error}") from error
        if (found := hashlib.sha256(data).hexdigest()) != expected:
            raise SpecError(f"sha256 of {name}: expected {expected}, found {found}")
        if name in spec.referenced_files():
            files[name] = data
    return spec, text, files


def read_spec(folder: Path) -> tuple[ModelSpec, str]:
    """The spec of a version folder and its text, checked as `read_version` does.

    Raises:
        SpecError: the first check that failed.
    """
    return read_version(folder)[:2]


def parse_spec(text: str) -> ModelSpec:
    """The text of model.json as a spec.

    Raises:
        SpecError: not JSON, or not by the contract: the first few places and why.
    """
    try:
        return ModelSpec.model_validate_json(text)
    except ValidationError as error:
        found = [
            f"{'.'.join(map(str, one['loc'])) or 'whole'}: {one['msg']}"
            for one in error.errors(include_url=False)[:5]
        ]
        raise SpecError(f"{SPEC_FILE}: " + "; ".join(found)) from error
