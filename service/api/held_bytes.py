"""Bound on the bytes that requests hold from the arrival of their messages to the end of their calls.

One account of all callers. A caller may hold at most as much as nobody holds: one alone gets half of all, and
there is always room for a newcomer. (Dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on
Networking 1998.) Where many callers together leave little, callers who hold next to nothing have a part of
their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import BytesExhausted

# Bytes that a call holds beside its messages: tasks, context, rows, what is buffered by gRPC.
CALL_BYTES = 32 << 10
# Bytes that a message holds for each of its own, from its arrival to its answer: the parsed message, texts,
# token ids, features, and the answer that is made of them. `tests/integration/test_held_bytes.py` compares
# this with the memory of a server.
MESSAGE_FACTOR = 16
# A caller who holds no more than this is let into the part that is kept for such callers.
SMALL_BYTES = 128 << 10
_SMALL_PART = 16  # one of so many
_RETRY_AFTER_S = 0.5


def min_held_bytes(max_message_bytes: int) -> int:
    """Return the least bound under which a caller's largest message is taken while nobody holds anything."""
    needed = 2 * (CALL_BYTES + MESSAGE_FACTOR * max_message_bytes)
    return needed + needed // (_SMALL_PART - 1) + 1


class HeldBytes:
    """Bytes held, in all and by caller. The event loop's thread alone changes it.

    Args:
        max_bytes: bound on the bytes held in all.
        min_bytes: part of it that caches leave to calls.

    Attributes:
        total: bytes held by all calls.
        cached: bytes of prompt caches, which take room that calls do not have.
    """

    def __init__(self, max_bytes: int, min_bytes: int = 0) -> None:
        self.max_bytes = max_bytes
        self.total = 0
        self.cached = 0
        self._max_cached = max(0, max_bytes - max_bytes // _SMALL_PART - min_bytes)
        self._by_caller: dict[str, int] = {}

    def set_cached(self, count: int) -> None:
        """Count the bytes of prompt caches, as far as they leave room for a largest message."""
        self.cached = min(count, self._max_cached)

    def room_for(self, caller: str) -> int:
        """Return the bytes that a caller may take now."""
        own = self._by_caller.get(caller, 0)
        shared = self.max_bytes - self.max_bytes // _SMALL_PART - self.cached - self.total
        small = min(SMALL_BYTES - own, self.max_bytes - self.cached - self.total)
        return max(0, (shared - own) // 2, small)

    def take(self, caller: str, count: int) -> None:
        """Count bytes of a caller.

        Raises:
            BytesExhausted: there is no room for them; nothing was counted.
        """
        own = self._by_caller.get(caller, 0)
        if count > (room := self.room_for(caller)):
            raise BytesExhausted(
                f"requests hold {self.total} of {self.max_bytes - self.cached} bytes, this caller's {own}: "
                f"expected at most {room} more, found {count}",
                _RETRY_AFTER_S,
            )
        self.total += count
        self._by_caller[caller] = own + count

    def give_back(self, caller: str, count: int) -> None:
        """Take bytes of a caller off the account."""
        own = self._by_caller[caller] - count
        assert own >= 0, "more bytes given back than taken"
        self.total -= count
        if own:
            self._by_caller[caller] = own
        else:
            del self._by_caller[caller]


class Holding:
    """Bytes that one call holds.

    Args:
        held: the account of all calls.
        caller: who is charged.
    """

    __slots__ = ("_count", "_held", "caller")

    def __init__(self, held: HeldBytes, caller: str) -> None:
        self.caller = caller
        self._held = held
        self._count = 0

    def has_room_for(self, count: int) -> bool:
        """Return whether `take` would not raise."""
        return count <= self._held.room_for(self.caller)

    def take(self, count: int) -> None:
        """Hold more bytes.

        Raises:
            BytesExhausted: there is no room for them; nothing was counted.
        """
        self._held.take(self.caller, count)
        self._count += count

    @contextmanager
    def of_answer(self, count: int) -> Iterator[None]:
        """Hold the bytes of an answer while it is computed, unless they are those that every call holds.

        Raises:
            BytesExhausted: there is no room for them.
        """
        if count <= CALL_BYTES:
            yield
            return
        self.take(count)
        try:
            yield
        finally:
            self.give_back(count)

    def give_back(self, count: int) -> None:
        """Hold fewer bytes."""
        self._held.give_back(self.caller, count)
        self._count -= count

    def close(self, _: object = None) -> None:
        """Give all of them back; as a callback it takes the task that is done."""
        if self._count:
            self.give_back(self._count)
