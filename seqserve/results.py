"""What calls return: plain immutable data, the same from both clients. Probabilities are 0..1, logarithms
natural.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from seqserve.errors import SeqserveError


class FinishReason(StrEnum):
    """Why a generation ended."""

    LENGTH = "length"
    """As many tokens as asked for."""
    STOP = "stop"
    """A stop string came up."""
    UNKNOWN = "unknown"
    """A reason that this version of the client does not know."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a whole generation.

    Attributes:
        prompt_tokens: 0 for an empty prompt.
        generated_tokens: those of a stop string included.
    """

    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True, slots=True)
class TextPiece:
    """What arrived at once of a text being generated.

    Attributes:
        text: new text; may be empty in the last piece.
        token_count: tokens in `text`.
        logprobs: the model's own log-probability of each of them (before temperature, top_k and top_p), when
            asked for.
        seed: of the sampling, given or drawn; the same in every piece.
        finish_reason: why generation ended; in the last piece alone.
        usage: token counts of the whole call; in the last piece alone.
        state: sealed, after the last token, to continue from; in the last piece alone, when asked for.
    """

    text: str
    token_count: int
    logprobs: tuple[float, ...]
    seed: int
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    state: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole generated text, without its prompt.

    Attributes:
        text: what the model wrote.
        logprobs: the model's own log-probability of each token of `text`, when asked for.
        seed: gives the same text again, from the same model and prompt, with the same options.
        finish_reason: why it ended.
        usage: token counts.
        state: sealed, after the last token, to continue from; empty unless asked for.
    """

    text: str
    logprobs: tuple[float, ...]
    seed: int
    finish_reason: FinishReason
    usage: Usage
    state: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class TextScore:
    """How likely a model finds a text.

    Attributes:
        token_logprobs: of tokens 2..n, each given all before it.
        total_logprob: their sum, in nats.
        perplexity: exp(-total_logprob / (n - 1)).
    """

    token_logprobs: tuple[float, ...]
    total_logprob: float
    perplexity: float

    @property
    def nats_per_token(self) -> float:
        """The cross entropy: the mean surprise at a token, the logarithm of the perplexity."""
        return -self.total_logprob / len(self.token_logprobs)


@dataclass(frozen=True, slots=True)
class LabelProbability:
    """One class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The class of a text.

    Attributes:
        label: the most probable class.
        probability: of that class.
        probabilities: of every class, most probable first.
        token_count: tokens of the text.
    """

    label: str
    probability: float
    probabilities: tuple[LabelProbability, ...]
    token_count: int


@dataclass(frozen=True, slots=True)
class ClassifyAnswer:
    """The answer to one request of a stream.

    Attributes:
        id: of the request.
        results: one classification a text, in the order of the request; empty where it failed.
        error: why this request failed; the stream goes on.
    """

    id: str
    results: tuple[Classification, ...]
    error: SeqserveError | None = None


@dataclass(frozen=True, slots=True)
class Quantile:
    """A value that a share `level` of outcomes should lie below."""

    level: float
    value: float


@dataclass(frozen=True, slots=True)
class ForecastStep:
    """One step ahead, in the target's unit.

    Attributes:
        value: the median.
        quantiles: in the order asked for, or rising.
    """

    value: float
    quantiles: tuple[Quantile, ...]


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast of one series.

    Attributes:
        steps: nearest first.
        last_value: the target's last observed value: the naive forecast of every step.
        state: sealed, after the last observation, to continue from in another stream; empty unless a push
            asked for it.
    """

    steps: tuple[ForecastStep, ...]
    last_value: float
    state: bytes = field(default=b"", repr=False)


class ModelStatus(StrEnum):
    """Where a model version stands."""

    LOADING = "loading"
    """Being checked and warmed up; takes no requests yet."""
    READY = "ready"
    """Serving."""
    DRAINING = "draining"
    """Finishing the requests it has; takes no more."""
    FAILED = "failed"
    """Refused; the message says why."""
    UNKNOWN = "unknown"
    """A status that this version of the client does not know."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model version as the server knows it.

    Attributes:
        name, version: what requests call it.
        status: where it stands.
        message: why it failed: the check, what was expected, what was found; empty otherwise.
        task: text-generation, text-classification or forecasting.
        cell: rnn, lstm or gru.
        layers: recurrent layers.
        hidden: width of each layer's state.
        variant: which weights serve, fp32 or int8.
        provider: where they run, CPUExecutionProvider or CUDAExecutionProvider.
        batch_invariant: an answer has the same bits whatever else is being served.
        golden_max_error: largest absolute difference from PyTorch's outputs, seen at load.
        metrics: on held-out data, from training.
        spec: model.json as loaded; empty where it could not be read.
    """

    name: str
    version: int
    status: ModelStatus
    message: str
    task: str
    cell: str
    layers: int
    hidden: int
    variant: str
    provider: str
    batch_invariant: bool
    golden_max_error: float
    metrics: Mapping[str, float] = field(hash=False)
    spec: Mapping[str, Any] = field(hash=False, repr=False)
