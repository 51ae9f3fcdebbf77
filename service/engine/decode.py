"""Step ticks: generating rows, a sampled token each or a few, handed over in batches."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.cell import PLAIN, BoundChunk, Cell, Decoding, Shape
from service.engine.multi_step import Drawn, MultiStep
from service.engine.request import Row, StateRow, SuspendedRow, TokenBatch
from service.engine.sampling import Tokens, key_of, logprobs_of, options_of, pick
from service.engine.slots import Pool
from service.runtime import Chunk

# Tokens that a row holds back at most before they are handed over.
_MAX_HELD = 64
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
    "needs_state": np.bool_,  # the state after its last token is asked for
    "is_first": np.bool_,  # none handed over yet
    "num_held": np.int64,
    "ids": (np.int64, (_MAX_HELD,)),
    "logprobs": (np.float32, (_MAX_HELD,)),
}


class _View:
    """The columns of the current rows and how they sample; made anew when a row joins or leaves."""

    def __init__(self, pool: Pool, vocabulary: int) -> None:
        count = len(pool)
        columns = {name: column[:count] for name, column in pool.columns.items()}
        self.count = count
        self.columns = columns
        self.options = options_of(columns["temperature"], columns["top_k"], columns["top_p"], vocabulary)
        self.asked = columns["wants_logprobs"].nonzero()[0]


class StepResult(NamedTuple):
    """The result of a step tick.

    Attributes:
        due: indexes of rows that cannot wait to be handed over: with their first or last token, or full.
        failed: rows whose sampling or log-probability raised, with the error; they have no new token.
        tokens: new tokens of all rows.
        unused: steps of rows behind their last token.
        counts: new tokens of each row, int64 (B,); None: one each.
    """

    due: NDArray[np.int64]
    failed: dict[Row, Exception]
    tokens: int
    unused: int = 0
    counts: NDArray[np.int64] | None = None


class Decode:
    """The generating rows and their step ticks.

    Args:
        cell: runs chunks.
        shape: widths of its tensors.
        rows: rows that it holds at most.
        write_interval_s: shortest time between two batches of a stream's tokens, after the first.
        write_interval_row_s: the same for each generating row, added: with many streams their batches grow,
            so that handing them over takes a bounded share of the time.
        decoding: end tokens, and what runs ticks of several steps.
    """

    def __init__(
        self,
        cell: Cell,
        shape: Shape,
        rows: int,
        write_interval_s: float = 0.0,
        write_interval_row_s: float = 0.0,
        decoding: Decoding = PLAIN,
    ) -> None:
        self._cell = cell
        self._is_end: NDArray[np.bool_] | None = None  # bool (V,)
        if decoding.end_tokens:
            self._is_end = np.zeros(shape.outputs, np.bool_)
            self._is_end[list(decoding.end_tokens)] = True
        self._multi: MultiStep | None = None
        if decoding.generator is not None and any(size.steps > 1 for size in decoding.step_sizes):
            self._multi = MultiStep(decoding.generator, shape, rows, decoding.step_sizes, self._is_end)
        self._intervals = (write_interval_s, write_interval_row_s)
        self._written_at = 0.0
        self.pool = Pool(rows, shape, _COLUMNS)
        self._view: _View | None = None
        self._inputs = np.zeros((rows, 1), np.int64)
        self._ones = np.ones(rows, np.int32)
        self._arange = np.arange(rows)
        self._outputs = np.zeros((rows, shape.outputs), np.float32)
        self._bindings: dict[tuple[int, int], BoundChunk] = {}

    def __len__(self) -> int:
        return len(self.pool)

    @property
    def has_new_rows(self) -> bool:
        """True if the first token of some row is still to be handed over."""
        return bool(self.pool.columns["is_first"][: len(self)].any())

    def run(self, *, is_single: bool = False) -> StepResult:
        """Run one tick of every row: each gets a token or a few, which it holds until `take`.

        Args:
            is_single: run one step, whatever more would bring.

        Raises:
            ModelFailure: from the cell; the state of all rows is lost, tokens held are not.
        """
        view = self._view = self._view or _View(self.pool, self._outputs.shape[1])
        if self._multi is not None and not is_single:
            room = _MAX_HELD - int(view.columns["num_held"].max())
            if (steps := self._multi.steps(view.columns, view.options, room)) > 1:
                drawn = self._multi.run(self.pool, view.columns, view.options, steps)
                if drawn is not None:
                    return self._keep(view, drawn)
        return self._run_single(view)

    def _keep(self, view: _View, drawn: Drawn) -> StepResult:
        """Add the tokens of a tick of several steps."""
        columns, (tokens, counts, logits) = view.columns, drawn
        steps = len(tokens)
        rows, held = self._arange[: view.count, None], columns["num_held"]
        columns["ids"][rows, held[:, None] + np.arange(steps)] = tokens.T  # more than a row has are not read
        failed: dict[Row, Exception] = {}
        if len(view.asked):
            for step in range(steps):
                self._keep_logprobs(view.asked, logits[step], tokens[step], held + step, failed)
        columns["token"][:] = tokens[-1]
        columns["position"] += np.uint64(steps)
        columns["remaining"] -= counts
        columns["remaining"][counts < steps] = 0
        if self._is_end is not None:
            columns["remaining"][self._is_end[tokens[counts - 1, self._arange[: view.count]]]] = 0
        columns["num_held"] += counts
        self._take_back(failed, counts)
        made = int(counts.sum())
        return StepResult(self._due(columns, steps), failed, made, steps * view.count - made, counts)

    def _run_single(self, view: _View) -> StepResult:
        """Run one step of every row."""
        columns, count = view.columns, view.count
        self._inputs[:count, 0] = columns["token"]
        self._bind(count).run()
        self.pool.flip()
        logits = self._outputs[:count]
        failed: dict[Row, Exception] = {}
        try:
            tokens = pick(logits, view.options, columns["key"], columns["position"])
        except Exception:
            tokens, failed = self._pick_one_by_one(logits)
        columns["ids"][self._arange[:count], columns["num_held"]] = tokens
        if len(view.asked):
            self._keep_logprobs(view.asked, logits, tokens, columns["num_held"], failed)
        columns["token"][:] = tokens
        columns["position"] += _ONE
        columns["remaining"] -= 1
        if self._is_end is not None:
            columns["remaining"][self._is_end[tokens]] = 0
        columns["num_held"] += 1
        self._take_back(failed, self._ones)
        return StepResult(self._due(columns, 1), failed, count)

    def _take_back(self, failed: Collection[Row], counts: NDArray[np.signedinteger]) -> None:
        """Take the new tokens of rows that failed; they may hold earlier ones."""
        columns = self.pool.columns
        for index in map(self.pool.index_of, failed):
            columns["num_held"][index] -= counts[index]
            columns["remaining"][index] += counts[index]

    @staticmethod
    def _due(columns: Mapping[str, NDArray[Any]], steps: int) -> NDArray[np.int64]:
        """Return the rows that cannot wait to be handed over: full ones cannot hold so many steps more."""
        is_full = columns["num_held"] > _MAX_HELD - steps
        is_due = columns["is_first"] | (columns["remaining"] == 0) | is_full
        due: NDArray[np.int64] = is_due.nonzero()[0]
        return due

    def _pick_one_by_one(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.int64], dict[Row, Exception]]:
        """Sample each row alone, so that the one whose options raise is known and the others go on."""
        columns, vocabulary = self.pool.columns, logits.shape[1]
        tokens = np.zeros(len(logits), np.int64)
        failed: dict[Row, Exception] = {}
        for index, row in enumerate(self.pool.rows):
            one = slice(index, index + 1)
            try:
                options = options_of(
                    columns["temperature"][one], columns["top_k"][one], columns["top_p"][one], vocabulary
                )
                tokens[one] = pick(logits[one], options, columns["key"][one], columns["position"][one])
            except Exception as error:
                failed[row] = error
        return tokens, failed

    def _keep_logprobs(
        self,
        asked: Tokens,
        logits: NDArray[np.float32],
        tokens: Tokens,
        held: NDArray[np.int64],
        failed: dict[Row, Exception],
    ) -> None:
        """Add the log-probabilities of new tokens; row by row where that raises."""
        kept = self.pool.columns["logprobs"]
        try:
            kept[asked, held[asked]] = logprobs_of(logits[asked], tokens[asked])
        except Exception:
            for index in asked.tolist():
                one = slice(index, index + 1)
                try:
                    kept[one, held[index]] = logprobs_of(logits[one], tokens[one])
                except Exception as error:
                    failed[self.pool.rows[index]] = error

    def is_write_due(self, now: float) -> bool:
        """Return whether all rows should hand over what they hold; if so, the next interval begins."""
        interval_s, interval_row_s = self._intervals
        if now - self._written_at < interval_s + len(self) * interval_row_s:
            return False
        self._written_at = now
        return True

    def take(self, row: Row) -> TokenBatch | None:
        """Remove and return the tokens that a row holds, None where it holds none."""
        index, columns = self.pool.index_of(row), self.pool.columns
        count = columns["num_held"][index]
        if not count:
            return None
        columns["num_held"][index] = 0
        columns["is_first"][index] = False
        logprobs = columns["logprobs"][index, :count].tolist() if columns["wants_logprobs"][index] else []
        is_last = bool(columns["remaining"][index] == 0)
        request = row.request
        has_state = request.keeps_states or (is_last and request.keeps_state)
        state = self.pool.state_of(row) if has_state else None
        return TokenBatch(columns["ids"][index, :count].tolist(), logprobs, is_last, state)

    def is_first(self, row: Row) -> bool:
        """Return whether none of a row's tokens has been handed over."""
        return bool(self.pool.columns["is_first"][self.pool.index_of(row)])

    def join(self, row: Row, start: SuspendedRow) -> None:
        """Take a row in."""
        assert start.columns is not None, "only a row without prefill steps left generates"
        self._view = None
        self.pool.join(row, start.state, start.columns)

    def leave(self, row: Row) -> None:
        """Take a row out."""
        self._view = None
        self.pool.leave(row)

    def suspend(self, row: Row) -> SuspendedRow:
        """Take a row out, to join again with what is returned."""
        suspended = SuspendedRow(row.prefill_steps, self.pool.state_of(row), self.pool.values_of(row))
        self.leave(row)
        return suspended

    def _bind(self, rows: int) -> BoundChunk:
        """Return the binding for so many rows, made once for either side of the pool."""
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


def start_decoding(row: Row, state: StateRow | None) -> SuspendedRow:
    """Return the form in which a row joins to generate its first token: its last input step is fed next.

    Args:
        row: with the goal GENERATE.
        state: state after all steps of its input but the last; None: the start of a sequence.

    Raises:
        Exception: the row's data does not fit.
    """
    request = row.request
    if request.max_tokens < 1:
        raise ValueError(f"expected at least 1 token to generate, found {request.max_tokens}")
    sampling = request.sampling
    columns = {
        "token": request.inputs[-1],
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "key": key_of(sampling.seed),
        "position": request.position + len(request.inputs),
        "remaining": request.max_tokens,
        "wants_logprobs": request.wants_logprobs,
        "needs_state": request.keeps_state or request.keeps_states,
        "is_first": True,
        "num_held": 0,
        "ids": 0,
        "logprobs": 0.0,
    }
    return SuspendedRow(request.prefill_steps, state, columns)
