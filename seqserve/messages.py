"""Conversions between Python values and protobuf messages: pure functions, used by both clients.

Requests are checked by `seqserve.arguments` and `seqserve.frames` as they are built: what a field cannot hold
raises WrongType or WrongValue. What depends on the model is left to the server.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, SupportsFloat, TypeAlias

from seqserve import arguments
from seqserve.errors import WrongType, from_status
from seqserve.frames import Frame, ModelColumns, Rows, in_order, read_series
from seqserve.results import (
    Classification,
    ClassifyAnswer,
    FeatureInfo,
    FinishReason,
    Forecast,
    ForecastStep,
    LabelProbability,
    LayerInfo,
    ModelCard,
    ModelInfo,
    ModelStatus,
    Quantile,
    TextPiece,
    TextScore,
    TokenAlternative,
    Usage,
)
from seqserve.sequence_inputs import read_initial, read_source
from seqserve.tabular import Answers
from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import models_pb2 as models
from seqserve.v1 import sequences_pb2 as sequences
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation

Texts: TypeAlias = str | Iterable[str]
"""One or more texts; a single str is one text, not its characters."""

Observations: TypeAlias = Iterable[Iterable[SupportsFloat]] | Any
"""Observations, oldest first: nested lists or an array of shape (observations, values), with values in the
model's order; or a table with named columns (a DataFrame of pandas or polars, a Table of pyarrow, dicts).
"""

Series: TypeAlias = Iterable[Observations] | Any
"""Series of observations, an array of shape (series, observations, values), or one table for one series."""

_FINISH_REASONS: dict[int, FinishReason | None] = {
    generation.FINISH_REASON_UNSPECIFIED: None,
    generation.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    generation.FINISH_REASON_STOP: FinishReason.STOP,
    generation.FINISH_REASON_END_TOKEN: FinishReason.END_TOKEN,
}
_STATUSES: dict[int, ModelStatus] = {
    models.MODEL_STATUS_LOADING: ModelStatus.LOADING,
    models.MODEL_STATUS_READY: ModelStatus.READY,
    models.MODEL_STATUS_DRAINING: ModelStatus.DRAINING,
    models.MODEL_STATUS_FAILED: ModelStatus.FAILED,
}
_OUTPUT_STEPS: dict[int, str] = {
    sequences.OUTPUT_STEPS_LAST: "last",
    sequences.OUTPUT_STEPS_EVERY: "every",
}


def generate_request(  # noqa: PLR0913 - one keyword per field of the request
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
    initial: Mapping[str, Any] | None,
    source: Any,
) -> generation.GenerateRequest:
    """Build a generation request; None leaves a field unset, so that the server's default applies."""
    (first,) = read_initial("initial", initial, 1)
    return generation.GenerateRequest(
        model=arguments.text("model", model),
        version=arguments.count("version", version),
        prompt=arguments.text("prompt", prompt),
        max_tokens=arguments.count("max_tokens", max_tokens),
        temperature=arguments.temperature("temperature", temperature),
        top_k=arguments.count("top_k", top_k),
        top_p=arguments.share("top_p", top_p),
        seed=arguments.seed("seed", seed),
        stop=arguments.texts("stop", stop),
        state=arguments.state("state", state),
        return_state=arguments.flag("return_state", return_state),
        logprobs=arguments.flag("logprobs", logprobs),
        initial=first,
        source=None if source is None else read_source("source", source),
    )


def text_piece(response: generation.GenerateResponse) -> TextPiece:
    """Convert one message of a generation."""
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
        version=response.version,
    )


def score_request(
    texts: Texts, *, model: str, version: int, alternatives: int = 0
) -> generation.ScoreRequest:
    """Build a request to score texts."""
    return generation.ScoreRequest(
        model=arguments.text("model", model),
        version=arguments.count("version", version),
        texts=arguments.some_texts("texts", texts),
        alternatives=arguments.count("alternatives", alternatives),
    )


def text_scores(response: generation.ScoreResponse) -> Answers[TextScore]:
    """Convert the scores, one per text."""
    return Answers(
        TextScore(
            tuple(score.token_logprobs),
            score.total_logprob,
            score.perplexity,
            response.version,
            tuple(map(_alternatives, score.alternatives)),
        )
        for score in response.scores
    )


def _alternatives(found: generation.TokenAlternatives) -> tuple[TokenAlternative, ...]:
    return tuple(TokenAlternative(token.text, token.logprob) for token in found.tokens)


def classify_request(texts: Texts, *, model: str, version: int) -> classification.ClassifyRequest:
    """Build a request to classify texts."""
    return classification.ClassifyRequest(
        model=arguments.text("model", model),
        version=arguments.count("version", version),
        texts=arguments.some_texts("texts", texts),
    )


def stream_item(field: str, item: object) -> tuple[str, list[str]]:
    """Check one request of a classify stream: a pair of an id and the text or texts."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise arguments.refusal(
            WrongType, field, f"expected a pair of an id and the texts, found {arguments.type_of(item)}"
        )
    return arguments.text(f"{field}.id", item[0]), arguments.texts(f"{field}.texts", item[1])


def classifications(response: classification.ClassifyResponse) -> Answers[Classification]:
    """Convert the classifications, one per text."""
    return Answers(
        Classification(
            label=result.label,
            probability=result.probability,
            probabilities=tuple(
                LabelProbability(each.label, each.probability) for each in result.probabilities
            ),
            token_count=result.token_count,
            version=response.version,
        )
        for result in response.results
    )


def classify_answer(response: classification.ClassifyResponse) -> ClassifyAnswer:
    """Convert one answer of a classify stream."""
    return ClassifyAnswer(
        response.id,
        tuple(classifications(response)),
        from_status(response.error) if response.HasField("error") else None,
    )


def forecast_request(
    series: Series, *, model: str, version: int, horizon: int, quantiles: Iterable[SupportsFloat]
) -> tuple[forecasting.ForecastRequest, dict[int, Frame]]:
    """Build a request to forecast series; every value is converted to float64.

    Returns:
        The request, and the series that are tables, by their place. `set_frames` adds those, once the names
        of the model's columns are known.
    """
    found = read_series("series", series)
    request = forecasting.ForecastRequest(
        model=arguments.text("model", model),
        version=arguments.count("version", version),
        series=[
            forecasting.Series() if isinstance(each, Frame) else forecasting.Series(observations=rows(each))
            for each in found
        ],
        horizon=arguments.count("horizon", horizon),
        quantiles=arguments.levels("quantiles", quantiles),
    )
    return request, {place: each for place, each in enumerate(found) if isinstance(each, Frame)}


def set_frames(request: forecasting.ForecastRequest, frames: dict[int, Frame], columns: ModelColumns) -> None:
    """Add the series that are tables, and fix the version that the columns are of."""
    request.version = columns.version
    for place, frame in frames.items():
        ordered = in_order(f"series[{place}].observations", frame, columns)
        request.series[place].observations.extend(rows(ordered))


def forecasts(response: forecasting.ForecastResponse) -> Answers[Forecast]:
    """Convert the forecasts, one per series."""
    return Answers(forecast(message, version=response.version) for message in response.forecasts)


def forecast(message: forecasting.Forecast, state: bytes = b"", version: int = 0) -> Forecast:
    """Convert the forecast of one series by a version; `state` is the sealed state after it."""
    return Forecast(tuple(map(_forecast_step, message.steps)), message.last_value, state, version)


def rows(observations: Rows) -> list[forecasting.Observation]:
    """Convert observations that were checked."""
    return [forecasting.Observation(values=values) for values in observations]


def _forecast_step(step: forecasting.ForecastStep) -> ForecastStep:
    return ForecastStep(step.value, tuple(Quantile(each.level, each.value) for each in step.quantiles))


def model_request(name: str, version: int) -> models.GetModelRequest:
    """Build a request to look up one model version."""
    return models.GetModelRequest(
        model=arguments.text("name", name), version=arguments.count("version", version)
    )


def card_request(name: str, version: int) -> models.GetCardRequest:
    """Build a request for the card of one model version."""
    return models.GetCardRequest(
        model=arguments.text("name", name), version=arguments.count("version", version)
    )


def model_card(response: models.GetCardResponse) -> ModelCard:
    """Convert a card with its pictures."""
    pictures = {picture.name: picture.png for picture in response.pictures}
    return ModelCard(response.markdown, pictures, response.version)


def load_request(name: str, version: int, allow_interface_change: bool) -> models.LoadModelRequest:
    """Build a request to load one model version."""
    return models.LoadModelRequest(
        model=arguments.text("name", name),
        version=arguments.count("version", version),
        allow_interface_change=arguments.flag("allow_interface_change", allow_interface_change),
    )


def unload_request(name: str, version: int) -> models.UnloadModelRequest:
    """Build a request to unload one model version."""
    return models.UnloadModelRequest(
        model=arguments.text("name", name), version=arguments.count("version", version)
    )


def model_infos(response: models.ListModelsResponse) -> Answers[ModelInfo]:
    """Convert the list of model versions."""
    return Answers(map(model_info, response.models))


def model_info(model: models.Model) -> ModelInfo:
    """Convert one model version."""
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
        kind=model.kind,
        labels=tuple(model.labels),
        input=model.input,
        features=tuple(FeatureInfo(each.name, each.unit) for each in model.features),
        outputs=model.outputs,
        output=model.output,
        output_steps=_OUTPUT_STEPS.get(model.output_steps, ""),
        layer_info=tuple(LayerInfo(each.kind, each.width, each.bidirectional) for each in model.layer_info),
        source=model.source,
    )


def _json_object(text: str) -> dict[str, object]:
    """Parse a JSON object; return an empty one if the text is not valid.

    An invalid model.json may be the reason why a model failed, and must not hide the failure message.
    """
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
