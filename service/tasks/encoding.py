"""Encodes callers' texts: at once, or in threads where a tokenizer would hold the event loop."""

import numpy as np
from numpy.typing import NDArray

from service.engine.request import Caller
from service.tasks.codecs import Codec
from service.tasks.text_work import TextWork


class Encoder:
    """Encodes the texts of one model.

    Args:
        codec: of the model.
        work: encodes long texts in threads; one for all models.
    """

    def __init__(self, codec: Codec, work: TextWork) -> None:
        self._codec = codec
        self._work = work

    async def encode(
        self, text: str, field: str, caller: Caller, *, begins: bool
    ) -> NDArray[np.signedinteger]:
        """Return the tokens of a text, (T,).

        Args:
            text: as the caller sends it.
            field: of the request.
            caller: who asks.
            begins: nothing stands before the text.

        Raises:
            InvalidArgument: a part of the text has no token.
            DeadlineExceeded: the deadline passed before it was the caller's turn.
            ModelFailure: the tokenizer failed.
        """
        if self._codec.is_quick:
            return self._codec.encode(text, field, begins=begins)

        def encode(_: slice) -> list[NDArray[np.signedinteger]]:
            return [self._codec.encode(text, field, begins=begins)]

        (tokens,) = await self._work.run(encode, [len(text)], caller)
        return tokens
