"""Text generation and scoring with a character language model."""

import math
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.contract.normalizing import Normalizer
from service.contract.spec import Generation
from service.engine.request import Caller, Goal, Request, StateRow, TokenBatch
from service.engine.sampling import Sampling
from service.engine.streaming import Submitter, open_stream, run_all, run_one
from service.errors import InvalidArgument
from service.observability.metrics import EngineMetrics
from service.observability.traced import Answered, Asked
from service.tasks.limits import Limits, check_count, check_texts
from service.tasks.pacing import Pace
from service.tasks.states import TextState
from service.tasks.stops import StopFilter
from service.tasks.text import Characters

# A seed may have 64 bits, but those drawn here have 53: JavaScript and many readers of JSON keep numbers as
# doubles, which round beyond, and Java has no unsigned integers.
_DRAWN_SEED_BITS = 53


class Finish(Enum):
    """Why a generation ended."""

    LENGTH = "max_tokens were generated"
    STOP = "a stop string came up"


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """Options of a generation; None or 0 where the field is unset.

    Attributes:
        prompt: text to go on from; empty: the model's start token.
        max_tokens: 0: the model's default.
        temperature: see `Sampling`.
        top_k: see `Sampling`.
        top_p: see `Sampling`.
        seed: None: that of `state`, or drawn here.
        stops: stop strings.
        wants_logprobs: send each token's log-probability.
        state: go on from there; the prompt then follows it. None: a new text.
        wants_state: send the state after the last token.
        generated: text that was sent of this very generation before it broke off.
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
        logprobs: natural log, one a character; empty unless asked for.
        seed: seed in use.
        finish: why the generation ended, in the last piece.
        prompt_tokens: of the whole generation, in the last piece.
        generated_tokens: of the whole generation, in the last piece.
        state: state after the last token, in the last piece, where it was asked for.
    """

    text: str
    logprobs: list[float]
    seed: int
    finish: Finish | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0
    state: TextState | None = None

    def cut(self, count: int) -> tuple["TextPiece", "TextPiece"]:
        """Return a piece of the first characters, so many, and one of the rest."""
        part = TextPiece(self.text[:count], self.logprobs[:count], self.seed)
        return part, replace(self, text=self.text[count:], logprobs=self.logprobs[count:])


class TextScore(NamedTuple):
    """Natural-log probabilities of a text's tokens 2..n, each given all before it: float32 (n - 1,)."""

    token_logprobs: NDArray[np.float32]

    @property
    def total(self) -> float:
        """Their sum, nats."""
        return float(self.token_logprobs.sum(dtype=np.float64))

    @property
    def perplexity(self) -> float:
        """The exponential of the mean negative log-probability; inf where no double holds it."""
        with np.errstate(over="ignore"):
            return float(np.exp(-self.total / len(self.token_logprobs)))


class GenerationTask:
    """Generates and scores text with one model.

    Args:
        model: name of the model, for error texts.
        spec: vocabulary, start token, default length.
        engine: runs the model.
        metrics: counts the time between tokens.
        limits: sizes of requests.

    Attributes:
        limits: sizes of requests.
    """

    def __init__(
        self, model: str, spec: Generation, engine: Submitter, metrics: EngineMetrics, limits: Limits
    ) -> None:
        self._spec = spec
        self._engine = engine
        self._metrics = metrics
        self.limits = limits
        self._characters = Characters(model, spec.text.vocabulary, Normalizer(spec.text.normalization))

    async def generate(self, options: GenerationOptions, caller: Caller) -> AsyncGenerator[TextPiece, None]:
        """Generate text: the first token's at once, then what has come since.

        Raises:
            InvalidArgument: before anything is generated.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        self._check_sizes(options)
        options = self._with_stops(options)
        prompt = self._encode(options.prompt, "prompt")
        request = self._request_of(options, prompt)._replace(cache_scope=caller.cache_scope)
        pieces = _Pieces(self._characters, options, request, len(prompt))
        if caller.trace is not None:
            caller.trace.ask(_asked(options, request))
        async with open_stream(self._engine, request, caller, self.limits.backlog) as stream:
            last_at: float | None = None
            async for batch in stream:
                now = time.monotonic()
                if last_at is not None:
                    self._metrics.inter_token_seconds.observe((now - last_at) / len(batch.ids))
                last_at = now
                piece = pieces.add(batch)
                while len(piece.text) > self.limits.piece_tokens:
                    part, piece = piece.cut(self.limits.piece_tokens)
                    yield part
                if piece.finish is not None:
                    break
                if piece.text:
                    yield piece
        state = await self._state_after(request, pieces, batch, caller) if options.wants_state else None
        if caller.trace is not None and piece.finish is not None:
            name = piece.finish.name.lower()
            caller.trace.answer(Answered(name, piece.prompt_tokens, piece.generated_tokens))
        yield replace(piece, state=state)

    async def _state_after(
        self, request: Request, pieces: "_Pieces", last: TokenBatch, caller: Caller
    ) -> TextState:
        """Return the state after the generated tokens, computed where the engine has gone on beyond it."""
        ids, rows = pieces.ids, last.state if pieces.is_whole else None
        if rows is None:
            rows = await self._rows_before_last(request, ids, caller)
        position = request.position + len(request.inputs) + len(ids)
        return TextState(position, request.sampling.seed, ids[-1], rows)

    async def _rows_before_last(self, request: Request, ids: list[int], caller: Caller) -> StateRow:
        inputs = np.concatenate([request.inputs, np.array(ids[:-1], np.int64)])
        again = Request(inputs, Goal.LAST, state=request.state, keeps_state=True)
        rows: StateRow = (await run_one(self._engine, again, caller)).state
        return rows

    async def encode_texts(self, texts: Sequence[str]) -> list[NDArray[np.signedinteger]]:
        """Return the tokens of texts to score, normalized.

        Raises:
            InvalidArgument: a text is too short, too long, or outside the vocabulary.
        """
        check_texts(texts, self.limits)
        encoded, pace = [], Pace()
        for index, text in enumerate(texts):
            encoded.append(self._encode(text, f"texts[{index}]", minimum=2))
            await pace.rest()
        return encoded

    async def score(self, encoded: Sequence[NDArray[np.signedinteger]], caller: Caller) -> list[TextScore]:
        """Return the log-probabilities of each text's tokens, as `encode_texts` gives them.

        Raises:
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        requests = [Request(tokens, Goal.SCORE) for tokens in encoded]
        outputs = await run_all(self._engine, requests, caller)
        return [TextScore(logprobs) for logprobs in outputs]

    def tokens_of(self, max_tokens: int) -> int:
        """Return the most tokens that a request for so many generates; 0: the model's default."""
        return min(max_tokens or self._spec.max_tokens, self.limits.tokens)

    def _encode(self, text: str, field: str, minimum: int = 0) -> NDArray[np.signedinteger]:
        """Return the tokens of a caller's text; normalized, it may be longer or shorter."""
        tokens = self._characters.encode(text, field)
        check_count(field, "tokens", len(tokens), self.limits.text_length, minimum)
        return tokens

    def _with_stops(self, options: GenerationOptions) -> GenerationOptions:
        """Normalize the stop strings, so that they are what the model writes."""
        stops = tuple(map(self._characters.normalizer.normalized, options.stops))
        if "" in stops:
            raise InvalidArgument(
                f"stop[{stops.index('')}]", "expected characters that the model writes, found none"
            )
        return options if stops == options.stops else replace(options, stops=stops)

    def _request_of(self, options: GenerationOptions, prompt: NDArray[np.signedinteger]) -> Request:
        """Check the options and make the engine's request of them and the prompt's tokens."""
        max_tokens = self.tokens_of(options.max_tokens)
        sent = self._check_generated(options, max_tokens)
        before = options.state
        if before is not None:
            inputs = np.concatenate([np.array([before.pending], prompt.dtype), prompt, sent])
        else:
            first = prompt if len(prompt) else np.array([self._spec.start_token], prompt.dtype)
            inputs = np.concatenate([first, sent])
        return Request(
            inputs,
            Goal.GENERATE,
            _sampling_of(options),
            max_tokens - len(sent),
            options.wants_logprobs,
            None if before is None else before.rows,
            options.wants_state,
            0 if before is None else before.position - 1,
        )

    def _check_sizes(self, options: GenerationOptions) -> None:
        limits = self.limits
        check_count("prompt", "characters", len(options.prompt), limits.text_length, minimum=0)
        check_count("max_tokens", "tokens", options.max_tokens, limits.tokens, minimum=0)
        check_count("stop", "stop strings", len(options.stops), limits.stop_strings, minimum=0)
        for index, stop in enumerate(options.stops):
            check_count(f"stop[{index}]", "characters", len(stop), limits.stop_length)

    def _check_generated(self, options: GenerationOptions, max_tokens: int) -> NDArray[np.signedinteger]:
        """Return the tokens of the text that was sent before."""
        text = options.generated
        if not text:
            return self._characters.encode_own("", "generated")
        if options.seed is None:
            raise InvalidArgument(
                "generated", "expected the seed of the call that has sent it in the field seed, found none"
            )
        if len(text) >= max_tokens:
            raise InvalidArgument(
                "generated",
                f"expected fewer characters than the {max_tokens} tokens to generate, found {len(text)}",
            )
        return self._characters.encode_own(text, "generated")


def _asked(options: GenerationOptions, request: Request) -> Asked:
    top_k, num_stops = options.top_k or None, len(options.stops)
    return Asked(request.max_tokens, options.temperature, top_k, options.top_p, options.seed, num_stops)


def _sampling_of(options: GenerationOptions) -> Sampling:
    temperature = 1.0 if options.temperature is None else options.temperature
    if not (math.isfinite(temperature) and temperature >= 0):
        raise InvalidArgument("temperature", f"expected a finite number >= 0, found {temperature}")
    top_p = 1.0 if options.top_p is None else options.top_p
    if not 0 < top_p <= 1:
        raise InvalidArgument("top_p", f"expected a number in (0, 1], found {top_p}")
    seed = options.seed
    if seed is None:
        seed = secrets.randbits(_DRAWN_SEED_BITS) if options.state is None else options.state.seed
    return Sampling(temperature, options.top_k, top_p, seed)


@dataclass(slots=True)
class _Pieces:
    """Batches of tokens to pieces of text, up to the first stop string.

    Attributes:
        characters: vocabulary of the model.
        options: what the caller asks for.
        request: what the engine runs.
        num_prompt: tokens of the prompt.
        ids: tokens generated by this call, kept for the state alone.
        is_whole: the generation has run to its last token.
    """

    characters: Characters
    options: GenerationOptions
    request: Request
    num_prompt: int
    ids: list[int] = field(default_factory=list)
    is_whole: bool = False
    _stops: StopFilter = field(init=False)
    _logprobs: list[float] = field(default_factory=list)  # of text that is held back
    _num_generated: int = field(init=False)
    _to_skip: int = field(init=False)  # characters that are released once more, though they were sent before

    def __post_init__(self) -> None:
        self._stops = StopFilter(self.options.stops)
        self._num_generated = len(self.options.generated)
        to_skip = self._stops.skip(self.options.generated)
        if to_skip is None:
            raise InvalidArgument(
                "generated", "expected text that was sent, found text with a stop string in it"
            )
        self._to_skip = to_skip

    def add(self, batch: TokenBatch) -> TextPiece:
        """Return the text that a batch releases; the piece says whether the generation ends with it."""
        text, stopped_after = self._stops.push(self.characters.decode(batch.ids))
        count = len(batch.ids) if stopped_after is None else stopped_after
        self._num_generated += count
        if self.options.wants_state:
            self.ids += batch.ids[:count]
        finish = Finish.STOP if stopped_after is not None else Finish.LENGTH if batch.is_last else None
        if finish is Finish.LENGTH:
            self.is_whole = True
            text += self._stops.flush()
        skipped = min(self._to_skip, len(text))
        text, self._to_skip = text[skipped:], self._to_skip - skipped
        self._logprobs.extend(batch.logprobs)
        logprobs, self._logprobs = self._logprobs[: len(text)], self._logprobs[len(text) :]
        seed = self.request.sampling.seed
        if finish is None:
            return TextPiece(text, logprobs, seed)
        if self._to_skip:
            raise InvalidArgument(
                "generated",
                "expected text that was sent, found text whose end is the start of a stop string",
            )
        return TextPiece(text, logprobs, seed, finish, self.num_prompt, self._num_generated)
