"""Reads the source that an encoder gets before a text is generated."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract.spec import SourceSpec
from service.engine.request import Caller
from service.errors import InvalidArgument
from service.tasks.feature_columns import FeatureColumns
from service.tasks.limits import Limits, check_count
from service.tasks.sequence_inputs import InputKind, InputReader, SequenceInput
from service.tasks.text_reader import TextReader
from service.tasks.text_work import TextWork
from service.tasks.windows import WindowFit

FIELD = "source"
# Where the time steps of each kind stand in a request.
_FIELDS: Mapping[InputKind, str] = {"text": "text", "tokens": "tokens.ids", "steps": "steps.values"}


class SourceReader:
    """Reads the sources of one model.

    Args:
        model: name of the model, for error texts.
        section: what its encoder reads.
        tokenizer: of the source's texts; None where they have no tokenizer file.
        max_steps: time steps of the longest source.
        limits: sizes of requests.
        text_work: decides where texts are read.

    Attributes:
        limits: sizes of a source: `text_length` of its token ids, `observations` of its rows.
        values: number of values of a time step, F; 0: the encoder takes none.
        max_steps: time steps of the longest source, within the limits.
    """

    def __init__(
        self,
        model: str,
        section: SourceSpec,
        tokenizer: Tokenizer | None,
        max_steps: int,
        limits: Limits,
        text_work: TextWork,
    ) -> None:
        takes_tokens, size = section.input.kind == "tokens", section.input.size
        self.max_steps = min(max_steps, limits.text_length if takes_tokens else limits.observations)
        self.limits = replace(limits, text_length=self.max_steps, observations=self.max_steps)
        self.values = 0 if takes_tokens else size
        # A tokenizer may make one token of many characters.
        reading = limits if section.text is not None else self.limits
        self._inputs = InputReader(
            None if takes_tokens else FeatureColumns(section.columns, size),
            size if takes_tokens else 0,
            TextReader(model, section.text, tokenizer) if section.text is not None else None,
            WindowFit(None),
            reading,
            text_work,
        )

    @property
    def kind(self) -> InputKind:
        """Kind of source that callers send: text (tokens are taken as well), tokens or steps."""
        return self._inputs.kind

    async def read(self, source: SequenceInput | None, caller: Caller) -> NDArray[Any]:
        """Return what the encoder gets of a source, int64 (S,) or float32 (S, F).

        Args:
            source: as the caller sends it; None: there is none.
            caller: who asks.

        Raises:
            InvalidArgument: there is none, it is not what the encoder takes, or it is too long.
            DeadlineExceeded: the deadline passed while a text waited for a thread.
        """
        if source is None:
            kinds = "text or tokens" if self.kind == "text" else self.kind
            raise InvalidArgument(FIELD, f"expected {kinds}, which the model's encoder reads, found none")
        if source.initial:
            raise InvalidArgument(
                f"{FIELD}.initial", "expected none, since the init graph's other inputs are given in initial"
            )
        [read] = await self._inputs.read([source], [FIELD], False, caller)
        place = f"{FIELD}.{_FIELDS[source.kinds[0]]}"
        check_count(place, "time steps, as the encoder takes", len(read.inputs), self.max_steps)
        return read.inputs if self.values else read.inputs.astype(np.int64, copy=False)


def no_source() -> InvalidArgument:
    """Return the error of a source for a model that reads none."""
    return InvalidArgument(FIELD, "expected none, since the model has no encoder, found one")
