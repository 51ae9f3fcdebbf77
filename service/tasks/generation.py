"""Text generation and scoring with a character language model."""

import math
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from service.engine.delivery import Intake, generate
from service.engine.gather import collect
from service.engine.sampling import Sampling
from service.engine.sequence import Caller, Goal
from service.errors import InvalidArgument
from service.metrics import EngineMetrics
from service.spec import Generation
from service.tasks.limits import Limits, check_count, check_texts
from service.tasks.stops import StopFilter

_SEED_BITS = 64


class Finish(Enum):
    """Why a generation ended."""

    LENGTH = "max_tokens were generated"
    STOP = "a stop string came up"


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """What a caller asks for; None or 0 where the field is unset.

    Attributes:
        prompt: text to go on from; empty: the model's start token.
        max_tokens: 0: the model's default.
        temperature, top_k, top_p: see `Sampling`.
        seed: None: drawn here.
        stops: stop strings.
        wants_logprobs: send each token's log-probability.
    """

    prompt: str
    max_tokens: int = 0
    temperature: float | None = None
    top_k: int = 0
    top_p: float | None = None
    seed: int | None = None
    stops: tuple[str, ...] = ()
    wants_logprobs: bool = False


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text since the last piece.

    Attributes:
        text: new text, one token a character.
        logprobs: natural log, one a character, or none.
        seed: in use.
        finish: why it ended, in the last piece.
        prompt_tokens, generated_tokens: of the whole generation, in the last piece.
    """

    text: str
    logprobs: list[float]
    seed: int
    finish: Finish | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TextScore:
    """Log-probabilities (natural log) of a text's tokens 2..n, each given all before it: float32 (n - 1,)."""

    token_logprobs: NDArray[np.float32]

    @property
    def total(self) -> float:
        """Their sum, nats."""
        return float(self.token_logprobs.sum(dtype=np.float64))

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability."""
        return math.exp(-self.total / len(self.token_logprobs))


class GenerationTask:
    """A character model's vocabulary and its engine.

    Args:
        model: its name, for error texts.
        spec: vocabulary, start token, default length.
        engine: runs it.
        metrics: where to count.
        limits: sizes of requests.
        most_backlog: tokens generated ahead of a slow reader before its row pauses.
    """

    def __init__(
        self,
        model: str,
        spec: Generation,
        engine: Intake,
        metrics: EngineMetrics,
        limits: Limits,
        most_backlog: int,
    ) -> None:
        self._model = model
        self._spec = spec
        self._engine = engine
        self._metrics = metrics
        self._limits = limits
        self._most_backlog = most_backlog
        self._characters = spec.text.vocabulary
        self._ids = {character: index for index, character in enumerate(self._characters)}

    def encode(self, text: str, field: str) -> NDArray[np.int64]:
        """Token ids of a text, int64 (T,).

        Raises:
            InvalidArgument: a character is not in the vocabulary.
        """
        try:
            return np.fromiter(map(self._ids.__getitem__, text), np.int64, len(text))
        except KeyError:
            position, character = next((index, one) for index, one in enumerate(text) if one not in self._ids)
            raise InvalidArgument(
                field,
                f"character {character!r} (U+{ord(character):04X}) at position {position} is not among the {len(self._ids)} of model {self._model}",
            ) from None

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""
        return "".join(map(self._characters.__getitem__, tokens))

    async def generate(self, options: GenerationOptions, caller: Caller) -> AsyncGenerator[TextPiece, None]:
        """Generate text: the first token's at once, then what has gathered since.

        Raises:
            InvalidArgument: before anything is generated.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        prompt, sampling, max_tokens = self._check(options)
        stops = StopFilter(options.stops)
        held_logprobs: list[float] = []
        generated = 0
        async with generate(self._engine, prompt, sampling, max_tokens, options.wants_logprobs, caller, self._most_backlog) as stream:
            last_at: float | None = None
            while True:
                lump = await stream.take()
                now = time.monotonic()
                if last_at is not None:
                    self._metrics.inter_token_seconds.observe((now - last_at) / len(lump.ids))
                last_at = now
                text, stopped_after = stops.push(self.decode(lump.ids))
                generated += len(lump.ids) if stopped_after is None else stopped_after
                finish = Finish.STOP if stopped_after is not None else Finish.LENGTH if lump.is_last else None
                if finish is Finish.LENGTH:
                    text += stops.flush()
                held_logprobs.extend(lump.logprobs)
                if finish is not None:
                    yield TextPiece(text, held_logprobs[: len(text)], sampling.seed, finish, len(options.prompt), generated)
                    return
                if text:
                    yield TextPiece(text, held_logprobs[: len(text)], sampling.seed)
                    held_logprobs = held_logprobs[len(text) :]

    async def score(self, texts: Sequence[str], caller: Caller) -> list[TextScore]:
        """Log-probabilities of each text's tokens.

        Raises:
            InvalidArgument: a text is too short, too long, or outside the vocabulary.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        check_texts(texts, self._limits)
        for index, text in enumerate(texts):
            check_count(f"texts[{index}]", "tokens", len(text), self._limits.text_length, least=2)
        inputs = [self.encode(text, f"texts[{index}]") for index, text in enumerate(texts)]
        return [TextScore(logprobs) for logprobs in await collect(self._engine, inputs, Goal.SCORE, caller)]

    def _check(self, options: GenerationOptions) -> tuple[NDArray[np.int64], Sampling, int]:
        check_count("prompt", "characters", len(options.prompt), self._limits.text_length, least=0)
        check_count("max_tokens", "tokens", options.max_tokens, self._limits.tokens, least=0)
        check_count("stop", "stop strings", len(options.stops), self._limits.stop_strings, least=0)
        for index, stop in enumerate(options.stops):
            check_count(f"stop[{index}]", "characters", len(stop), self._limits.stop_length)
        temperature = 1.0 if options.temperature is None else options.temperature
        if not (math.isfinite(temperature) and temperature >= 0):
            raise InvalidArgument("temperature", f"expected a finite number >= 0, found {temperature}")
        top_p = 1.0 if options.top_p is None else options.top_p
        if not 0 < top_p <= 1:
            raise InvalidArgument("top_p", f"expected a number in (0, 1], found {top_p}")
        prompt = self.encode(options.prompt, "prompt") if options.prompt else np.array([self._spec.start_token], np.int64)
        seed = secrets.randbits(_SEED_BITS) if options.seed is None else options.seed
        max_tokens = options.max_tokens or min(self._spec.max_tokens, self._limits.tokens)
        return prompt, Sampling(temperature, options.top_k, top_p, seed), max_tokens
