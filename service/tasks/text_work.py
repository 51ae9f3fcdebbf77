"""Decides where texts are turned into tokens: in the event loop, or in other threads if they are long."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from service.engine.request import Caller
from service.tasks.inline_time import InlineTime
from service.tasks.limits import slices_of
from service.tasks.workers import Workers

Result = TypeVar("Result")

# Tokenizing so many characters takes about as long as handing them to a thread and back, 60 us for words, and
# 0.5 ms for the worst: no thread would be quicker, and a busy loop saves two switches between threads.
_SHORT_CHARACTERS = 512
# Tokenizing so many characters takes 0.6 ms for English text and up to 4 ms for the worst, on a busy core:
# other calls should not wait longer at a time.
_MAX_INLINE_CHARACTERS = 4_000
# Characters of several texts that are handed to a thread at a time.
_PIECE_CHARACTERS = 10_000


class TextWork:
    """Runs functions over the texts of a request.

    Args:
        workers: run long work, and all but short work while no inline time is left.
        inline_time: bounds the work in the event loop; one for all models, which share the loop.

    Attributes:
        workers: the same.
    """

    def __init__(self, workers: Workers, inline_time: InlineTime) -> None:
        self.workers = workers
        self._inline_time = inline_time

    async def run(
        self, function: Callable[[slice], list[Result]], lengths: Sequence[int], caller: Caller
    ) -> list[Result]:
        """Return what a function makes of each text.

        In other threads it gets a few texts at a time, so that what waits for its turn is not yet copied.

        Args:
            function: takes the part of the texts to work on.
            lengths: characters of each text.
            caller: who asks.

        Raises:
            DeadlineExceeded: the deadline passed while the work waited for a thread.
        """
        total = sum(lengths)
        if total <= _SHORT_CHARACTERS:
            return function(slice(0, len(lengths)))
        if total <= _MAX_INLINE_CHARACTERS and self._inline_time.is_left():
            return self._inline_time.run(function, slice(0, len(lengths)))
        results: list[Result] = []
        for part in slices_of(lengths, _PIECE_CHARACTERS):
            results += await self.workers.run(caller, function, part)
        return results
