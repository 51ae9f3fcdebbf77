"""Text generation and scoring with a language model."""

import math
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import Generation
from service.engine.request import Caller, Goal, Request, StateRow, TokenBatch
from service.engine.sampling import Sampling
from service.engine.streaming import Submitter, open_stream, run_all, run_one
from service.errors import InvalidArgument
from service.observability.metrics import EngineMetrics
from service.observability.traced import Answered, Asked
from service.tasks.codecs import Codec
from service.tasks.encoding import Encoder
from service.tasks.initial import PLAIN_START, FirstState, Start
from service.tasks.limits import Limits, check_count, check_texts
from service.tasks.pacing import Pace
from service.tasks.pieces import Pieces, TextPiece, Wanted
from service.tasks.source import SourceReader, no_source
from service.tasks.states import NEW_TEXT, TextProgress, TextState

# A seed may have 64 bits, but those drawn here have 53: JavaScript and many readers of JSON keep numbers as
# doubles, which round beyond, and Java has no unsigned integers.
_DRAWN_SEED_BITS = 53


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
        start: what the state at the start of a text is computed from.
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
    start: Start = PLAIN_START


class TextScore(NamedTuple):
    """The scores of a text's tokens 2..n, each given all before it.

    Attributes:
        token_logprobs: natural-log probabilities, float32 (n - 1,).
        alternatives: ids of the most likely tokens at each place, int64 (n - 1, k); None unless asked for.
        alternative_logprobs: their natural-log probabilities, float32 (n - 1, k); None unless asked for.
    """

    token_logprobs: NDArray[np.float32]
    alternatives: NDArray[np.int64] | None = None
    alternative_logprobs: NDArray[np.float32] | None = None

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
        spec: start token, end tokens, default length.
        codec: text to tokens and back.
        engine: runs the model.
        metrics: counts the time between tokens.
        limits: sizes of requests.
        encoder: encodes callers' texts with the codec.
        first: computes the state at the start of a text.

    Attributes:
        limits: sizes of requests.
        max_token_bytes: bytes of the longest text of a token in UTF-8.
    """

    def __init__(
        self,
        spec: Generation,
        codec: Codec,
        engine: Submitter,
        metrics: EngineMetrics,
        limits: Limits,
        encoder: Encoder,
        first: FirstState,
    ) -> None:
        self._spec = spec
        self._engine = engine
        self._metrics = metrics
        self._codec = codec
        self._encoder = encoder
        self._first = first
        self._end_tokens = frozenset(spec.end_tokens)
        self.limits = limits
        self.max_token_bytes = codec.max_token_bytes

    @property
    def source(self) -> SourceReader:
        """Reads the sources of the model.

        Raises:
            InvalidArgument: the model has no encoder.
        """
        if self._first.source is None:
            raise no_source()
        return self._first.source

    @property
    def has_source(self) -> bool:
        """True if the model has an encoder, which reads a source."""
        return self._first.source is not None

    async def generate(self, options: GenerationOptions, caller: Caller) -> AsyncGenerator[TextPiece, None]:
        """Generate text: the first token's at once, then what has come since.

        Raises:
            InvalidArgument: before anything is generated.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        self._check_sizes(options)
        options = self._with_stops(options)
        begins = options.state is None
        prompt = await self._encode(options.prompt, "prompt", caller, begins=begins)
        request = await self._begun_at(self._request_of(options, prompt), options, caller)
        pieces = self._pieces_of(options, request, prompt)
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
                while piece.is_longer(self.limits.piece_tokens):
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

    async def _begun_at(self, request: Request, options: GenerationOptions, caller: Caller) -> Request:
        """Add the state at the start of a new text, where the model's init graph computes it."""
        if options.state is not None:
            start = options.start
            for name, given in (("initial", start.initial), ("source", start.source is not None)):
                if given:
                    raise InvalidArgument(name, "expected none beside a state, found both")
            return request._replace(cache_scope=caller.cache_scope)
        rows = await self._first.row(options.start.initial, "initial", caller, options.start.source)
        return request._replace(cache_scope=caller.cache_scope, state=rows)

    async def _state_after(
        self, request: Request, pieces: Pieces, last: TokenBatch, caller: Caller
    ) -> TextState:
        """Return the state after the generated tokens, computed where the engine has gone on beyond it."""
        rows = last.state if pieces.is_whole else None
        if rows is None:
            rows = await self._rows_before_last(request, pieces.ids, caller)
        return pieces.state(rows)

    async def _rows_before_last(self, request: Request, ids: list[int], caller: Caller) -> StateRow:
        inputs = np.concatenate([request.inputs, np.array(ids[:-1], np.int64)])
        again = Request(inputs, Goal.LAST, state=request.state, keeps_state=True)
        rows: StateRow = (await run_one(self._engine, again, caller)).state
        return rows

    async def encode_texts(self, texts: Sequence[str], caller: Caller) -> list[NDArray[np.signedinteger]]:
        """Return the tokens of texts to score, normalized; the start token first where prompts have it.

        Raises:
            InvalidArgument: a text is too short, too long, or outside the vocabulary, or the model has an
                init graph, for which a text alone is not enough.
            DeadlineExceeded, ModelFailure: the tokenizer did not come to its turn, or failed.
        """
        if self._first.inputs:
            raise InvalidArgument(
                "model",
                "expected a model whose texts all start from one state, found one that computes it from "
                f"{', '.join(self._first.inputs)}, for which a text to score has no field",
            )
        check_texts(texts, self.limits)
        encoded, pace = [], Pace()
        for index, text in enumerate(texts):
            place = f"texts[{index}]"
            tokens = await self._encode(text, place, caller, begins=True)
            if self._spec.prepend_start:
                tokens = self._begun(tokens)
            check_count(place, "tokens", len(tokens), self.limits.text_length + 1, minimum=2)
            encoded.append(tokens)
            await pace.rest()
        return encoded

    async def score(
        self, encoded: Sequence[NDArray[np.signedinteger]], caller: Caller, num_alternatives: int = 0
    ) -> list[TextScore]:
        """Return the log-probabilities of each text's tokens, as `encode_texts` gives them.

        Args:
            encoded: tokens of each text.
            caller: caller.
            num_alternatives: most likely tokens to return at each place.

        Raises:
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        requests = [Request(tokens, Goal.SCORE, num_alternatives=num_alternatives) for tokens in encoded]
        outputs = await run_all(self._engine, requests, caller)
        return [_score_of(output) for output in outputs]

    def text_of(self, token: int) -> str:
        """Return the text of a token that stands within a text; "" where it has none."""
        stream = self._codec.stream(NEW_TEXT, np.array([token], np.int64))
        return stream.push([token]).text + stream.flush().text

    def tokens_of(self, max_tokens: int) -> int:
        """Return the most tokens that a request for so many generates; 0: the model's default."""
        return min(max_tokens or self._spec.max_tokens, self.limits.tokens)

    async def _encode(
        self, text: str, field: str, caller: Caller, *, begins: bool
    ) -> NDArray[np.signedinteger]:
        """Return the tokens of a caller's text; there may be more or fewer than characters."""
        tokens = await self._encoder.encode(text, field, caller, begins=begins)
        check_count(field, "tokens", len(tokens), self.limits.text_length, minimum=0)
        return tokens

    def _begun(self, tokens: NDArray[np.signedinteger]) -> NDArray[np.signedinteger]:
        """Return the tokens of a text at the start of a sequence, behind the start token if that is said."""
        if len(tokens) and not self._spec.prepend_start:
            return tokens
        return np.concatenate([np.array([self._spec.start_token], tokens.dtype), tokens])

    def _with_stops(self, options: GenerationOptions) -> GenerationOptions:
        """Normalize the stop strings, so that they are what the model writes."""
        stops = tuple(map(self._codec.normalizer.normalized, options.stops))
        if "" in stops:
            raise InvalidArgument(
                f"stop[{stops.index('')}]", "expected characters that the model writes, found none"
            )
        return options if stops == options.stops else replace(options, stops=stops)

    def _request_of(self, options: GenerationOptions, prompt: NDArray[np.signedinteger]) -> Request:
        """Check the options and make the engine's request of them and the prompt's tokens."""
        max_tokens = self.tokens_of(options.max_tokens)
        sent = self._check_generated(options, max_tokens)
        before, broken = options.state, _broken(options)
        if before is not None:
            inputs = np.concatenate([np.array([before.pending], prompt.dtype), prompt, sent])
        else:
            inputs = np.concatenate([self._begun(prompt), sent])
        done = len(sent) if broken is None else broken.generated_tokens
        if done >= max_tokens:
            raise InvalidArgument(
                "state",
                f"expected fewer tokens before it than the {max_tokens} to generate, found {done}; "
                "max_tokens counts from the start of the generation that the state is of",
            )
        return Request(
            inputs,
            Goal.GENERATE,
            _sampling_of(options),
            max_tokens - done,
            options.wants_logprobs,
            None if before is None else before.rows,
            options.wants_state,
            0 if before is None else before.position - 1,
            keeps_states=options.wants_state and not self._codec.is_exact,
        )

    def _pieces_of(
        self, options: GenerationOptions, request: Request, prompt: NDArray[np.signedinteger]
    ) -> Pieces:
        wanted = Wanted(
            options.stops, options.generated, options.wants_state, self._end_tokens, _broken(options)
        )
        progress = None if options.state is None else options.state.progress
        context = NEW_TEXT if progress is None else progress.context
        return Pieces(self._codec, wanted, request, prompt, context)

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
            return self._codec.encode_own("", "generated")
        if options.seed is None:
            raise InvalidArgument(
                "generated", "expected the seed of the call that has sent it in the field seed, found none"
            )
        if self._codec.is_exact and len(text) >= max_tokens:
            raise InvalidArgument(
                "generated",
                f"expected fewer characters than the {max_tokens} tokens to generate, found {len(text)}",
            )
        return self._codec.encode_own(text, "generated")


def _score_of(output: NDArray[Any]) -> TextScore:
    """Take apart what the engine returns of a scored text."""
    if output.ndim == 1:
        return TextScore(output)
    count = output.shape[1] // 2
    ids, logprobs = output[:, 1 : 1 + count], output[:, 1 + count :]
    return TextScore(output[:, 0].astype(np.float32), ids.astype(np.int64), logprobs.astype(np.float32))


def _broken(options: GenerationOptions) -> TextProgress | None:
    """Return how far the generation is that goes on, None where a new one begins at the state or prompt."""
    progress = None if options.state is None or options.prompt else options.state.progress
    return progress if progress is not None and progress.generated_tokens else None


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
