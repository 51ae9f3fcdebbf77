"""Models on disk: those that ship, and any other version folder. Knows no torch, so that servers under test
need none.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract.spec import ModelSpec, Variant, read_spec

SHIPPED = Path(__file__).parents[1] / "exported"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Model:
    """A version on disk.

    Attributes:
        folder: <repository>/<name>/<version>.
        spec: its model.json.
    """

    folder: Path
    spec: ModelSpec

    @property
    def name(self) -> str:
        """As requests give it."""
        return self.spec.name

    @property
    def repository(self) -> Path:
        """The folder of models that it is in."""
        return self.folder.parents[1]

    @property
    def state_pairs(self) -> list[tuple[str, str]]:
        """Names of state inputs and outputs."""
        return [(pair.input, pair.output) for pair in self.spec.network.states]

    def graph(self, variant: Variant = "fp32") -> Path:
        """The graph of a variant."""
        return self.folder / self.spec.variants[variant].file

    def tokenizer(self) -> Tokenizer:
        """A classifier's tokenizer."""
        return Tokenizer.from_file(str(self.folder / TOKENIZER_FILE))

    def encode(self, texts: list[str]) -> list[NDArray[np.int64]]:
        """Token ids of texts."""
        return [np.array(encoding.ids, np.int64) for encoding in self.tokenizer().encode_batch(texts)]


def read_model(folder: Path) -> Model:
    """A version folder, checked."""
    return Model(folder, read_spec(folder)[0])


def shipped(name: str) -> Model:
    """The newest version of a model that ships."""
    versions = [int(path.name) for path in (SHIPPED / name).iterdir() if path.name.isdecimal()]
    return read_model(SHIPPED / name / str(max(versions)))


def empty_state(model: Model, rows: int) -> list[NDArray[Any]]:
    """Zeros, one float32 (rows, H) a state tensor."""
    return [np.zeros((rows, pair.size), np.float32) for pair in model.spec.network.states]
