"""Results of running sequences: immutable, the same for both clients.

Numbers are kept row by row in flat arrays of the standard library. `values` and `probabilities` show them as
arrays of numpy, which needs that package; `value_rows` and `probability_rows` as lists, which does not.
"""

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from seqserve.errors import SeqserveError
from seqserve.tabular import Record, Tabular, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TextSpan(NamedTuple):
    """A part of a text: its first character, counted from 0, and the one after its last."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, repr=False)
class SequenceOutput(Tabular):
    """The output of one sequence: one row, or one row for each time step.

    Attributes:
        steps: Number of rows.
        width: Values in a row; 0 if there are none.
        labels: Most probable label of each row, of a model with labels; "" for a row in which none holds.
        spans: Characters that each row stands for, of a text.
        flat_values: The values, float32, row by row: numbers, an embedding, or the network's own outputs.
        flat_probabilities: The probabilities, float32, row by row, in the order of the model's labels.
        state: Sealed state after these time steps, to continue from; empty unless the push requested it.
        position: Time steps of the sequence so far, in a stream; 0 otherwise.
        version: Version of the model that answered; not compared.
    """

    steps: int
    width: int
    labels: tuple[str, ...]
    spans: tuple[TextSpan, ...]
    flat_values: "array[float]" = field(hash=False)
    flat_probabilities: "array[float]" = field(hash=False)
    state: bytes = b""
    position: int = 0
    version: int = field(default=0, compare=False)

    _item: ClassVar[str] = "sequence"

    @property
    def label(self) -> str:
        """The label of the last row; "" if it has none."""
        return self.labels[-1] if self.labels else ""

    @property
    def values(self) -> "NDArray[np.float32]":
        """The values as a read-only array of numpy, float32 (steps, width)."""
        return _matrix(self.flat_values, self.steps)

    @property
    def probabilities(self) -> "NDArray[np.float32]":
        """The probabilities as a read-only array of numpy, float32 (steps, number of labels)."""
        return _matrix(self.flat_probabilities, self.steps)

    @property
    def value_rows(self) -> list[list[float]]:
        """The values of each row, as lists."""
        return _rows(self.flat_values, self.steps)

    @property
    def probability_rows(self) -> list[list[float]]:
        """The probabilities of each row, as lists."""
        return _rows(self.flat_probabilities, self.steps)

    def __repr__(self) -> str:
        labels = f", labels={short(', '.join(self.labels))}" if self.labels else ""
        width = f", width={self.width}" if self.width else ""
        return f"SequenceOutput(steps={self.steps}{width}{labels})"

    def _records(self) -> list[Record]:
        probabilities, values = self.probability_rows, self.value_rows
        records: list[Record] = []
        for row in range(self.steps):
            record: Record = {"step": row} if self.steps > 1 else {}
            if self.spans:
                record |= self.spans[row]._asdict()
            if self.labels:
                record["label"] = self.labels[row]
            record |= {f"probability {place}": each for place, each in enumerate(probabilities[row])}
            record |= {f"value {place}": each for place, each in enumerate(values[row])}
            records.append(record)
        return records


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """Answer to the time steps of one sequence, which were pushed together with those of others.

    Attributes:
        id: Id of the sequence.
        output: Its output, or None if the message failed.
        error: Why the message failed, or None; its sequence is then unchanged.
    """

    id: str
    output: SequenceOutput | None
    error: SeqserveError | None = None


def _matrix(flat: "array[float]", rows: int) -> "NDArray[np.float32]":
    try:
        import numpy as np  # noqa: PLC0415 - numpy is not needed for anything else
    except ImportError as error:
        message = "values and probabilities need the package numpy, which cannot be imported: "
        raise ImportError(message + "pip install numpy, or use value_rows", name="numpy") from error
    width = len(flat) // rows if rows else 0
    matrix = np.frombuffer(flat, dtype=np.float32).reshape(rows, width)
    matrix.flags.writeable = False
    return matrix


def _rows(flat: "array[float]", rows: int) -> list[list[float]]:
    width = len(flat) // rows if rows else 0
    return [flat[row * width : (row + 1) * width].tolist() for row in range(rows)]
