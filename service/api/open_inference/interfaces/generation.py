"""Interface of text-generation."""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from service.api.answer_limits import check_answer
from service.api.open_inference.interfaces.interface import (
    LENGTH_BYTES,
    MAX_CHARACTER_BYTES,
    OTHER_BYTES,
    Interface,
    Outcome,
)
from service.api.open_inference.interfaces.sequence_errors import initial_errors
from service.api.open_inference.interfaces.sequence_tensors import tensor_names_of
from service.api.open_inference.interfaces.source_tensors import source_errors, source_of, spec_of_source
from service.api.open_inference.interfaces.values import require, tensor_errors, texts_of
from service.api.open_inference.parameters import Parameters
from service.api.open_inference.tensors import Tensor, TensorSpec
from service.engine.request import Caller
from service.models.loading import Served
from service.tasks.generation import GenerationOptions, GenerationTask
from service.tasks.initial import Start
from service.tasks.limits import Limits


class GenerationInterface(Interface):
    """Maps a prompt, and a source for the encoder of a model that has one, to text."""

    is_decoupled = True
    parameters = ("max_tokens", "temperature", "top_k", "top_p", "seed", "stop")

    def __init__(self, served: Served) -> None:
        assert isinstance(served.task, GenerationTask)
        self._task = served.task
        init = served.spec.network.init
        widths = {one.name: one.size for one in init.inputs} if init else {}
        self._source = self._task.source if self._task.has_source else None
        self._initial = tensor_names_of(widths, ("prompt",))
        inputs = [TensorSpec("prompt", "BYTES", (1,))]
        if self._source is not None:
            inputs.append(spec_of_source(self._source))
            self.max_sizes = {"time": self._source.max_steps}
        inputs += [TensorSpec(self._initial[name], "FP32", (1, size)) for name, size in widths.items()]
        self.inputs = tuple(inputs)
        self.outputs = (TensorSpec("text", "BYTES", (1,)),)

    @property
    def limits(self) -> Limits:
        """Sizes of requests and answers, those of the task."""
        return self._task.limits

    @property
    def properties(self) -> Mapping[str, object]:
        """Meaning of the tensors, for the metadata."""
        return {}

    def answer_bytes(
        self, outputs: Collection[str], tensors: Mapping[str, Tensor], parameters: Parameters
    ) -> int:
        """Return the bytes of a piece of text, which is at most that long; `infer` checks whole texts."""
        return LENGTH_BYTES + MAX_CHARACTER_BYTES * self.limits.piece_tokens

    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """Generate the whole text.

        Raises:
            AnswerTooLarge: the longest text that `max_tokens` allows would be too large an answer.
        """
        tokens = self._task.tokens_of(parameters.whole("max_tokens", 32) or 0)
        check_answer(
            "max_tokens",
            OTHER_BYTES + self._task.max_token_bytes * tokens,
            self.limits.answer_bytes,
            "ask for fewer tokens, or for a stream",
        )
        outcome = Outcome({})
        texts: list[bytes] = []
        async with aclosing(self.stream(tensors, parameters, caller)) as pieces:
            async for outcome in pieces:
                piece = outcome.tensors["text"]
                assert isinstance(piece, list), "elements of BYTES that a task gives are a list"
                texts.extend(piece)
        return Outcome({"text": [b"".join(texts)]}, outcome.parameters)

    async def stream(
        self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller
    ) -> AsyncGenerator[Outcome, None]:
        """Generate the text in pieces."""
        require("prompt", tensors)
        stop = parameters.text("stop")
        options = GenerationOptions(
            prompt=texts_of("prompt", tensors["prompt"])[0],
            max_tokens=parameters.whole("max_tokens", 32) or 0,
            temperature=parameters.number("temperature"),
            top_k=parameters.whole("top_k", 32) or 0,
            top_p=parameters.number("top_p"),
            seed=parameters.whole("seed", 64),
            stops=() if stop is None else (stop,),
            start=Start(
                self._initial_of(tensors),
                None if self._source is None else source_of(tensors, self._source),
            ),
        )
        width = 0 if self._source is None else self._source.values
        with tensor_errors(), initial_errors(self._initial), source_errors(width):
            async with aclosing(self._task.generate(options, caller)) as pieces:
                async for piece in pieces:
                    response_parameters: dict[str, int | str] = {"seed": piece.seed}
                    if piece.finish is not None:
                        response_parameters["finish_reason"] = piece.finish.name
                    yield Outcome(
                        {"text": [piece.text.encode()]}, response_parameters, piece.finish is not None
                    )

    def _initial_of(self, tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
        """Return the inputs of the init graph that a request has, float32 (size,) by name."""
        rows = {name: tensors[tensor] for name, tensor in self._initial.items() if tensor in tensors}
        return {name: row[0] for name, row in rows.items() if not isinstance(row, list)}
