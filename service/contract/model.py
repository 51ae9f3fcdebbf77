"""Declares what model.json has in either contract, with the checks that need several of its sections."""

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from service.contract.forecast import ForecastSpec
from service.contract.network import Network
from service.contract.sections import (
    Characters,
    Classification,
    FeatureInput,
    Generation,
    Golden,
    Name,
    Provenance,
    Sha256,
    Size,
    SpecPart,
    TokenInput,
    TokenizerFile,
    VariantFile,
    Version,
)
from service.contract.sequences import SequencesSpec
from service.contract.source import SourceSpec, check_golden_source

# Names of the graph's tensors.
INPUT = "input"
LENGTHS = "lengths"
WANTED = "wanted"
OUTPUT = "output"
NEXT_SUFFIX = ".next"

Task = Literal["text-generation", "text-classification", "forecasting", "sequences"]
Variant = Literal["fp32", "int8"]
# These limits bound the memory and time that a damaged or hostile folder can take. They are far above what a
# recurrent network on one machine needs: the models that ship have 30 KB and 160 keys at most.
MAX_GOLDEN = 256
MAX_FILES = 64
# A tolerance may be so much of the largest golden output, or so much where all are small.
MAX_TOLERANCE_PART, MIN_TOLERANCE_LIMIT = 0.1, 1e-3
# A probability may be so much below 0 or above 1.
_ROUNDING = 1e-3
MAX_GOLDEN_VALUES = 1 << 23  # over all steps of all examples


class ModelSpec(SpecPart):
    """Base class of model.json in either contract."""

    name: Name
    version: Version
    task: Task
    input: Annotated[TokenInput | FeatureInput, Field(discriminator="kind")]
    outputs: Size
    generation: Generation | None = None
    classification: Classification | None = None
    forecasting: ForecastSpec | None = None
    sequences: SequencesSpec | None = None
    variants: dict[Variant, VariantFile]
    files: Annotated[dict[str, Sha256], Field(max_length=MAX_FILES)]
    golden: Annotated[list[Golden], Field(min_length=1, max_length=MAX_GOLDEN, fail_fast=True)]
    metrics: dict[str, FiniteFloat]
    provenance: Provenance

    @property
    def network(self) -> Network:
        """The network, in the terms of contract 2."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _fits_together(self) -> "ModelSpec":
        self._check_network()
        self._check_variants()
        self._check_task()
        self._check_files()
        width = max(self.outputs, self.input.size if self.input.kind == "features" else 1)
        values = width * sum(golden.length for golden in self.golden)
        if (values := values + self._source_values()) > MAX_GOLDEN_VALUES:
            raise ValueError(
                f"golden must be at most {MAX_GOLDEN_VALUES} values, "
                f"steps times the wider of input and outputs, and the sources, found {values}"
            )
        for index, golden in enumerate(self.golden):
            self._check_golden_beside(index, golden)
            self._check_golden(index, golden)
        self._check_tolerances()
        return self

    def _check_network(self) -> None:
        """Raise ValueError unless what describes the network fits together."""

    def _source_values(self) -> int:
        """Return the values of the sources of all golden examples."""
        source = self.source
        width = source.input.size if source is not None and source.input.kind == "features" else 1
        return width * sum(golden.source.length for golden in self.golden if golden.source is not None)

    def _check_variants(self) -> None:
        if "fp32" not in self.variants:
            raise ValueError(f"variants must hold fp32, found {sorted(self.variants)}")
        for name, variant in self.variants.items():
            if variant.generation is not None and self.generation is None:
                raise ValueError(
                    f"variants.{name}.generation must be left out for {self.task}, which picks no tokens"
                )

    def _check_tolerances(self) -> None:
        """Refuse a tolerance within which a wrong graph's outputs would be taken for the right ones."""
        largest = max(abs(value) for golden in self.golden for row in golden.outputs for value in row)
        most = max(MIN_TOLERANCE_LIMIT, MAX_TOLERANCE_PART * largest)
        for name, variant in self.variants.items():
            if variant.tolerance > most:
                raise ValueError(
                    f"variants.{name}.tolerance must be at most {most:.3g}, a tenth of the largest "
                    f"golden output, found {variant.tolerance:.3g}"
                )

    def _check_task(self) -> None:
        sections = {
            "text-generation": self.generation,
            "text-classification": self.classification,
            "forecasting": self.forecasting,
            "sequences": self.sequences,
        }
        given = [task for task, section in sections.items() if section is not None]
        if given != [self.task]:
            raise ValueError(f"exactly the section of task {self.task} must be given, found those of {given}")
        if self.generation is not None:
            self._check_generation(self.generation)
        if self.classification is not None:
            self._expect("outputs", len(self.classification.labels), self.outputs)
        if self.forecasting is not None:
            self._expect("input.size", self.forecasting.num_features, self.input.size)
            self._expect("outputs", self.forecasting.horizon * len(self.forecasting.quantiles), self.outputs)
        if self.sequences is not None:
            self._check_sequences(self.sequences)
        else:
            expected = "features" if self.task == "forecasting" else "tokens"
            self._expect("input.kind", expected, self.input.kind)
        if self.task in ("text-generation", "forecasting") and self.network.kind == "whole":
            raise ValueError(
                f"kind must be chunk for {self.task}, which goes on step by step, found whole; "
                "the task sequences serves whole networks"
            )
        if self.source is not None and self.task != "text-generation":
            raise ValueError(
                f"init.source must be left out for {self.task}, found one: only text-generation begins with "
                "an encoder's source"
            )

    def _check_generation(self, section: Generation) -> None:
        if isinstance(section.text, Characters):
            self._expect("input.size", len(section.text.vocabulary), self.input.size)
            self._expect("outputs", len(section.text.vocabulary), self.outputs)
        else:
            self._expect("outputs, one a token,", self.input.size, self.outputs)
        if section.start_token >= self.input.size:
            raise ValueError(f"start_token must be below {self.input.size}, found {section.start_token}")
        for token in section.end_tokens:
            if token >= self.input.size:
                raise ValueError(f"end_tokens must be below {self.input.size}, found {token}")

    def _check_sequences(self, section: SequencesSpec) -> None:
        if section.text is not None:
            self._expect("input.kind of a model with sequences.text", "tokens", self.input.kind)
        if isinstance(section.text, Characters):
            self._expect("input.size", len(section.text.vocabulary), self.input.size)
        if section.columns is not None:
            self._expect("input.kind of a model with sequences.columns", "features", self.input.kind)
            self._expect("input.size", len(section.columns), self.input.size)
        output = section.output
        if output.labels is not None and not (output.is_binary and self.outputs == 1):
            self._expect("outputs, one a label,", len(output.labels), self.outputs)
        if output.columns is not None:
            self._expect("outputs, one a column,", len(output.columns), self.outputs)
        if output.steps == "every" and self.network.is_pooled:
            raise ValueError("sequences.output.steps must be last for a pooled network, found every")

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

    def _check_golden_beside(self, index: int, golden: Golden) -> None:
        """Check what an example has beside its input and outputs, and what depends on the network."""
        if golden.values is not None and (golden.features is None or len(golden.values) != golden.length):
            raise ValueError(f"golden[{index}] must hold a row of values for each row of features")
        width = self.input.size if self.forecasting is None else len(self.forecasting.columns)
        if any(len(row) != width for row in golden.values or ()):
            raise ValueError(f"golden[{index}].values must hold rows of {width} values")
        init = self.network.init
        widths = {one.name: one.size for one in init.inputs} if init else {}
        if {name: len(row) for name, row in golden.initial.items()} != widths:
            raise ValueError(f"golden[{index}].initial must hold the init graph's inputs, {widths}")
        check_golden_source(f"golden[{index}]", golden.source, self.source)
        window = self.network.window
        if window is not None and golden.length != window.to:
            raise ValueError(
                f"golden[{index}] must hold {window.to} steps, a whole window, found {golden.length}"
            )
        if self.sequences is not None and self.sequences.output.kind == "probabilities":
            self._check_probabilities(index, golden)
        if self.network.is_pooled and golden.steps != [golden.length - 1]:
            raise ValueError(f"golden[{index}].steps must be the last step of a pooled network alone")

    @staticmethod
    def _check_probabilities(index: int, golden: Golden) -> None:
        for row in golden.outputs:
            for value in row:
                if not -_ROUNDING <= value <= 1 + _ROUNDING:
                    raise ValueError(
                        f"golden[{index}].outputs must be 0..1 where sequences.output.kind is probabilities, "
                        f"found {value:g}; what comes before softmax or sigmoid is logits"
                    )

    @staticmethod
    def _expect(what: str, expected: object, found: object) -> None:
        if expected != found:
            raise ValueError(f"{what} must be {expected}, found {found}")

    @property
    def text(self) -> Characters | TokenizerFile | None:
        """Section that maps text to token ids; None: the model takes no text."""
        sections = (self.generation, self.classification, self.sequences)
        return next((section.text for section in sections if section is not None), None)

    @property
    def source(self) -> SourceSpec | None:
        """Section on what an encoder reads; None: there is no encoder."""
        init = self.network.init
        return None if init is None else init.source

    def referenced_files(self) -> list[str]:
        """List the files that the spec refers to: graphs and tokenizers."""
        names = [variant.file for variant in self.variants.values()]
        names += [one.generation for one in self.variants.values() if one.generation is not None]
        texts = (self.text, None if self.source is None else self.source.text)
        names += [text.file for text in texts if isinstance(text, TokenizerFile)]
        if self.network.init is not None:
            names.append(self.network.init.file)
        return names
