"""The rpcs as plain awaitables, and the parts of a rich error."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import models_pb2 as models
from seqserve.v1 import sequences_pb2 as sequences
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from seqserve.v1.forecasting_pb2_grpc import ForecastingStub
from seqserve.v1.models_pb2_grpc import ModelsStub
from seqserve.v1.sequences_pb2_grpc import SequencesStub
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub

Row = Sequence[float]


@dataclass(frozen=True, slots=True)
class Text:
    """A whole generation, put together from its messages."""

    text: str
    logprobs: tuple[float, ...]
    last: generation.GenerateResponse
    messages: int


class Calls:
    """Every rpc of one server.

    Args:
        channel: to it.
    """

    def __init__(self, channel: aio.Channel) -> None:
        self.channel = channel
        self.generation: Any = TextGenerationStub(channel)
        self.classification: Any = TextClassificationStub(channel)
        self.forecasting: Any = ForecastingStub(channel)
        self.sequences: Any = SequencesStub(channel)
        self.models: Any = ModelsStub(channel)

    async def generate(self, model: str = "letters", **fields: Any) -> Text:
        """Read a generation to its end, checking what every message promises."""
        messages = [
            one async for one in self.generation.Generate(generation.GenerateRequest(model=model, **fields))
        ]
        assert all(one.finish_reason == generation.FINISH_REASON_UNSPECIFIED for one in messages[:-1])
        assert messages[-1].finish_reason != generation.FINISH_REASON_UNSPECIFIED
        assert all(one.token_count == len(one.text) for one in messages)
        assert len({one.seed for one in messages}) == 1
        return Text(
            "".join(one.text for one in messages),
            tuple(value for one in messages for value in one.logprobs),
            messages[-1],
            len(messages),
        )

    async def score(self, texts: Sequence[str], model: str = "letters") -> list[generation.TextScore]:
        response = await self.generation.Score(generation.ScoreRequest(model=model, texts=texts))
        return list(response.scores)

    async def classify(
        self, texts: Sequence[str], model: str = "moods", **fields: Any
    ) -> list[classification.Classification]:
        response = await self.classification.Classify(
            classification.ClassifyRequest(model=model, texts=texts, **fields)
        )
        return list(response.results)

    async def forecast(
        self, series: Sequence[Sequence[Row]], model: str = "prices", **fields: Any
    ) -> list[forecasting.Forecast]:
        response = await self.forecasting.Forecast(forecast_request(series, model, **fields))
        return list(response.forecasts)

    async def infer(
        self, inputs: Sequence[sequences.SequenceInput], model: str = "moods", **fields: Any
    ) -> list[sequences.SequenceOutput]:
        request = sequences.InferRequest(model=model, inputs=inputs, **fields)
        return list((await self.sequences.Infer(request)).outputs)

    async def list_models(self) -> list[models.Model]:
        return list((await self.models.List(models.ListModelsRequest())).models)

    async def get_model(self, model: str, version: int = 0) -> models.Model:
        response: models.Model = await self.models.Get(models.GetModelRequest(model=model, version=version))
        return response


def forecast_request(
    series: Sequence[Sequence[Row]], model: str = "prices", **fields: Any
) -> forecasting.ForecastRequest:
    observed = [
        forecasting.Series(observations=[forecasting.Observation(values=row) for row in rows])
        for rows in series
    ]
    return forecasting.ForecastRequest(model=model, series=observed, **fields)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a refused call carries: code, text, and the rich details."""

    code: grpc.StatusCode
    text: str
    reason: str
    violations: dict[str, str]
    retry_after_s: float | None


async def refusal(call: Awaitable[object]) -> Refusal:
    """Await a call that must fail."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return refusal_of(caught.value)


def refusal_of(error: aio.AioRpcError) -> Refusal:
    """The parts of a call's error."""
    metadata: dict[str, Any] = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    return Refusal(error.code(), error.details() or "", *unpacked(status))


def unpacked(status: status_pb2.Status) -> tuple[str, dict[str, str], float | None]:
    """Reason, violations by field, seconds to wait."""
    info, request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    found = [[detail.Unpack(kind) for kind in (info, request, retry)] for detail in status.details]
    assert all(any(one) for one in found)
    assert info.domain == "seqserve"
    has_retry = any(one[2] for one in found)
    violations = {one.field: one.description for one in request.field_violations}
    return info.reason, violations, retry.retry_delay.ToNanoseconds() / 1e9 if has_retry else None
