"""Who runs next. Plain and pure: no clock, no threads, no arrays; time comes in as an argument.

A sequence waits, then holds a slot until it is over, or until it has to make way for a client with fewer.
Those with input left run in chunk ticks, generating ones in step ticks; the two alternate when both wait, so
that prompts never starve streams nor streams prompts.
"""

from collections import Counter
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from service.engine.fairness import Lines, claims
from service.engine.sequence import Sequence


class Tick(Enum):
    """What to run: a few steps of rows with input left (prefill), or one step of generating rows (decode)."""

    CHUNK = "chunk"
    STEP = "step"


class Claim(NamedTuple):
    """A client whose turn has come although there is no room for it in the order of turns.

    Attributes:
        client: who waits.
        holder: the client that has to give up a row; None: there is room for this one.
        wants_prefill: the row given up has to be one with input left.
    """

    client: str
    holder: str | None
    wants_prefill: bool


class Scheduler:
    """The waiting lines, the count of slots and whose turn it is.

    Args:
        slots: sequences that may be active at a time.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.active = 0
        self.lines = Lines()
        self._held: dict[str, int] = {}
        self._last = Tick.STEP

    @property
    def waiting(self) -> int:
        """Sequences that wait for a slot."""
        return len(self.lines)

    @property
    def is_contended(self) -> bool:
        """Whether someone waits, and not for his own sequences alone."""
        clients = self.lines.clients
        return len(clients) > 1 or (len(clients) == 1 and self._held.keys() != clients)

    def enqueue(self, sequence: Sequence) -> None:
        """Put a sequence at the end of its client's line."""
        self.lines.append(sequence)

    def enqueue_first(self, sequence: Sequence) -> None:
        """Put a sequence at the head of its client's line: one that was in its turn before."""
        self.lines.append_first(sequence)

    def admit(self, can_prefill: bool) -> Sequence | None:
        """Take the next in turn if there is a slot for it: clients take turns, each client's first come is
        first served.

        Args:
            can_prefill: whether a row with input left can be taken; where not, one that comes first in turn
                waits, and the others with it.
        """
        if self.active == self.slots:
            return None
        head = self.lines.first()
        if head is None or (not can_prefill and _needs_prefill(head)):
            return None
        return self.admit_from(head.client)

    def admit_from(self, client: str) -> Sequence:
        """Take the first of a waiting client, for which there must be a slot."""
        assert self.active < self.slots, "no slot is free"
        self.active += 1
        self._held[client] = self._held.get(client, 0) + 1
        return self.lines.take(client)

    def claim(self, prefilling: Iterable[Sequence], can_prefill: bool) -> Claim | None:
        """Who should have a row, and from whom, where `admit` finds no room: parts that differ by more than
        one row are evened out.

        Args:
            prefilling: rows with input left.
            can_prefill: whether one more can be taken.
        """
        is_full = self.active == self.slots
        most_held = max(self._held.values(), default=0)
        if is_full and most_held < 2:
            return None
        in_prefill = (
            Counter(sequence.client for sequence in prefilling) if not can_prefill else Counter[str]()
        )
        most_prefill = max(in_prefill.values(), default=0)
        for client in self.lines.clients:
            if not can_prefill and _needs_prefill(self.lines.first_of(client)):
                if claims(in_prefill[client], most_prefill):
                    return Claim(client, max(in_prefill, key=in_prefill.__getitem__), wants_prefill=True)
            elif not is_full:
                return Claim(client, None, wants_prefill=False)
            elif claims(self._held.get(client, 0), most_held):
                return Claim(client, max(self._held, key=self._held.__getitem__), wants_prefill=False)
        return None

    def release(self, client: str) -> None:
        """Give a slot back."""
        self.active -= 1
        assert self.active >= 0, "more slots released than taken"
        left = self._held[client] - 1
        if left:
            self._held[client] = left
        else:
            del self._held[client]

    def take_all(self) -> list[Sequence]:
        """Empty the lines."""
        return self.lines.take_all()

    def drop_over(self) -> None:
        """Forget those in the lines that are over, so that they do not count as waiting."""
        self.lines.drop_over()

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
        assert self.active == chunk_rows + step_rows, (
            f"{self.active} slots taken, {chunk_rows} + {step_rows} rows held"
        )
        assert 0 <= self.active <= self.slots, f"{self.active} of {self.slots} slots taken"
        assert self.active == sum(self._held.values()), f"{self.active} slots taken, {self._held} by client"
        assert self.waiting == sum(self.lines.counts().values())


def _needs_prefill(sequence: Sequence) -> bool:
    """Whether its row would be one with input left."""
    return sequence.parked is None and sequence.prefill_steps > 0
