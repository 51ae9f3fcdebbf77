"""Text generation and scoring with a character language model."""

import math
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import Generation
from service.engine.delivery import Intake, Start, generate, state_after
from service.engine.gather import collect
from service.engine.sampling import Sampling
from service.engine.sequence import Caller, Goal, StateRow
from service.errors import InvalidArgument
from service.observability.metrics import EngineMetrics
from service.security.state_tokens import TextState
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
        seed: None: that of `state`, or drawn here.
        stops: stop strings.
        wants_logprobs: send each token's log-probability.
        state: goes on from there; the prompt then follows it. None: a new text.
        wants_state: send the state after the last token.
        generated: what was sent of this very generation before it broke off.
    """

    prompt: str
    max_tokens: int = 0
    temperature: float | None = None
    top_k: int = 0
    top_p: float | None = None
    seed: int | None = None
    stops: tuple[str, ...] = ()
    wants_logprobs: bool = False
    state: TextState | None = None
    wants_state: bool = False
    generated: str = ""


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text since the last piece.

    Attributes:
        text: new text, one token a character.
        logprobs: natural log, one a character, or none.
        seed: in use.
        finish: why it ended, in the last piece.
        prompt_tokens, generated_tokens: of the whole generation, in the last piece.
        state: after the last token, in the last piece, where it was asked for.
    """

    text: str
    logprobs: list[float]
    seed: int
    finish: Finish | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0
    state: TextState | None = None


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
        """Exp of the mean negative log-probability."""
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
        start, sampling, max_tokens = self._check(options)
        stops = StopFilter(options.stops)
        held_logprobs: list[float] = []
        ids: list[int] = []  # since `start`, for the state alone
        generated = len(options.generated)
        to_skip = stops.skip(options.generated)  # released once more, though it was sent before
        if to_skip is None:
            raise InvalidArgument(
                "generated", "expected text that was sent, found text with a stop string in it"
            )
        remaining = max_tokens - generated
        async with generate(
            self._engine,
            start,
            sampling,
            remaining,
            options.wants_logprobs,
            caller,
            self._most_backlog,
            options.wants_state,
        ) as stream:
            last_at: float | None = None
            finish: Finish | None = None
            while finish is None:
                lump = await stream.take()
                now = time.monotonic()
                if last_at is not None:
                    self._metrics.inter_token_seconds.observe((now - last_at) / len(lump.ids))
                last_at = now
                text, stopped_after = stops.push(self.decode(lump.ids))
                count = len(lump.ids) if stopped_after is None else stopped_after
                generated += count
                if options.wants_state:
                    ids += lump.ids[:count]
                finish = Finish.STOP if stopped_after is not None else Finish.LENGTH if lump.is_last else None
                if finish is Finish.LENGTH:
                    text += stops.flush()
                skipped = min(to_skip, len(text))
                text, to_skip = text[skipped:], to_skip - skipped
                held_logprobs.extend(lump.logprobs)
                if text and finish is None:
                    yield TextPiece(text, held_logprobs[: len(text)], sampling.seed)
                    held_logprobs = held_logprobs[len(text) :]
        if to_skip:
            raise InvalidArgument(
                "generated", "expected text that was sent, found text whose end is the start of a stop string"
            )
        state = None
        if options.wants_state:
            rows = lump.state if finish is Finish.LENGTH else None
            state = await self._state(start, ids, rows, sampling.seed, caller)
        yield TextPiece(
            text, held_logprobs[: len(text)], sampling.seed, finish, len(options.prompt), generated, state
        )

    async def _state(
        self, start: Start, ids: list[int], rows: StateRow | None, seed: int, caller: Caller
    ) -> TextState:
        """The state after the tokens generated since `start`; `rows`: before the last of them, None where the
        engine has gone on beyond it.
        """
        if rows is None:
            before = np.concatenate([start.inputs, np.array(ids[:-1], np.int64)])
            rows = await state_after(self._engine, Start(before, start.position, start.state), caller)
        return TextState(start.position + len(start.inputs) + len(ids), seed, ids[-1], rows)

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

    def _check(self, options: GenerationOptions) -> tuple[Start, Sampling, int]:
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
        prompt = self.encode(options.prompt, "prompt")
        max_tokens = options.max_tokens or min(self._spec.max_tokens, self._limits.tokens)
        generated = self._check_generated(options, max_tokens)
        before = options.state
        if before is not None:
            pending = np.array([before.pending], np.int64)
            start = Start(np.concatenate([pending, prompt, generated]), before.position - 1, before.rows)
        else:
            first = prompt if len(prompt) else np.array([self._spec.start_token], np.int64)
            start = Start(np.concatenate([first, generated]))
        drawn = secrets.randbits(_SEED_BITS) if before is None else before.seed
        seed = drawn if options.seed is None else options.seed
        return start, Sampling(temperature, options.top_k, top_p, seed), max_tokens

    def _check_generated(self, options: GenerationOptions, max_tokens: int) -> NDArray[np.int64]:
        """Tokens of the text that was sent before."""
        text = options.generated
        if not text:
            return np.empty(0, np.int64)
        if options.seed is None:
            raise InvalidArgument(
                "generated", "expected the seed of the call that has sent it in the field seed, found none"
            )
        if len(text) >= max_tokens:
            raise InvalidArgument(
                "generated",
                f"expected fewer characters than the {max_tokens} tokens to generate, found {len(text)}",
            )
        return self.encode(text, "generated")
