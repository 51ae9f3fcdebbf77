"""The only way into an engine: any thread appends messages, and the engine takes them in its turn."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from service.engine.request import Account, Row

# Rows of a message at most: the engine looks at its budget after each message.
MAX_ROWS = 64


class Submit(NamedTuple):
    """Rows of one client that have come."""

    rows: list[Row]


class Cancel(NamedTuple):
    """Rows whose callers have left."""

    rows: list[Row]


class Resume(NamedTuple):
    """A suspended row whose reader has caught up."""

    row: Row


class Evict(NamedTuple):
    """The newest waiting rows of a client have to make room.

    Attributes:
        client: whose rows.
        account: that client's; its `submitted` counts the rows as gone already.
        num_rows: how many.
        retry_after_s: what the refused callers are told.
    """

    client: str
    account: Account
    num_rows: int
    retry_after_s: float


Message = Submit | Cancel | Resume | Evict


def _ignore() -> None:
    """Do nothing: no driver is set that a message could wake."""


class Inbox:
    """Messages in the order in which they came.

    Appending to a deque and taking from it are atomic, so no lock is needed.

    Attributes:
        wake: called after each message, by the thread that put it. A driver sets it.
    """

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self.wake: Callable[[], None] = _ignore

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Append a message and wake the owner."""
        self._messages.append(message)
        self.wake()

    def take(self) -> Message | None:
        """Remove and return the oldest message, None where there is none."""
        return self._messages.popleft() if self._messages else None
