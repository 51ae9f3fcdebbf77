"""Who waits, by client: a line for each, turns that go round, and who gives way where there is no room. Plain
and pure.

A client that asks for much waits for its own: it takes neither the turn nor the place in the queue of one
    that asks for little.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, KeysView, Mapping
from typing import Protocol

from service.engine.sequence import Sequence

# A row gets on by so many turns before it may be paused.
LEAST_TURNS = 8


class _Line:
    """One client's waiting sequences, first come first, and the steps that chunk ticks have to run for
    them.
    """

    __slots__ = ("sequences", "steps")

    def __init__(self, sequences: Iterable[Sequence] = ()) -> None:
        self.sequences = deque(sequences)
        self.steps = sum(map(steps_left, self.sequences))


class Lines:
    """A line for each client that waits, and whose turn it is; a client without waiting sequences is
    forgotten.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Line] = OrderedDict()  # the first one's turn is next
        self._count = 0
        self.steps = 0

    def __len__(self) -> int:
        return self._count

    @property
    def clients(self) -> KeysView[str]:
        """Those who wait, whose turn is next first."""
        return self._lines.keys()

    def append(self, sequence: Sequence) -> None:
        """Put a sequence at the end of its client's line."""
        self._line_of(sequence).sequences.append(sequence)

    def append_first(self, sequence: Sequence) -> None:
        """Put a sequence at the head of its client's line."""
        self._line_of(sequence).sequences.appendleft(sequence)

    def _line_of(self, sequence: Sequence) -> _Line:
        """The line that a sequence is put into, which counts it already."""
        line = self._lines.get(sequence.client)
        if line is None:
            line = self._lines[sequence.client] = _Line()
        steps = steps_left(sequence)
        self._count += 1
        self.steps += steps
        line.steps += steps
        return line

    def first(self) -> Sequence | None:
        """The next in turn; those over meanwhile are passed by, at no cost of their client's turn."""
        while self._lines:
            line = next(iter(self._lines.values()))
            head = line.sequences[0]
            if not head.is_over:
                return head
            line.sequences.popleft()
            self._left(head, line)
        return None

    def first_of(self, client: str) -> Sequence:
        """The head of a waiting client's line."""
        return self._lines[client].sequences[0]

    def take(self, client: str) -> Sequence:
        """Take the head of a waiting client's line, which uses up the client's turn."""
        line = self._lines[client]
        sequence = line.sequences.popleft()
        if len(self._lines) > 1:
            self._lines.move_to_end(client)
        self._left(sequence, line)
        return sequence

    def remove(self, sequence: Sequence) -> bool:
        """Take a sequence out. Returns whether it was in."""
        line = self._lines.get(sequence.client)
        if line is None or sequence not in line.sequences:
            return False
        line.sequences.remove(sequence)
        self._left(sequence, line)
        return True

    def _left(self, sequence: Sequence, line: _Line) -> None:
        steps = steps_left(sequence)
        self._count -= 1
        self.steps -= steps
        line.steps -= steps
        if not line.sequences:
            del self._lines[sequence.client]

    def drop_over(self) -> None:
        """Forget those that are over."""
        kept = (
            (client, [one for one in line.sequences if not one.is_over])
            for client, line in self._lines.items()
        )
        self._lines = OrderedDict((client, _Line(sequences)) for client, sequences in kept if sequences)
        self._count = sum(len(line.sequences) for line in self._lines.values())
        self.steps = sum(line.steps for line in self._lines.values())

    def take_all(self) -> list[Sequence]:
        """Empty every line."""
        taken = [one for line in self._lines.values() for one in line.sequences]
        self._lines.clear()
        self._count = self.steps = 0
        return taken

    def counts(self) -> dict[str, int]:
        """How many wait, by client."""
        return {client: len(line.sequences) for client, line in self._lines.items()}

    def newest(self, client: str, most: int) -> list[Sequence]:
        """The last of a client's line, newest first, that have not begun: nothing is lost with them but their
        place.
        """
        line = self._lines.get(client)
        found: list[Sequence] = []
        for sequence in reversed(line.sequences if line else ()):
            if len(found) == most:
                break
            if sequence.parked is None and sequence.paused is None:
                found.append(sequence)
        return found

    def ahead_of(self, client: str) -> tuple[int, int]:
        """Sequences and steps that have their turns before a client's next arrival: its own, and for each of
        them at most one of every other's.
        """
        line = self._lines.get(client)
        if line is None:
            return 0, 0
        clients = len(self._lines)
        return min(self._count, clients * len(line.sequences)), min(self.steps, clients * line.steps)


def steps_left(sequence: Sequence) -> int:
    """Steps that chunk ticks have still to run for a sequence that waits."""
    if sequence.parked is not None:
        return 0
    return sequence.prefill_steps - (sequence.paused.steps if sequence.paused is not None else 0)


def claims(held: int, most: int) -> bool:
    """Whether a client with so many rows may take one from the client with most: only where both are nearer
    to equal parts afterwards.
    """
    return held < most - 1


def longest_held(rows: Iterable[Sequence], client: str, turn: int) -> Sequence | None:
    """The row of a client that it has held longest, None where each has been given to it a moment ago.

    Args:
        rows: of any clients.
        client: who has to give one up.
        turn: the engine's current one.
    """
    held = [one for one in rows if one.client == client and turn - one.seated_in >= LEAST_TURNS]
    return min(held, key=lambda one: one.seated_in) if held else None


class Queue(Protocol):
    """Waiting sequences of many clients, that may be asked from any thread."""

    def waiting_by_client(self) -> Mapping[str, int]:
        """How many wait, by client."""
        ...

    def newest_waiting(self, client: str, most: int) -> list[Sequence]:
        """The last of a client's line, newest first, that have not begun."""
        ...

    def drop(self, sequences: list[Sequence]) -> None:
        """Refuse those that still wait."""
        ...


def make_room(queues: Iterable[Queue], client: str, arriving: int, needed: int) -> bool:
    """Refuse the newest waiting sequences of the client with most of them, where the arriving client would
    still have fewer.

    Args:
        queues: that share one bound.
        client: who comes.
        arriving: with how many.
        needed: how many have to go.

    Returns:
        Whether there is room now; if not, nobody was refused.
    """
    waiting: Counter[str] = Counter()
    for queue in queues:
        waiting.update(queue.waiting_by_client())
    [(longest, count)] = waiting.most_common(1) or [(client, 0)]
    if waiting[client] + arriving >= count:
        return False
    found = [(one, queue) for queue in queues for one in queue.newest_waiting(longest, needed)]
    if len(found) < needed:
        return False
    found.sort(key=lambda pair: pair[0].submitted_at, reverse=True)
    for queue in queues:
        queue.drop([one for one, home in found[:needed] if home is queue])
    return True
