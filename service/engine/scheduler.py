"""Who runs next. Plain and pure: no clock, no threads, no arrays; time comes in as an argument.

A sequence waits, then holds a slot until it is over. Those with input left run in chunk ticks, generating ones in step ticks; the two alternate
when both wait, so that prompts never starve streams nor streams prompts.
"""

from collections import deque
from enum import Enum

from service.engine.sequence import Sequence


class Tick(Enum):
    """What to run: a few steps of rows with input left (prefill), or one step of generating rows (decode)."""

    CHUNK = "chunk"
    STEP = "step"


class Scheduler:
    """The waiting line, the count of slots and whose turn it is.

    Args:
        slots: sequences that may be active at a time.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.active = 0
        self._waiting: deque[Sequence] = deque()
        self._last = Tick.STEP

    @property
    def waiting(self) -> int:
        """Sequences that wait for a slot."""
        return len(self._waiting)

    def enqueue(self, sequence: Sequence) -> None:
        """Put a sequence at the end of the line."""
        self._waiting.append(sequence)

    def enqueue_first(self, sequence: Sequence) -> None:
        """Put a sequence at the head of the line: one that was in its turn before."""
        self._waiting.appendleft(sequence)

    def admit(self, can_prefill: bool) -> Sequence | None:
        """Take the next from the line if there is a slot for it, first come first served; those over meanwhile are passed by.

        Args:
            can_prefill: whether a row with input left can be taken; where not, one that comes first in line waits, and the line with it.
        """
        if self.active == self.slots:
            return None
        while self._waiting and self._waiting[0].is_over:
            self._waiting.popleft()
        if not self._waiting or (not can_prefill and self._waiting[0].parked is None and self._waiting[0].prefill_steps):
            return None
        self.active += 1
        return self._waiting.popleft()

    def release(self) -> None:
        """Give a slot back."""
        self.active -= 1
        assert self.active >= 0, "more slots released than taken"

    def take_all(self) -> list[Sequence]:
        """Empty the line."""
        taken, self._waiting = list(self._waiting), deque()
        return taken

    def drop_over(self) -> None:
        """Forget those in the line that are over, so that they do not count as waiting."""
        self._waiting = deque(sequence for sequence in self._waiting if not sequence.is_over)

    def choose(self, chunk_rows: int, step_rows: int) -> Tick | None:
        """The next tick's kind, None when no row is active; a kind that just ran lets the other go first.

        Args:
            chunk_rows: active rows with input left.
            step_rows: active generating rows.
        """
        if chunk_rows and step_rows:
            self._last = Tick.CHUNK if self._last is Tick.STEP else Tick.STEP
        elif chunk_rows or step_rows:
            self._last = Tick.CHUNK if chunk_rows else Tick.STEP
        else:
            return None
        return self._last

    def check_integrity(self, chunk_rows: int, step_rows: int) -> None:
        """Raise AssertionError unless slots taken and rows held agree."""
        assert self.active == chunk_rows + step_rows, f"{self.active} slots taken, {chunk_rows} + {step_rows} rows held"
        assert 0 <= self.active <= self.slots, f"{self.active} of {self.slots} slots taken"
