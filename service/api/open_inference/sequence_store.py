"""Open sequences of the protocol's sequence extension: bounded in number and bytes, forgotten when idle.

It knows neither network nor tasks nor clocks: time comes in as an argument. The event loop's thread alone
uses it.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from service.api.held_bytes import HeldBytes
from service.errors import SequencesExhausted

# Bytes that an open sequence holds beside its id and its recurrent state.
SEQUENCE_BYTES = 4 << 10
# Bytes of a character of an id at most, as Python keeps it.
_CHARACTER_BYTES = 4
_MIN_RETRY_S = 0.5
# Sequences that are forgotten at a time, which takes about a millisecond.
_MAX_FORGOTTEN = 200


class SequenceKey(NamedTuple):
    """The names that a sequence is found by; requests that differ in one belong to different sequences.

    Attributes:
        client: fairness key of the caller, so that nobody reaches the sequences of others.
        model: name of the model.
        version: version as the requests name it; 0: the one that was the newest when the sequence began.
        id: id of the sequence; that of a number is its digits.
    """

    client: str
    model: str
    version: int
    id: str


@dataclass(slots=True, eq=False)
class OpenSequence:
    """State of one sequence between its requests.

    Attributes:
        version: version that answers.
        binding: model, version, weights and model.json that the state is valid for.
        state_bytes: size of the recurrent state.
        state: state after the last request, as the task returned it; None: nothing has been answered.
    """

    version: int
    binding: bytes
    state_bytes: int
    state: object = None


class SequenceStore:
    """Open sequences by key.

    A sequence is either taken, while a request of it is being answered, or idle. A caller may open a further
    one while it has fewer than are free: one alone gets half, and there is always room for a newcomer.

    Args:
        max_open: maximum of open sequences.
        idle_s: time after which an idle one is forgotten.
        held: account of the bytes of all requests, by caller.

    Attributes:
        num_forgotten: number of sequences that were forgotten because they were idle.
    """

    def __init__(self, max_open: int, idle_s: float, held: HeldBytes) -> None:
        self.num_forgotten = 0
        self._max_open = max_open
        self._idle_s = idle_s
        self._held = held
        self._open: dict[SequenceKey, OpenSequence] = {}
        self._by_client: Counter[str] = Counter()
        self._idle_since: OrderedDict[SequenceKey, float] = OrderedDict()  # longest idle first

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, key: SequenceKey, sequence: OpenSequence, now: float) -> None:
        """Open a sequence, which is taken.

        Raises:
            SequencesExhausted, BytesExhausted: there is no room for it; nothing was changed.
        """
        assert key not in self._open, "a sequence ends before it begins anew"
        own, left = self._by_client[key.client], self._max_open - len(self._open)
        if own >= left:
            raise SequencesExhausted(
                f"{len(self._open)} of {self._max_open} sequences are open (SEQSERVE_MAX_SEQUENCES), this "
                f"caller's {own}: expected fewer than the {left} that are free, found a start; end some with "
                f"sequence_end",
                self._until_room_s(now),
            )
        self._held.take(key.client, _size_of(key, sequence))
        self._open[key] = sequence
        self._by_client[key.client] += 1

    def take(self, key: SequenceKey, now: float) -> OpenSequence | None:
        """Take an idle sequence, which is then not forgotten; None: there is none that is not due."""
        since = self._idle_since.get(key)
        if since is None:
            return None
        if self._is_due(since, now):
            self._forget(key)
            return None
        del self._idle_since[key]
        return self._open[key]

    def put_back(self, key: SequenceKey, now: float) -> None:
        """Leave a sequence that was taken: it is idle from now on."""
        assert key in self._open, "only what is open is put back"
        assert key not in self._idle_since, "only what was taken is put back"
        self._idle_since[key] = now

    def end(self, key: SequenceKey) -> None:
        """Forget a sequence, idle or taken; do nothing where it is not open."""
        sequence = self._open.pop(key, None)
        if sequence is None:
            return
        self._idle_since.pop(key, None)
        self._held.give_back(key.client, _size_of(key, sequence))
        self._by_client[key.client] -= 1
        if not self._by_client[key.client]:
            del self._by_client[key.client]

    def forget_idle(self, now: float) -> bool:
        """Forget some sequences that have been idle for too long; return whether there may be more."""
        for _ in range(_MAX_FORGOTTEN):
            key, since = next(iter(self._idle_since.items()), (None, now))
            if key is None or not self._is_due(since, now):
                return False
            self._forget(key)
        return True

    def _is_due(self, since: float, now: float) -> bool:
        return now - since >= self._idle_s

    def _forget(self, key: SequenceKey) -> None:
        self.end(key)
        self.num_forgotten += 1

    def _until_room_s(self, now: float) -> float:
        """Return the time until the first sequence will have been idle for too long."""
        since = next(iter(self._idle_since.values()), now)
        return max(_MIN_RETRY_S, since + self._idle_s - now)


def _size_of(key: SequenceKey, sequence: OpenSequence) -> int:
    return SEQUENCE_BYTES + _CHARACTER_BYTES * len(key.id) + sequence.state_bytes
