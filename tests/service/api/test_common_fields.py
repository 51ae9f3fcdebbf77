"""Fields that the answers of several services share: the version that answered, and the details of errors."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from google.rpc import status_pb2

from seqserve.v1 import forecasting_pb2, sequences_pb2, text_classification_pb2, text_generation_pb2
from seqserve.v1.forecasting_pb2_grpc import ForecastingStub
from seqserve.v1.sequences_pb2_grpc import SequencesStub
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub
from tests.service.api.conftest import Running
from tests.service.api.rich import finish, status_in, unpack

DAYS: Final = [
    forecasting_pb2.Observation(values=[10.0 + day, 11.0 + day, 9.0 + day, 10.5 + day, 1000.0])
    for day in range(8)
]
METADATA: Final = (("x-request-id", "mine"),)


def generate(running: Running, model: str = "letters") -> Any:
    request = text_generation_pb2.GenerateRequest(model=model, prompt="abc", max_tokens=3)
    return TextGenerationStub(running.channel).Generate(request, metadata=METADATA)


def score(running: Running, model: str = "letters") -> Any:
    request = text_generation_pb2.ScoreRequest(model=model, texts=["abc"])
    return TextGenerationStub(running.channel).Score(request, metadata=METADATA)


def classify_request(model: str) -> text_classification_pb2.ClassifyRequest:
    return text_classification_pb2.ClassifyRequest(model=model, texts=["good film"])


def classify(running: Running, model: str = "moods") -> Any:
    return TextClassificationStub(running.channel).Classify(classify_request(model), metadata=METADATA)


def classify_stream(running: Running, model: str = "moods") -> Any:
    return TextClassificationStub(running.channel).ClassifyStream(
        iter([classify_request(model)]), metadata=METADATA
    )


def forecast(running: Running, model: str = "prices") -> Any:
    series = [forecasting_pb2.Series(observations=DAYS)]
    request = forecasting_pb2.ForecastRequest(model=model, series=series)
    return ForecastingStub(running.channel).Forecast(request, metadata=METADATA)


def forecast_stream(running: Running, model: str = "prices") -> Any:
    request = forecasting_pb2.ForecastStreamRequest(model=model, observations=DAYS)
    return ForecastingStub(running.channel).ForecastStream(iter([request]), metadata=METADATA)


def infer(running: Running, model: str = "moods") -> Any:
    request = sequences_pb2.InferRequest(model=model, inputs=[sequences_pb2.SequenceInput(text="good")])
    return SequencesStub(running.channel).Infer(request, metadata=METADATA)


def infer_stream(running: Running, model: str = "moods") -> Any:
    one = sequences_pb2.SequenceInput(text="good")
    request = sequences_pb2.InferStreamRequest(model=model, input=one)
    return SequencesStub(running.channel).InferStream(iter([request]), metadata=METADATA)


UNARY_AND_STREAM: Final = ((classify, classify_stream), (forecast, forecast_stream), (infer, infer_stream))
CALLS: Final = (generate, score, *(call for pair in UNARY_AND_STREAM for call in pair))


def name_of(call: Any) -> str:
    return str(getattr(call, "__name__", call))


@pytest.mark.parametrize("call", CALLS, ids=name_of)
async def test_answer_says_which_version_answered(running: Running, call: Callable[[Running], Any]) -> None:
    answer = await finish(call(running))
    answers = answer if isinstance(answer, list) else [answer]
    assert {one.version for one in answers} == {1}


async def stream_error(call: Any) -> status_pb2.Status:
    [answer] = await finish(call)
    assert getattr(answer, "version", 0) == 0
    status: status_pb2.Status = answer.error
    return status


async def call_error(call: Any) -> status_pb2.Status:
    with pytest.raises(Exception, match="StatusCode") as refusal:
        await finish(call)
    error: Any = refusal.value
    return status_in(error)


@pytest.mark.parametrize("model", ["", "unknown", "letters"], ids=["invalid", "unknown", "of another task"])
@pytest.mark.parametrize(("unary", "stream"), UNARY_AND_STREAM, ids=name_of)
async def test_error_in_a_stream_is_that_of_a_call(
    running: Running, unary: Callable[..., Any], stream: Callable[..., Any], model: str
) -> None:
    found = await stream_error(stream(running, model))
    assert found == await call_error(unary(running, model))
    assert unpack(found)["ErrorInfo"].metadata["request_id"] == "mine"
