"""Where sequences wait for a slot, and what callers' threads leave for the engine's thread to do at its next
tick.

The only part of an engine that many threads use: whatever changes the scheduler's lines does so here, under
    one lock.
"""

import threading
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Rooms
from typing import NamedTuple

from service.engine.fairness import make_room
from service.engine.scheduler import Scheduler
from service.engine.sequence import Sequence
from service.errors import Overloaded


class Messages(NamedTuple):
    """What has happened since the last tick.

    Attributes:
        arrived: are in line already.
        left: their callers are gone.
        dropped: are in line no more; their callers have to be told.
    """

    arrived: list[Sequence]
    left: list[Sequence]
    dropped: list[Sequence]


class Room:
    """The waiting sequences of one engine.

    Args:
        scheduler: whose lines they are in.
        wake: called when there is something to do.
    """

    def __init__(self, scheduler: Scheduler, wake: Callable[[], None]) -> None:
        self.lock = threading.RLock()
        self.num_waiting = 0
        self._scheduler = scheduler
        self._wake = wake
        self._messages = Messages([], [], [])

    # From any thread.

    @property
    def has_arrivals(self) -> bool:
        """Whether someone has come since the last tick."""
        return bool(self._messages.arrived)

    def put(self, sequences: list[Sequence]) -> None:
        """Put sequences in line."""
        with self.lock:
            for sequence in sequences:
                self._scheduler.enqueue(sequence)
            self._messages.arrived.extend(sequences)
            self.num_waiting += len(sequences)
        self._wake()

    def cancel(self, sequences: Iterable[Sequence]) -> None:
        """Their callers have left."""
        with self.lock:
            self._messages.left.extend(sequences)
        self._wake()

    def drop(self, sequences: list[Sequence]) -> None:
        """Refuse those that still wait."""
        with self.lock:
            dropped = [sequence for sequence in sequences if self._scheduler.lines.remove(sequence)]
            self._messages.dropped.extend(dropped)
            self.num_waiting -= len(dropped)
        if dropped:
            self._wake()

    def waiting_by_client(self) -> dict[str, int]:
        """How many are in line, by client."""
        with self.lock:
            return self._scheduler.lines.counts()

    def newest_waiting(self, client: str, most: int) -> list[Sequence]:
        """The last of a client's line, newest first, that have not begun."""
        with self.lock:
            return self._scheduler.lines.newest(client, most)

    def ahead_of(self, client: str) -> tuple[int, int]:
        """Sequences and steps in line that have their turns before a client's next arrival."""
        with self.lock:
            return self._scheduler.lines.ahead_of(client)

    # In the engine's thread.

    def take_messages(self) -> Messages | None:
        """What there is to do; None where there is nothing."""
        if not any(self._messages):
            return None
        with self.lock:
            messages, self._messages = self._messages, Messages([], [], [])
        return messages

    def admit(self, can_prefill: bool) -> Sequence | None:
        """The next in turn, None where there is no room (`Scheduler.admit`)."""
        with self.lock:
            return self._scheduler.admit(can_prefill)

    def admit_from(self, client: str) -> Sequence:
        """The first of a client for whom there is room."""
        with self.lock:
            return self._scheduler.admit_from(client)

    def put_first(self, sequences: list[Sequence]) -> None:
        """Those who were in their turn before go to the heads of their lines, the first of them first."""
        if sequences:
            with self.lock:
                for sequence in reversed(sequences):
                    self._scheduler.enqueue_first(sequence)

    def put_last(self, sequence: Sequence) -> None:
        """One that was paused goes to the end of its client's line."""
        with self.lock:
            self._scheduler.enqueue(sequence)

    def drop_over(self) -> None:
        """Forget those in line that are over."""
        with self.lock:
            self._scheduler.drop_over()

    def count(self, num_following: int) -> None:
        """Count who waits.

        Args:
            num_following: wait for another's prompt: they are in no line, but they wait.
        """
        with self.lock:
            self.num_waiting = self._scheduler.waiting + num_following

    def close(self) -> list[Sequence]:
        """Empty the lines. Returns those who were in them, and those who have not been told that they are in
        them no more.
        """
        with self.lock:
            return [*self._messages.dropped, *self._scheduler.take_all()]


def ensure_room(
    name: str,
    rooms: Rooms[Room],
    max_waiting: int,
    sequences: list[Sequence],
    retry_after_s: Callable[[], float],
) -> None:
    """Make room for sequences of one client, if need be at the cost of a client with more waiting.

    Args:
        name: of the model.
        rooms: that share the bound.
        max_waiting: in all of them.
        sequences: that come.
        retry_after_s: says when one who is refused should try again.

    Raises:
        Overloaded: there is no room, and nobody was refused for it.
    """
    waiting = sum(room.num_waiting for room in rooms)
    excess = waiting + len(sequences) - max_waiting
    if excess > 0 and not make_room(rooms, sequences[0].client, len(sequences), excess):
        message = f"model {name}: expected at most {max_waiting} waiting sequences, found {waiting} and {len(sequences)} more"
        raise Overloaded(message, retry_after_s())
