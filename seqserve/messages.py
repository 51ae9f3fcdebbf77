"""Python values to request messages, response messages to results. Pure functions, used by both clients.

A value that its field cannot hold (a negative version, a seed beyond 64 bits, text with lone surrogates)
raises what protobuf raises, ValueError or TypeError; whether a value makes sense is the server's to say.
"""

import json
from collections.abc import Iterable
from typing import SupportsFloat, TypeAlias

from seqserve.errors import from_status
from seqserve.results import (
    Classification,
    ClassifyAnswer,
    FinishReason,
    Forecast,
    ForecastStep,
    LabelProbability,
    ModelInfo,
    ModelStatus,
    Quantile,
    TextPiece,
    TextScore,
    Usage,
)
from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import models_pb2 as models
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation

Texts: TypeAlias = str | Iterable[str]
"""Texts; a single str is one text, not its characters."""

Observations: TypeAlias = Iterable[Iterable[SupportsFloat]]
"""Observations of values, oldest first: nested lists, or a numpy array of shape (observations, values)."""

Series: TypeAlias = Iterable[Observations]
"""Series of observations of values: nested lists, or a numpy array of shape (series, observations,
values).
"""

_FINISH_REASONS: dict[int, FinishReason | None] = {
    generation.FINISH_REASON_UNSPECIFIED: None,
    generation.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    generation.FINISH_REASON_STOP: FinishReason.STOP,
}
_STATUSES: dict[int, ModelStatus] = {
    models.MODEL_STATUS_LOADING: ModelStatus.LOADING,
    models.MODEL_STATUS_READY: ModelStatus.READY,
    models.MODEL_STATUS_DRAINING: ModelStatus.DRAINING,
    models.MODEL_STATUS_FAILED: ModelStatus.FAILED,
}


def generate_request(
    prompt: str,
    *,
    model: str,
    version: int,
    max_tokens: int,
    temperature: float | None,
    top_k: int,
    top_p: float | None,
    seed: int | None,
    stop: Texts,
    logprobs: bool,
    state: bytes | None,
    return_state: bool,
) -> generation.GenerateRequest:
    """None leaves a field unset: the server's default holds."""
    return generation.GenerateRequest(
        model=model,
        version=version,
        prompt=prompt,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop=_each(stop),
        state=state or b"",
        return_state=return_state,
        logprobs=logprobs,
    )


def text_piece(response: generation.GenerateResponse) -> TextPiece:
    """One message of a generation."""
    return TextPiece(
        text=response.text,
        token_count=response.token_count,
        logprobs=tuple(response.logprobs),
        seed=response.seed,
        finish_reason=_FINISH_REASONS.get(response.finish_reason, FinishReason.UNKNOWN),
        usage=Usage(response.usage.prompt_tokens, response.usage.generated_tokens)
        if response.HasField("usage")
        else None,
        state=response.state,
    )


def score_request(texts: Texts, *, model: str, version: int) -> generation.ScoreRequest:
    """Texts to score."""
    return generation.ScoreRequest(model=model, version=version, texts=_each(texts))


def text_scores(response: generation.ScoreResponse) -> list[TextScore]:
    """One score a text."""
    return [
        TextScore(tuple(score.token_logprobs), score.total_logprob, score.perplexity)
        for score in response.scores
    ]


def classify_request(
    texts: Texts, *, model: str, version: int, request_id: str = ""
) -> classification.ClassifyRequest:
    """Texts to classify."""
    return classification.ClassifyRequest(model=model, version=version, texts=_each(texts), id=request_id)


def classifications(response: classification.ClassifyResponse) -> list[Classification]:
    """One classification a text."""
    return [
        Classification(
            label=result.label,
            probability=result.probability,
            probabilities=tuple(
                LabelProbability(each.label, each.probability) for each in result.probabilities
            ),
            token_count=result.token_count,
        )
        for result in response.results
    ]


def classify_answer(response: classification.ClassifyResponse) -> ClassifyAnswer:
    """One answer of a stream."""
    return ClassifyAnswer(
        response.id,
        tuple(classifications(response)),
        from_status(response.error) if response.HasField("error") else None,
    )


def forecast_request(
    series: Series, *, model: str, version: int, horizon: int, quantiles: Iterable[SupportsFloat]
) -> forecasting.ForecastRequest:
    """Series to forecast, in float64 whatever they came in."""
    return forecasting.ForecastRequest(
        model=model,
        version=version,
        series=[forecasting.Series(observations=_observations(observations)) for observations in series],
        horizon=horizon,
        quantiles=map(float, quantiles),
    )


def forecasts(response: forecasting.ForecastResponse) -> list[Forecast]:
    """One forecast a series."""
    return list(map(forecast, response.forecasts))


def forecast(message: forecasting.Forecast, state: bytes = b"") -> Forecast:
    """The forecast of one series, with the sealed state after it."""
    return Forecast(tuple(map(_forecast_step, message.steps)), message.last_value, state)


def new_observations(
    observations: Observations, *, series_id: str, return_state: bool
) -> forecasting.ForecastStreamRequest:
    """A message of a series in a stream, in float64; the first one of a series names its model besides."""
    return forecasting.ForecastStreamRequest(
        observations=_observations(observations), id=series_id, return_state=return_state
    )


def _observations(observations: Observations) -> list[forecasting.Observation]:
    return [forecasting.Observation(values=map(float, values)) for values in observations]


def _forecast_step(step: forecasting.ForecastStep) -> ForecastStep:
    return ForecastStep(step.value, tuple(Quantile(each.level, each.value) for each in step.quantiles))


def model_request(name: str, version: int) -> models.GetModelRequest:
    """One model version to look up."""
    return models.GetModelRequest(model=name, version=version)


def load_request(name: str, version: int) -> models.LoadModelRequest:
    """One model version to serve."""
    return models.LoadModelRequest(model=name, version=version)


def unload_request(name: str, version: int) -> models.UnloadModelRequest:
    """One model version to serve no more."""
    return models.UnloadModelRequest(model=name, version=version)


def model_infos(response: models.ListModelsResponse) -> list[ModelInfo]:
    """Every model version."""
    return [model_info(model) for model in response.models]


def model_info(model: models.Model) -> ModelInfo:
    """One model version."""
    return ModelInfo(
        name=model.name,
        version=model.version,
        status=_STATUSES.get(model.status, ModelStatus.UNKNOWN),
        message=model.message,
        task=model.task,
        cell=model.cell,
        layers=model.layers,
        hidden=model.hidden,
        variant=model.variant,
        provider=model.provider,
        batch_invariant=model.batch_invariant,
        golden_max_error=model.golden_max_error,
        metrics=dict(model.metrics),
        spec=_json_object(model.spec_json),
    )


def _json_object(text: str) -> dict[str, object]:
    """The object in `text`, or an empty one: a broken model.json may be the very reason why a model failed,
    and must not hide it.
    """
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _each(texts: Texts) -> Iterable[str]:
    return (texts,) if isinstance(texts, str) else texts
