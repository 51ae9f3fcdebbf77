"""The rows that hold slots: which pool each is in, how it gets there and how it leaves."""

from service.engine.cell import PLAIN, Cell, Decoding, Shape
from service.engine.decode import Decode, start_decoding
from service.engine.limits import Limits
from service.engine.prefill import Prefill
from service.engine.prompt_cache import PromptCache, prompt_of
from service.engine.request import Row, StateRow
from service.engine.scheduler import Occupancy, Tick, next_tick


class ActiveRows:
    """Rows in the prefill and the decode pool, counted by client.

    Args:
        cell: runs chunks.
        shape: widths of its tensors.
        limits: slots, chunk, prompt cache.
        decoding: end tokens, and what runs step ticks of several steps.

    Attributes:
        prefill: rows with prefill steps left.
        decode: generating rows.
        prompts: states after prompts that were run.
        turn: number of the turn, counted by ticks that ran.
    """

    def __init__(
        self,
        cell: Cell,
        shape: Shape,
        limits: Limits,
        decoding: Decoding = PLAIN,
    ) -> None:
        self.prefill = Prefill(
            cell,
            shape,
            limits.chunk_rows or limits.slots,
            limits.chunk,
            limits.turn_overhead,
            limits.chunk_steps,
        )
        intervals = limits.write_interval_s, limits.write_interval_row_s
        self.decode = Decode(cell, shape, limits.slots, *intervals, decoding)
        self.prompts = PromptCache(limits.prompt_cache_bytes, limits.shares_prompts)
        self.turn = 0
        self._slots = limits.slots
        self._held: dict[str, int] = {}
        self._last = Tick.STEP

    def __len__(self) -> int:
        return len(self.prefill) + len(self.decode)

    def __contains__(self, row: Row) -> bool:
        return row in self.prefill.pool or row in self.decode.pool

    @property
    def rows(self) -> list[Row]:
        """All of them."""
        return [*self.prefill.pool.rows, *self.decode.pool.rows]

    def occupancy(self) -> Occupancy:
        """Return who holds the slots, as the scheduler needs it."""
        prefill, decode = self.prefill.pool, self.decode.pool
        held, in_prefill = self._held, self.prefill.held.rows
        return Occupancy(
            self._slots, prefill.capacity, prefill.rows, decode.rows, held, in_prefill, self.turn
        )

    def is_filling(self, num_waiting: int) -> bool:
        """Return whether rows are about to generate their first token, which a tick of several steps delays.

        Prompts are run, rows that wait get free slots, or generating rows have no token yet.
        """
        if len(self.prefill) > 0 or (num_waiting > 0 and len(self) < self._slots):
            return True
        return self.decode.has_new_rows

    def next_tick(self) -> Tick | None:
        """Return the kind of the next tick and count it; None where no row is active."""
        tick = next_tick(len(self.prefill), len(self.decode), self._last)
        if tick is not None:
            self._last = tick
            self.turn += 1
        return tick

    def admit(self, row: Row) -> bool:
        """Give a row a slot where it left off, or at the longest cached prefix of its prompt.

        Returns:
            Whether a cached prefix was found.

        Raises:
            Exception: the row's data does not fit; it has no slot then.
        """
        is_hit = self._join(row)
        row.suspended = None
        row.admitted_in = self.turn
        self._held[row.client] = self._held.get(row.client, 0) + 1
        return is_hit

    def _join(self, row: Row) -> bool:
        request, suspended = row.request, row.suspended
        if suspended is not None and suspended.columns is not None:
            self.decode.join(row, suspended)
        elif suspended is not None:
            self.prefill.join(row, suspended.steps, suspended.state)
        elif not row.generates:
            self.prefill.join(row, 0, request.state)
        elif not request.prefill_steps:
            self.decode.join(row, start_decoding(row, request.state))
        else:
            return self._join_prompt(row)
        return False

    def _join_prompt(self, row: Row) -> bool:
        prompt = prompt_of(row.request)
        known = None if prompt is None else self.prompts.find(prompt, row.request.cache_scope)
        if known is None:
            self.prefill.join(row, 0, row.request.state)
        elif known.steps < row.prefill_steps:
            self.prefill.join(row, known.steps, known.state)
        else:
            row.times.prefilled_at = row.times.admitted_at
            self.decode.join(row, start_decoding(row, known.state))
        return known is not None

    def start_decoding(self, row: Row) -> StateRow:
        """Move a row whose prompt has been run to the decode pool; return the state after its prompt.

        Raises:
            Exception: the row's data does not fit; it is in the prefill pool still.
        """
        state = self.prefill.pool.state_of(row)
        # Join first: where the row's data does not fit, that raises, and the row still is where it was.
        self.decode.join(row, start_decoding(row, state))
        self.prefill.leave(row)
        return state

    def suspend(self, row: Row) -> None:
        """Take a row's slot; `admit` lets it go on."""
        pool = self.decode if row in self.decode.pool else self.prefill
        row.suspended = pool.suspend(row)
        self._release(row)

    def leave(self, row: Row) -> None:
        """Take the slot of a row that is over."""
        pool = self.decode if row in self.decode.pool else self.prefill
        pool.leave(row)
        self._release(row)

    def leave_prefill(self, row: Row) -> None:
        """Take the slot of a row that is over and was in the prefill pool."""
        self.prefill.leave(row)
        self._release(row)

    def _release(self, row: Row) -> None:
        left = self._held[row.client] - 1
        if left:
            self._held[row.client] = left
        else:
            del self._held[row.client]

    def check_integrity(self) -> None:
        """Raise AssertionError unless rows, slots and counts agree."""
        self.prefill.pool.check_integrity()
        self.decode.pool.check_integrity()
        assert len(self) <= self._slots, f"{len(self)} of {self._slots} slots taken"
        by_client: dict[str, int] = {}
        for row in self.rows:
            by_client[row.client] = by_client.get(row.client, 0) + 1
            assert not row.is_over, "a row that is over holds a slot"
            assert row.suspended is None, "a row that holds a slot is not suspended"
        assert by_client == self._held, f"{by_client} rows held, {self._held} counted"
