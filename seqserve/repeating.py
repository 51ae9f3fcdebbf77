"""Continues a generation whose text is not enough to go on from: what comes again is skipped.

A token of such a model is a text of any length, and one text may stand for several sequences of tokens. So a
new call begins at the last sealed state that came, or from the start, and its first messages repeat what
came after that. The text that is repeated is compared with what had come.
"""

from typing import Final

from seqserve.errors import ServerFailure
from seqserve.v1.text_generation_pb2 import GenerateRequest, GenerateResponse

STATE_NEEDED: Final = "STATE_NEEDED"
"""The reason with which a server refuses to continue from text alone."""


class Received:
    """Records what has come of one generation, and skips it where a new call repeats it."""

    def __init__(self) -> None:
        self._state = b""
        self._parts: list[str] = []  # text since the state, or since the start
        self._tokens = 0  # tokens of that text
        self._repeated = ""  # text that the current call repeats, unless it generates another one
        self._repeated_tokens = 0
        self._place = 0  # characters of it that have come again

    @property
    def has_state(self) -> bool:
        """True if a state has come from which a new call can begin."""
        return bool(self._state)

    def begin(self, request: GenerateRequest) -> None:
        """Set in the request of a new call where it begins, and expect what it will repeat."""
        self._repeated, self._repeated_tokens, self._place = "".join(self._parts), self._tokens, 0
        if self._state:
            request.state, request.prompt = self._state, ""
            for name in ("initial", "source"):  # the state is that after them
                request.ClearField(name)

    def take(self, response: GenerateResponse) -> None:
        """Record a message, and take out of it what a call before has sent.

        Raises:
            ServerFailure: The new call generates another text.
        """
        if self._place < len(self._repeated) or self._repeated_tokens:
            self._skip(response)
        self._parts.append(response.text)
        self._tokens += response.token_count
        if response.state:
            self._state = response.state
            # What is still to be repeated follows the state.
            self._repeated, self._place = self._repeated[self._place :], 0
            self._parts, self._tokens = [self._repeated], self._repeated_tokens

    def _skip(self, response: GenerateResponse) -> None:
        left = len(self._repeated) - self._place
        count, tokens = min(left, len(response.text)), min(self._repeated_tokens, response.token_count)
        expected = self._repeated[self._place : self._place + count]
        if response.text[:count] != expected or (response.finish_reason and count < left):
            raise ServerFailure(
                "expected the text that broke off again from its seed, found another one: the model is not "
                "batch-invariant, so that its streams go on from states alone (return_state)"
            )
        self._place += count
        self._repeated_tokens -= tokens
        response.text = response.text[count:]
        response.token_count -= tokens
        del response.logprobs[:tokens]
