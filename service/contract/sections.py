"""The sections of model.json as typed data, with the checks that need one section alone.

`service.contract.spec` puts them together and documents the graph that they describe.
"""

import unicodedata
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Count = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]
Width = Annotated[int, Field(ge=1, le=1 << 16)]
Size = Annotated[int, Field(ge=1, le=1 << 20)]
# A name of a tensor or an activation function.
Name64 = Annotated[str, Field(min_length=1, max_length=64)]
# The gRPC interface carries versions as uint32.
MAX_VERSION = (1 << 32) - 1
Version = Annotated[int, Field(ge=1, le=MAX_VERSION)]
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Level = Annotated[FiniteFloat, Field(gt=0, lt=1)]
_LARGEST = 3.4028234663852886e38  # of float32
# A number that a tensor of the graph can hold.
Float32 = Annotated[FiniteFloat, Field(ge=-_LARGEST, le=_LARGEST)]
# fail_fast, here and below: a list of a million wrong values is one error and not a million.
Row = Annotated[list[Float32], Field(fail_fast=True)]
Rows = Annotated[list[Row], Field(fail_fast=True)]


class SpecPart(BaseModel):
    """Base class of everything in model.json: immutable, strictly typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def field_names() -> list[str]:
    """Return the names of the fields that an object in model.json can have."""
    parts: list[type[SpecPart]] = [SpecPart]
    for part in parts:
        parts.extend(part.__subclasses__())
    return sorted({name for part in parts for name in part.model_fields})


class TokenInput(SpecPart):
    """Input of token ids 0..size-1."""

    kind: Literal["tokens"]
    size: Size


class FeatureInput(SpecPart):
    """Input of feature rows, `size` float32 values a time step."""

    kind: Literal["features"]
    size: Width


class Normalization(SpecPart):
    """Changes to a caller's text before its tokens are looked up, made in this order.

    Attributes:
        line_ends: CRLF and CR become LF.
        form: Unicode normalization form; NFC makes one character of a letter and its accents.
        characters: what takes the place of a character; "": nothing does.
    """

    line_ends: bool = False
    form: Literal["none", "NFC"] = "none"
    # The length of a replacement bounds what a text can grow to.
    characters: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=1)],
            Annotated[str, Field(max_length=4)],
        ],
        Field(max_length=1024),
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_idempotent(self) -> Self:
        for character, replacement in self.characters.items():
            again = set(replacement) & (self.characters.keys() | ({"\r"} if self.line_ends else set()))
            if again or (self.form == "NFC" and unicodedata.normalize("NFC", replacement) != replacement):
                raise ValueError(
                    f"the replacement of {character!r} must hold nothing that is replaced itself, "
                    f"found {replacement!r}"
                )
        return self


class Characters(SpecPart):
    """Character vocabulary: the token id of a character is its index in `vocabulary`.

    Characters outside the vocabulary are refused, but for those that the normalization replaces. It must
    leave the vocabulary as it is, since that is what the model writes.
    """

    kind: Literal["characters"]
    vocabulary: Annotated[str, Field(min_length=1)]
    normalization: Normalization | None = None

    @model_validator(mode="after")
    def _is_unique(self) -> Self:
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("characters occur twice")
        return self

    @model_validator(mode="after")
    def _keeps_vocabulary(self) -> Self:
        rules = self.normalization or Normalization()
        changed = {*rules.characters, *("\r" if rules.line_ends else "")}
        if rules.form == "NFC":
            changed |= {one for one in self.vocabulary if unicodedata.normalize("NFC", one) != one}
        if both := sorted(changed & set(self.vocabulary)):
            raise ValueError(f"normalization must leave the vocabulary as it is, found {both[:5]} changed")
        made = set("".join(rules.characters.values())) | ({"\n"} if rules.line_ends else set())
        if unknown := sorted(made - set(self.vocabulary)):
            raise ValueError(f"replacements must be of the vocabulary, found {unknown[:5]}")
        return self


class TokenizerFile(SpecPart):
    """Tokenizer in a file of the `tokenizers` library, applied to the normalized text.

    A classifier's must define an unknown token. Without one, a language model refuses texts of which a part
    has no token.
    """

    kind: Literal["tokenizer"]
    file: str
    normalization: Normalization | None = None


class Generation(SpecPart):
    """Section of a text-generation model; the outputs are logits over the vocabulary.

    Attributes:
        text: maps text to token ids. The post-processor of a tokenizer's file may add tokens before a text,
            none behind it.
        start_token: token id fed for an empty prompt.
        prepend_start: the start token is fed before any other prompt, and before a text to score, too.
        end_tokens: token ids that end a generation; they are counted and not shown.
        max_tokens: number of tokens generated if the request sets none.
    """

    text: Annotated[Characters | TokenizerFile, Field(discriminator="kind")]
    start_token: Annotated[int, Field(ge=0)]
    prepend_start: bool = False
    end_tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1024, fail_fast=True)] = Field(
        default_factory=list
    )
    max_tokens: Count


class Classification(SpecPart):
    """Section of a text-classification model; the outputs are logits, one a label."""

    text: TokenizerFile
    labels: Annotated[list[str], Field(min_length=2, max_length=1 << 20, fail_fast=True)]


class StatePair(SpecPart):
    """One state tensor: its name as graph input, its name as graph output, and its width H."""

    input: str
    output: str
    size: Width


class VariantFile(SpecPart):
    """One set of weights.

    Attributes:
        file: name of the ONNX graph.
        batch_invariant: outputs are bit-identical for every batch composition and chunking.
        tolerance: largest allowed difference from golden outputs, at most a tenth of the largest of these.
        generation: name of the graph that runs a few steps with the sampler in it, whose weights are in
            `file`; None: there is none.
    """

    file: str
    batch_invariant: bool
    tolerance: Annotated[FiniteFloat, Field(gt=0)]
    generation: str | None = None


class GoldenInput(SpecPart):
    """One sequence of a golden example: as a network gets it, and as a caller may send it.

    Attributes:
        tokens: token ids, (T,).
        text: a text that normalization and lookup turn into `tokens`.
        features: rows of features, (T, F).
        values: rows that the columns turn into `features`, (T, F).
    """

    tokens: Annotated[list[int], Field(fail_fast=True)] | None = None
    text: str | None = None
    features: Rows | None = None
    values: Rows | None = None

    @property
    def length(self) -> int:
        """Number of time steps T."""
        return len(self.tokens or self.features or ())


class Golden(GoldenInput):
    """One golden example: a whole input and the outputs that PyTorch computed for it.

    The input is what the network gets: of a model with a window, the steps of a whole window.

    Attributes:
        source: what the encoder in the init graph reads.
        initial: inputs of the init graph by name.
        steps: time steps whose outputs are given, ascending.
        outputs: one row of outputs for each entry of `steps`.
    """

    source: GoldenInput | None = None
    initial: dict[str, Row] = Field(default_factory=dict)
    steps: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, fail_fast=True)]
    outputs: Rows


class Source(SpecPart):
    """Origin of a network that was trained elsewhere.

    Attributes:
        file: name of the file that was converted.
        sha256: its hash.
        framework: what it was trained with, such as PyTorch.
        exporter: what wrote the file, with its version.
        opset: opset of an ONNX file.
    """

    file: str
    sha256: Sha256
    framework: str = ""
    exporter: str = ""
    opset: Annotated[int, Field(ge=1)] | None = None

    @property
    def words(self) -> str:
        """The source as a text for people."""
        parts = [self.framework, self.exporter, f"opset {self.opset}" if self.opset else ""]
        known = ", ".join(part for part in parts if part)
        return f"{self.file} ({known})" if known else self.file


class Provenance(SpecPart):
    """Origin of the weights. Contract 1 requires all fields without a default there.

    Attributes:
        data: training data set.
        data_licence: its licence.
        data_sha256: its hash.
        recipe: training command.
        commit: commit of the repository, as far as it is known.
        created: date and time, UTC, ISO 8601.
        seed: random seed of the run.
        versions: versions of the libraries used.
        weights_sha256: hash of the trained weights, to compare a repeated run with this one.
        environment: interpreter, machine and settings that the weights depend on.
        source: file that the network was converted from; None: it was trained here.
        choices: what the training run was told about its data, by name, such as recipe, file and columns, so
            that its held-out part can be found again; None: the version is older, or was not trained here.
    """

    data: str = ""
    data_licence: str = ""
    data_sha256: Sha256 | None = None
    recipe: str = ""
    commit: str = ""
    created: str
    seed: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    weights_sha256: Sha256 | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    source: Source | None = None
    choices: dict[str, str] | None = None
