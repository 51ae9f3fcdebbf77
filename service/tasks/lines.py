"""Waiting items: a line for each client, and turns that go round the clients."""

import asyncio
from collections import OrderedDict
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Lines(Generic[Item]):
    """Items in the order of turns: one of each client, in rounds. Every operation takes constant time.

    A client with many items waits for its own: another's first item is at most one round away.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, dict[Item, None]] = OrderedDict()  # the first one's turn is next

    def append(self, client: str, item: Item) -> None:
        """Put an item, which does not wait yet, at the end of its client's line."""
        self._lines.setdefault(client, {})[item] = None

    def remove(self, client: str, item: Item) -> None:
        """Take out an item that waits, at no cost of its client's turn; one that does not wait is ignored."""
        line = self._lines.get(client, {})
        line.pop(item, None)
        if not line:
            self._lines.pop(client, None)

    def pop(self) -> Item | None:
        """Take out the item whose turn it is, which uses up its client's turn; None if nothing waits."""
        if not self._lines:
            return None
        client, line = next(iter(self._lines.items()))
        item = next(iter(line))
        self.remove(client, item)
        if client in self._lines:
            self._lines.move_to_end(client)
        return item


class ClientTurns(Generic[Item]):
    """Things that one user has at a time; free ones go to the clients in turn. For the event loop alone.

    Args:
        free: the things.

    Attributes:
        free: those that nobody has.
    """

    def __init__(self, free: list[Item]) -> None:
        self.free = free
        self._waiting: Lines[asyncio.Future[Item]] = Lines()

    async def take(self, client: str) -> Item:
        """Wait for a thing, until `pass_on`.

        Raises:
            CancelledError: the user is gone; a thing that came meanwhile is passed on.
        """
        if self.free:
            return self.free.pop()
        turn: asyncio.Future[Item] = asyncio.get_running_loop().create_future()
        self._waiting.append(client, turn)
        try:
            return await turn
        except BaseException:
            self._waiting.remove(client, turn)
            if turn.done() and not turn.cancelled():  # the turn came together with the cancellation
                self.pass_on(turn.result())
            raise

    def pass_on(self, thing: Item) -> None:
        """Give a thing to the one whose turn it is."""
        while (turn := self._waiting.pop()) is not None:
            if not turn.done():
                turn.set_result(thing)
                return
        self.free.append(thing)
