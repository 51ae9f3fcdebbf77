"""Turns a network's outputs into what they mean: labels, probabilities, numbers, embeddings."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import OutputSpec
from service.errors import InvalidArgument
from service.tasks.pacing import Pace
from service.tasks.text_reader import Span

OutputKind = Literal["label", "probabilities", "numbers", "embedding"]

# Values of rows that are worked on before other calls run.
_SLICE_VALUES = 20_000
# A label is given where several may hold if it is at least so probable.
_MIN_PROBABILITY = 0.5


@dataclass(frozen=True, slots=True)
class SequenceOutput:
    """The outputs of one sequence: one row, or one a time step.

    Attributes:
        values: numbers, an embedding or the network's own outputs, float32 (rows, width); None: neither.
        labels: one a row of a model with labels; "" where none of several is probable.
        probabilities: float32 (rows, labels), or (rows, outputs) of a model without labels; None: not of
            classes.
        spans: of a text, the characters that each row stands for.
        steps: number of rows.
    """

    values: NDArray[np.float32] | None
    labels: list[str]
    probabilities: NDArray[np.float32] | None
    spans: list[Span]
    steps: int


class OutputReader:
    """Reads one model's outputs. The arithmetic is row by row, so that a row's answer is its own.

    Args:
        section: what the outputs are.
        width: number of outputs, V.

    Attributes:
        kind: what the model gives.
        labels: names of the classes; none without labels.
        num_probabilities: probabilities of a row; 0: none.
    """

    def __init__(self, section: OutputSpec, width: int) -> None:
        self._section = section
        self._width = width
        self.labels = section.labels or []
        self._has_classes = section.kind in ("logits", "probabilities")
        # A single output of an exclusive choice is that of the second of two classes.
        self._is_binary = section.is_binary and width == 1
        self.kind = self._kind()
        self.num_probabilities = (len(self.labels) or width) if self._has_classes else 0
        columns = section.columns or ()
        self._means = np.array([column.mean for column in columns])
        self._scales = np.array([column.scale for column in columns])
        sizes = [len(label.encode(errors="surrogatepass")) for label in self.labels]
        self._max_label_bytes = max(sizes, default=0)

    def _kind(self) -> OutputKind:
        if self._has_classes:
            return "label" if self.labels else "probabilities"
        return "numbers" if self._section.kind == "numbers" else "embedding"

    def row_bytes(self, raw: bool) -> int:
        """Return the most bytes that a row takes in an answer, of whichever protocol, its span included."""
        numbers = self.num_probabilities
        if raw or not self._has_classes:
            numbers += self._width
        return 4 * numbers + (self._max_label_bytes + 6 if self.labels else 0) + 14

    async def read(
        self, rows: NDArray[np.float32], raw: bool, spans: list[Span], field: str
    ) -> SequenceOutput:
        """Return what rows of outputs mean; other calls run in between if there are many.

        Args:
            rows: outputs of the network, float32 (R, V).
            raw: whether they are wanted themselves.
            spans: characters that each row stands for.
            field: path of the sequence in the request.

        Raises:
            InvalidArgument: the network gives something else than numbers for classes of this sequence.
        """
        step = max(1, _SLICE_VALUES // max(self._width, 1))
        if len(rows) <= step:
            return SequenceOutput(*self._read(rows, raw, field), spans, len(rows))
        pace, parts = Pace(), []
        for start in range(0, len(rows), step):
            parts.append(self._read(rows[start : start + step], raw, field))
            await pace.rest()
        values, labels, probabilities = zip(*parts, strict=True)
        return SequenceOutput(
            _joined(values),
            [one for part in labels for one in part],
            _joined(probabilities),
            spans,
            len(rows),
        )

    def _read(
        self, rows: NDArray[np.float32], raw: bool, field: str
    ) -> tuple[NDArray[np.float32] | None, list[str], NDArray[np.float32] | None]:
        """Return values, labels and probabilities of rows, float32 (R, V)."""
        if not self._has_classes:
            return (rows if raw else self._scaled(rows)), [], None
        # Infinite logits give probabilities that are no numbers, which are refused here.
        with np.errstate(invalid="ignore"):
            probabilities = self._probabilities(rows)
        check_probabilities(probabilities, field)
        return (rows if raw else None), self._labels_of(probabilities), probabilities.astype(np.float32)

    def _scaled(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self._section.columns:
            return rows
        with np.errstate(over="ignore"):
            scaled: NDArray[np.float32] = (rows * self._scales + self._means).astype(np.float32)
            return scaled

    def _probabilities(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of each class, float64 (R, L)."""
        found = rows.astype(np.float64)
        if self._section.kind == "logits":
            is_softmax = self._section.exclusive and (self._width > 1 or len(self.labels) == 1)
            found = _softmax(found) if is_softmax else _sigmoid(found)
        return np.concatenate([1 - found, found], axis=1) if self._is_binary else found

    def _labels_of(self, probabilities: NDArray[np.float64]) -> list[str]:
        if not self.labels:
            return []
        best = probabilities.argmax(axis=1)
        labels = [self.labels[index] for index in best.tolist()]
        if self._section.exclusive:
            return labels
        is_likely = probabilities[np.arange(len(best)), best] >= _MIN_PROBABILITY
        return [label if one else "" for label, one in zip(labels, is_likely.tolist(), strict=True)]


def check_probabilities(found: NDArray[np.float64] | float, field: str) -> None:
    """Raise InvalidArgument where a probability is no number, of which no label could be chosen.

    Args:
        found: probabilities, or their sum.
        field: path in the request of what they are of.
    """
    if np.isnan(found).any():
        raise InvalidArgument(
            field,
            "expected a sequence for which the network gives probabilities, found that its outputs are "
            "infinite or no numbers",
        )


def _joined(parts: "tuple[NDArray[np.float32] | None, ...]") -> NDArray[np.float32] | None:
    given = [part for part in parts if part is not None]
    return np.concatenate(given) if given else None


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)), without an overflow for any x."""
    small: NDArray[np.float64] = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1, small) / (1 + small)
