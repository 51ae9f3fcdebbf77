"""Step ticks: generating rows, one sampled token each, handed over in lumps."""

import numpy as np
from numpy.typing import NDArray

from service.engine.cell import BoundChunk, Cell, Shape
from service.engine.sampling import key_of, logprobs_of, options_of, pick
from service.engine.sequence import ParkedRow, Sequence, StateRow, Tokens
from service.engine.slots import Pool
from service.runtime import Chunk

# Most tokens a row holds back before they are handed over.
_MOST_HELD = 64
_ONE = np.uint64(1)

# What the vectorised sampler needs to know of a generating row, and its tokens not yet handed over.
_COLUMNS = {
    "token": np.int64,  # fed in the next step
    "temperature": np.float64,
    "top_k": np.int64,
    "top_p": np.float64,
    "key": np.uint64,
    "position": np.uint64,  # tokens of the sequence before the one sampled next
    "remaining": np.int64,  # tokens still to generate
    "wants_logprobs": np.bool_,
    "is_first": np.bool_,  # none handed over yet
    "num_held": np.int64,
    "ids": (np.int64, (_MOST_HELD,)),
    "logprobs": (np.float32, (_MOST_HELD,)),
}


class _Rows:
    """What each tick of the same rows needs: views of their columns, and how they sample."""

    def __init__(self, pool: Pool, vocabulary: int) -> None:
        count = len(pool)
        columns = {name: column[:count] for name, column in pool.columns.items()}
        self.count = count
        self.token, self.key, self.position = columns["token"], columns["key"], columns["position"]
        self.remaining, self.is_first, self.num_held = (
            columns["remaining"],
            columns["is_first"],
            columns["num_held"],
        )
        self.ids, self.logprobs = columns["ids"], columns["logprobs"]
        self.options = options_of(columns["temperature"], columns["top_k"], columns["top_p"], vocabulary)
        self.asked = columns["wants_logprobs"].nonzero()[0]


class Decode:
    """The generating rows and their step ticks.

    Args:
        cell: runs chunks.
        shape: of its tensors.
        rows: most rows.
    """

    def __init__(self, cell: Cell, shape: Shape, rows: int) -> None:
        self._cell = cell
        self.pool = Pool(rows, shape.state, _COLUMNS)
        self._rows: _Rows | None = None  # until one joins or leaves
        self._inputs = np.zeros((rows, 1), np.int64)
        self._ones = np.ones(rows, np.int32)
        self._arange = np.arange(rows)
        self._outputs = np.zeros((rows, shape.outputs), np.float32)
        self._bindings: dict[tuple[int, int], BoundChunk] = {}

    def __len__(self) -> int:
        return len(self.pool)

    def run(self) -> NDArray[np.int64]:
        """One tick of every row: a token each, held until `take`.

        Returns:
            Rows that cannot wait to be handed over: those with their first or last token, and those that can
                hold no more.

        Raises:
            ModelFailure: from the cell; the state of all rows is lost, tokens held are not.
        """
        rows = self._rows = self._rows or _Rows(self.pool, self._outputs.shape[1])
        self._inputs[: rows.count, 0] = rows.token
        self._bind(rows.count).run()
        self.pool.flip()
        logits = self._outputs[: rows.count]
        tokens = pick(logits, rows.options, rows.key, rows.position)
        rows.ids[self._arange[: rows.count], rows.num_held] = tokens
        if len(rows.asked):
            rows.logprobs[rows.asked, rows.num_held[rows.asked]] = logprobs_of(
                logits[rows.asked], tokens[rows.asked]
            )
        rows.token[:] = tokens
        rows.position += _ONE
        rows.remaining -= 1
        rows.num_held += 1
        due: NDArray[np.int64] = (
            rows.is_first | (rows.remaining == 0) | (rows.num_held == _MOST_HELD)
        ).nonzero()[0]
        return due

    def take(self, sequence: Sequence) -> Tokens | None:
        """Tokens that a row holds, None where it holds none."""
        row, columns = self.pool.row_of(sequence), self.pool.columns
        count = columns["num_held"][row]
        if not count:
            return None
        columns["num_held"][row] = 0
        columns["is_first"][row] = False
        logprobs = columns["logprobs"][row, :count].tolist() if columns["wants_logprobs"][row] else []
        is_last = bool(columns["remaining"][row] == 0)
        state = self.pool.state_of(sequence) if is_last and sequence.keeps_state else None
        return Tokens(columns["ids"][row, :count].tolist(), logprobs, is_last, state)

    def is_first(self, sequence: Sequence) -> bool:
        """Whether none of its tokens has been handed over."""
        return bool(self.pool.columns["is_first"][self.pool.row_of(sequence)])

    def join(self, sequence: Sequence, row: ParkedRow) -> None:
        """Take a row in."""
        self._rows = None
        self.pool.join(sequence, row.state, row.values)

    def leave(self, sequence: Sequence) -> None:
        """Take a row out."""
        self._rows = None
        self.pool.leave(sequence)

    def park(self, sequence: Sequence) -> ParkedRow:
        """Take a row out, to join again later with what is returned."""
        parked = ParkedRow(self.pool.state_of(sequence), self.pool.values_of(sequence))
        self.leave(sequence)
        return parked

    def _bind(self, rows: int) -> BoundChunk:
        """A step's arrays are always the same ones, so each number of rows is bound once for either side of
        the pool.
        """
        key = (self.pool.parity, rows)
        if key not in self._bindings:
            before, after = ([tensor[:rows] for tensor in side] for side in (self.pool.front, self.pool.back))
            chunk = Chunk(
                self._inputs[:rows],
                self._ones[:rows],
                before,
                self._arange[:rows],
                self._outputs[:rows],
                after,
            )
            self._bindings[key] = self._cell.bind(chunk)
        return self._bindings[key]


def first_row(sequence: Sequence, state: StateRow | None) -> ParkedRow:
    """The row of a sequence about to generate its first token: its last input step is fed next.

    Args:
        sequence: with its goal GENERATE.
        state: after all steps of its input but the last; None: zeros, where that is the first.
    """
    sampling = sequence.sampling
    values = {
        "token": sequence.inputs[-1],
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "key": key_of(sampling.seed),
        "position": sequence.position + len(sequence.inputs),
        "remaining": sequence.max_tokens,
        "wants_logprobs": sequence.wants_logprobs,
        "is_first": True,
        "num_held": 0,
        "ids": 0,
        "logprobs": 0.0,
    }
    return ParkedRow(state, values)
