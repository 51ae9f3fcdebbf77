"""Counts the tokens that a text which is sent stands for, with their log-probabilities."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from service.tasks.detokenizer import Detokenized


class Sent(NamedTuple):
    """Tokens of a text that is sent.

    Attributes:
        ends: for each token, in order: how many characters of the text there are up to its end.
        logprobs: one a token; empty unless asked for.
    """

    ends: Sequence[int]
    logprobs: list[float]


class Ledger(ABC):
    """Tokens of one generation whose text has not been sent."""

    def __init__(self) -> None:
        self._logprobs: list[float] = []

    def add(self, new: Detokenized, logprobs: Sequence[float]) -> None:
        """Take tokens and the text that they have released.

        Args:
            new: the text.
            logprobs: one a token, or none.
        """
        self._logprobs.extend(logprobs)
        self._add(new)

    def send(self, length: int, *, is_last: bool = False) -> Sent:
        """Take out the tokens whose text ends within the next so many characters.

        Args:
            length: characters that are sent.
            is_last: nothing is sent after them; the token that the last of them is a part of counts, too.
        """
        ends = self._send(length, is_last)
        logprobs, self._logprobs = self._logprobs[: len(ends)], self._logprobs[len(ends) :]
        return Sent(ends, logprobs)

    @abstractmethod
    def _add(self, new: Detokenized) -> None:
        """Take the ends of tokens."""

    @abstractmethod
    def _send(self, length: int, is_last: bool) -> Sequence[int]:
        """Return the ends of the tokens of the next characters."""


class CharacterLedger(Ledger):
    """Ledger of a model whose tokens are characters: as many tokens as characters are sent."""

    def _add(self, new: Detokenized) -> None:
        pass

    def _send(self, length: int, is_last: bool) -> Sequence[int]:  # noqa: ARG002 - no token is cut
        return range(1, length + 1)


class TokenLedger(Ledger):
    """Ledger of a model whose tokens are texts of any length."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: deque[int] = deque()  # in characters from the first one of the generation
        self._length = 0  # characters released
        self._sent = 0  # characters sent
        self._counted = 0  # end of the last token taken out

    def _add(self, new: Detokenized) -> None:
        self._ends.extend(self._length + end for end in new.ends)
        self._length += len(new.text)

    def _send(self, length: int, is_last: bool) -> Sequence[int]:
        start, self._sent = self._sent, self._sent + length
        ends: list[int] = []
        while self._ends and self._ends[0] <= self._sent:
            self._counted = self._ends.popleft()
            ends.append(self._counted - start)
        # Text may be all that is left of a token that an earlier call has counted.
        if is_last and self._ends and self._counted < self._sent:
            ends.append(length)
        return ends
