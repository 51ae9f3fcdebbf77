"""Results of calls: immutable dataclasses, the same for both clients.

Probabilities are in 0..1, and logarithms are natural. `to_frame()` makes a pandas DataFrame of a result, or
of a list of results, and notebooks show both as tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from seqserve.errors import SeqserveError
from seqserve.tabular import Record, Tabular, short


class FinishReason(StrEnum):
    """Why a generation ended."""

    LENGTH = "length"
    """The requested number of tokens was generated."""
    STOP = "stop"
    """A stop string was generated."""
    END_TOKEN = "end_token"  # noqa: S105 - no password
    """The model generated an end token."""
    UNKNOWN = "unknown"
    """The server sent a reason that this version of the client does not know."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a whole generation.

    Attributes:
        prompt_tokens: Tokens of the prompt; 0 for an empty prompt.
        generated_tokens: Generated tokens, those of a stop string and an end token included.
    """

    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True, slots=True, repr=False)
class TextPiece:
    """A piece of a text being generated, as received in one message.

    Attributes:
        text: New text; may be empty in the last piece.
        token_count: Number of tokens in `text`.
        logprobs: Log-probability of each of these tokens under the model, before temperature, top_k and
            top_p; empty unless requested.
        seed: Seed of the sampling, given or drawn; the same in every piece.
        finish_reason: Why the generation ended; set only in the last piece.
        usage: Token counts of the whole generation; set only in the last piece.
        state: Sealed state after the last token, to continue from, if requested: set in the last piece, and
            now and then in others of a model whose text does not determine its tokens.
        version: Version of the model that answered, 0 from a server that does not say; not compared.
    """

    text: str
    token_count: int
    logprobs: tuple[float, ...]
    seed: int
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    state: bytes = field(default=b"", repr=False)
    version: int = field(default=0, compare=False)

    def __repr__(self) -> str:
        end = f", finish_reason={self.finish_reason.value!r}" if self.finish_reason else ""
        return f"TextPiece({short(self.text)}, token_count={self.token_count}, seed={self.seed}{end})"


@dataclass(frozen=True, slots=True, repr=False)
class Generation(Tabular):
    """A whole generated text, without its prompt.

    Attributes:
        text: The generated text.
        logprobs: Log-probability of each token of `text` under the model; empty unless requested.
        seed: Seed of the sampling. It reproduces the text with the same model, prompt and options.
        finish_reason: Why the generation ended.
        usage: Token counts.
        state: Sealed state after the last token, to continue from; empty unless requested.
        version: Version of the model that answered, 0 from a server that does not say; not compared.
    """

    text: str
    logprobs: tuple[float, ...]
    seed: int
    finish_reason: FinishReason
    usage: Usage
    state: bytes = field(default=b"", repr=False)
    version: int = field(default=0, compare=False)

    def __repr__(self) -> str:
        ended = f"finish_reason={self.finish_reason.value!r}, generated_tokens={self.usage.generated_tokens}"
        return f"Generation({short(self.text)}, seed={self.seed}, {ended})"

    def _records(self) -> list[Record]:
        tokens = {"prompt tokens": self.usage.prompt_tokens, "tokens": self.usage.generated_tokens}
        ended: Record = {"finish reason": self.finish_reason.value, "seed": self.seed}
        return [{"text": self.text} | tokens | ended]


@dataclass(frozen=True, slots=True)
class TokenAlternative:
    """A token that could stand at a position of a text, and its log-probability under the model."""

    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TextScore(Tabular):
    """Log-probabilities of a text of n tokens under a language model.

    Attributes:
        token_logprobs: Log-probability of each of tokens 2..n, given all tokens before it.
        total_logprob: Their sum, in nats.
        perplexity: exp(-total_logprob / (n - 1)).
        version: Version of the model that answered, 0 from a server that does not say; not compared.
        alternatives: The most likely tokens in place of each of tokens 2..n, most likely first; empty unless
            requested.
    """

    token_logprobs: tuple[float, ...] = field(repr=False)
    total_logprob: float
    perplexity: float
    version: int = field(default=0, compare=False)
    alternatives: tuple[tuple[TokenAlternative, ...], ...] = field(default=(), repr=False)

    @property
    def nats_per_token(self) -> float:
        """The cross entropy: mean negative log-probability per token, in nats."""
        return -self.total_logprob / len(self.token_logprobs)

    def _records(self) -> list[Record]:
        return [{"token": token, "logprob": each} for token, each in enumerate(self.token_logprobs, start=2)]

    def _summary(self) -> list[Record]:
        tokens = len(self.token_logprobs) + 1
        return [{"perplexity": self.perplexity, "nats/token": self.nats_per_token, "tokens": tokens}]


@dataclass(frozen=True, slots=True)
class LabelProbability:
    """A class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Classification(Tabular):
    """The predicted class of a text.

    Attributes:
        label: The most probable class.
        probability: Probability of that class.
        probabilities: Probability of every class, most probable first.
        token_count: Number of tokens of the text.
        version: Version of the model that answered, 0 from a server that does not say; not compared.
    """

    label: str
    probability: float
    probabilities: tuple[LabelProbability, ...] = field(repr=False)
    token_count: int
    version: int = field(default=0, compare=False)

    def _records(self) -> list[Record]:
        return [{"label": each.label, "probability": each.probability} for each in self.probabilities]

    def _summary(self) -> list[Record]:
        return [{"label": self.label, "probability": self.probability, "tokens": self.token_count}]


@dataclass(frozen=True, slots=True)
class ClassifyAnswer(Tabular):
    """The answer to one request of a classify stream.

    Attributes:
        id: Id of the request.
        results: One classification per text, in the order of the request; empty if the request failed.
        error: Why this request failed, or None. The stream continues either way.
    """

    id: str
    results: tuple[Classification, ...]
    error: SeqserveError | None = None

    def _records(self) -> list[Record]:
        if self.error is not None:
            return [{"id": self.id, "error": str(self.error)}]
        return [{"id": self.id} | record for result in self.results for record in result._summary()]


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of a forecast: a share `level` of outcomes should lie below `value`."""

    level: float
    value: float


@dataclass(frozen=True, slots=True)
class ForecastStep:
    """The forecast of one step ahead, in the target's unit.

    Attributes:
        value: The median.
        quantiles: Quantiles in the requested order, or ascending.
    """

    value: float
    quantiles: tuple[Quantile, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Forecast(Tabular):
    """The forecast of one series.

    Attributes:
        steps: Forecasts of the steps ahead, nearest first.
        last_value: Last observed value of the target, which is the naive forecast of every step.
        state: Sealed state after the last observation, to continue from in another stream; empty unless the
            push requested it.
        version: Version of the model that answered, 0 from a server that does not say; not compared.
    """

    steps: tuple[ForecastStep, ...]
    last_value: float
    state: bytes = field(default=b"", repr=False)
    version: int = field(default=0, compare=False)

    _item: ClassVar[str] = "series"

    def __repr__(self) -> str:
        medians = f"medians {self.steps[0].value:.6g} to {self.steps[-1].value:.6g}, " if self.steps else ""
        return f"Forecast({len(self.steps)} steps, {medians}last_value={self.last_value:.6g})"

    def _records(self) -> list[Record]:
        """Return one row per step: median, quantiles, naive forecast and the change from it, in its unit."""
        records: list[Record] = []
        for ahead, step in enumerate(self.steps, start=1):
            quantiles: Record = {f"{each.level:.6g}": each.value for each in step.quantiles}
            naive: Record = {"naive": self.last_value, "change": step.value - self.last_value}
            records.append({"ahead": ahead, "median": step.value} | quantiles | naive)
        return records


class ModelStatus(StrEnum):
    """Status of a model version."""

    LOADING = "loading"
    """The version is being checked and warmed up, and takes no requests yet."""
    READY = "ready"
    """The version takes requests."""
    DRAINING = "draining"
    """The version finishes its requests in flight and takes no new ones."""
    FAILED = "failed"
    """The version failed a check; the message names it."""
    UNKNOWN = "unknown"
    """The server sent a status that this version of the client does not know."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The card of a model version, for people to read.

    Attributes:
        markdown: The card in Markdown, front matter included.
        pictures: PNG files that the card shows, by the names it shows them by.
        version: Version of the model.
    """

    markdown: str = field(repr=False)
    pictures: Mapping[str, bytes] = field(hash=False, repr=False)
    version: int


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """One value of a time step: its name, and its unit or ""."""

    name: str
    unit: str


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One recurrent layer.

    Attributes:
        kind: "rnn", "lstm" or "gru".
        width: Size of its hidden state, of one direction.
        bidirectional: Whether it runs in both directions.
    """

    kind: str
    width: int
    bidirectional: bool


@dataclass(frozen=True, slots=True)
class ModelInfo(Tabular):
    """A model version as the server knows it.

    Attributes:
        name: Name of the model.
        version: Version of the model.
        status: Status of the version.
        message: Why the version failed: the check, the expected value and the found one; otherwise empty.
        task: "text-generation", "text-classification", "forecasting" or "sequences".
        cell: "rnn", "lstm" or "gru"; joined by + where layers differ.
        layers: Number of recurrent layers.
        hidden: Size of the hidden state of each layer, of the widest where they differ.
        variant: Weights in use, "fp32" or "int8".
        provider: onnxruntime provider, "CPUExecutionProvider" or "CUDAExecutionProvider".
        batch_invariant: Whether an answer is bit-identical in any batch and under any load.
        golden_max_error: Largest absolute difference from PyTorch's outputs on the golden examples, measured
            at load.
        metrics: Metrics on held-out data, from training.
        spec: model.json as loaded; empty if it could not be read, and in a list that does not include it.
        kind: "chunk", a causal network, or "whole", one that needs whole sequences. This and what follows is
            empty from a server that does not say it.
        labels: Labels, in the order of probabilities.
        input: What a sequence is made of: "text", "tokens" or "steps".
        features: Values of a time step, in order.
        outputs: Number of outputs of a time step.
        output: What comes out: "label", "probabilities", "numbers", "embedding", "forecast" or "text".
        output_steps: Time steps whose outputs a request gets that does not say: "last" or "every".
        layer_info: Recurrent layers, first one first.
        source: What the model was converted from, in words.
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
    kind: str = ""
    labels: tuple[str, ...] = field(default=(), repr=False)
    input: str = ""
    features: tuple[FeatureInfo, ...] = field(default=(), repr=False)
    outputs: int = 0
    output: str = ""
    output_steps: str = ""
    layer_info: tuple[LayerInfo, ...] = field(default=(), repr=False)
    source: str = ""

    def _records(self) -> list[Record]:
        identity: Record = {"name": self.name, "version": self.version, "status": self.status.value}
        network: Record = {"task": self.task, "cell": self.cell, "layers": self.layers, "hidden": self.hidden}
        return [identity | network | {"variant": self.variant, "message": self.message}]
