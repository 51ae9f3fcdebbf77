"""Answers that clients would not take are refused before they are computed; estimates are never too low."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.inference import grpc_service_pb2 as inference
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import sequences_pb2 as pb
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from seqserve.v1.forecasting_pb2_grpc import ForecastingStub
from seqserve.v1.sequences_pb2_grpc import SequencesStub
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub
from service.api.answer_limits import (
    check_classes,
    check_forecast,
    check_forecasts,
    check_scores,
    size_of_alternatives,
)
from service.api.calls import CallLimits
from service.contract.spec import Task
from service.errors import AnswerTooLarge
from service.tasks.pieces import TextPiece
from tests.integration.tensors import infer_request
from tests.service.api.conftest import Running
from tests.service.api.handlers import KINDS, bench_of
from tests.service.api.rich import finish, refused_with, status_in, unpack
from tests.service.builders import LIMITS

NOTHING: Final = replace(LIMITS, items=1000, text_length=100_000, answer_bytes=0)
DAYS: Final = [
    forecasting.Observation(values=[10.0 + day, 11.0 + day, 9.0 + day, 10.5 + day, 1000.0])
    for day in range(8)
]
MAX_FLOAT, MAX_COUNT = 3.4e38, 2**32 - 1


def estimate(check: Callable[[], None]) -> int:
    """Return the size that a check finds where answers may have no bytes at all."""
    with pytest.raises(AnswerTooLarge) as refusal:
        check()
    return int(refusal.value.metadata["answer_bytes"])


def assert_close(found: int, size: int, parts: int) -> None:
    """A size is estimated no lower than it is, and no higher than by the lengths of its parts."""
    assert size <= found <= size + 40 * (parts + 1) + 4 * 200


texts_of_many_sizes = st.lists(st.integers(2, 5000).map("é".__mul__), min_size=1, max_size=5)


@given(texts_of_many_sizes)
def test_scores_are_as_large_as_estimated(texts: list[str]) -> None:
    scores = [
        generation.TextScore(token_logprobs=[-0.5] * (len(text) - 1), total_logprob=-1.5, perplexity=2.5)
        for text in texts
    ]
    size = generation.ScoreResponse(scores=scores, version=MAX_COUNT).ByteSize()
    assert_close(estimate(lambda: check_scores([len(text) for text in texts], NOTHING)), size, len(texts))


@given(st.integers(2, 40), st.integers(1, 20), st.text(min_size=1, max_size=50))
def test_alternatives_are_as_large_as_estimated(length: int, count: int, token: str) -> None:
    one = generation.TokenAlternatives(tokens=[generation.TokenAlternative(text=token, logprob=-0.5)] * count)
    score = generation.TextScore(
        token_logprobs=[-0.5] * (length - 1),
        total_logprob=-1.5,
        perplexity=2.5,
        alternatives=[one] * (length - 1),
    )
    size = generation.ScoreResponse(scores=[score], version=MAX_COUNT).ByteSize()
    each = size_of_alternatives(count, len(token.encode()))
    found = estimate(lambda: check_scores([length], NOTHING, each))
    assert size <= found <= size + (length + 1) * (30 + 10 * (count + 1) + len(token.encode()) * count)


@given(st.lists(st.text(max_size=200), min_size=2, max_size=30), st.integers(1, 5), st.text(max_size=50))
def test_classes_are_as_large_as_estimated(labels: list[str], count: int, name: str) -> None:
    sizes = [len(label.encode()) for label in labels]
    task: Any = SimpleNamespace(
        limits=NOTHING, num_labels=len(sizes), label_bytes=sum(sizes), max_label_bytes=max(sizes)
    )
    probabilities = [classification.LabelProbability(label=label, probability=0.5) for label in labels]
    one = classification.Classification(
        label=labels[int(np.argmax(sizes))],
        probability=0.5,
        probabilities=probabilities,
        token_count=MAX_COUNT,
    )
    answer = classification.ClassifyResponse(results=[one] * count, id=name, version=MAX_COUNT)
    found = estimate(lambda: check_classes(["good"] * count, name, task))
    assert_close(found, answer.ByteSize(), count * (len(labels) + 1))


def forecast_of(steps: int, levels: int) -> forecasting.Forecast:
    quantiles = [forecasting.Quantile(level=0.5, value=1.5)] * levels
    return forecasting.Forecast(
        steps=[forecasting.ForecastStep(value=1.5, quantiles=quantiles)] * steps, last_value=1.5
    )


@given(st.integers(1, 20), st.integers(0, 300), st.integers(0, 20))
def test_forecasts_are_as_large_as_estimated(count: int, horizon: int, levels: int) -> None:
    task: Any = SimpleNamespace(limits=NOTHING, horizon=30, num_quantiles=3, select=lambda *_: None)
    steps = horizon or 30
    answer = forecasting.ForecastResponse(
        forecasts=[forecast_of(steps, levels or 3)] * count, version=MAX_COUNT
    )
    found = estimate(lambda: check_forecasts(count, horizon, [0.5] * levels, task))
    assert_close(found, answer.ByteSize(), count * (steps + 1))


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 100_000), st.text(max_size=50))
def test_forecast_of_a_stream_is_as_large_as_estimated(
    steps: int, levels: int, state_bytes: int, name: str
) -> None:
    answer = forecasting.ForecastStreamResponse(
        forecast=forecast_of(steps, levels), id=name, state=b"s" * state_bytes, version=MAX_COUNT
    )
    found = estimate(lambda: check_forecast(steps, levels, name, state_bytes, NOTHING))
    assert_close(found, answer.ByteSize(), steps)


# Every rpc whose answer grows with its request.


def score(running: Running, many: bool) -> Any:
    texts = ["abc"] * (200 if many else 1)
    return TextGenerationStub(running.channel).Score(generation.ScoreRequest(model="letters", texts=texts))


def classify_request(many: bool) -> classification.ClassifyRequest:
    return classification.ClassifyRequest(model="moods", texts=["good film"] * (200 if many else 1))


def classify(running: Running, many: bool) -> Any:
    return TextClassificationStub(running.channel).Classify(classify_request(many))


def classify_stream(running: Running, many: bool) -> Any:
    return TextClassificationStub(running.channel).ClassifyStream(iter([classify_request(many)]))


def forecast(running: Running, many: bool) -> Any:
    series = [forecasting.Series(observations=DAYS)] * (200 if many else 1)
    request = forecasting.ForecastRequest(model="prices", series=series)
    return ForecastingStub(running.channel).Forecast(request)


def forecast_stream(running: Running, many: bool) -> Any:
    request = forecasting.ForecastStreamRequest(
        model="prices", observations=DAYS, horizon=0 if many else 1, quantiles=[] if many else [0.5]
    )
    return ForecastingStub(running.channel).ForecastStream(iter([request]))


def state(running: Running, many: bool) -> Any:
    request = generation.GenerateRequest(
        model="letters", prompt="abc", max_tokens=2, return_state=many, logprobs=True
    )
    return TextGenerationStub(running.channel).Generate(request)


def series_state(running: Running, many: bool) -> Any:
    request = forecasting.ForecastStreamRequest(
        model="prices", observations=DAYS, horizon=1, quantiles=[0.5], return_state=many
    )
    return ForecastingStub(running.channel).ForecastStream(iter([request]))


def sequences(running: Running, many: bool) -> Any:
    one = pb.SequenceInput(text="good film " * 10)
    request = pb.InferRequest(model="moods", inputs=[one] * (200 if many else 1))
    return SequencesStub(running.channel).Infer(request)


def sequence_stream(running: Running, many: bool) -> Any:
    steps = pb.OUTPUT_STEPS_EVERY if many else pb.OUTPUT_STEPS_LAST
    one = pb.SequenceInput(text="good film " * 19)
    request = pb.InferStreamRequest(model="moods", input=one, output_steps=steps)
    return SequencesStub(running.channel).InferStream(iter([request]))


def sequence_state(running: Running, many: bool) -> Any:
    request = pb.InferStreamRequest(model="moods", input=pb.SequenceInput(text="good"), return_state=many)
    return SequencesStub(running.channel).InferStream(iter([request]))


def tensors(running: Running, many: bool) -> Any:
    rows = 200 if many else 1
    texts = infer_request("moods", {"text": [b"good film"] * rows})
    return GRPCInferenceServiceStub(running.channel).ModelInfer(texts)


def series_tensors(running: Running, many: bool) -> Any:
    values = np.array([one.values for one in DAYS], np.float32)
    request = infer_request("prices", {"input": np.stack([values] * (200 if many else 1))})
    if not many:
        request.parameters["horizon"].int64_param = 1
    return GRPCInferenceServiceStub(running.channel).ModelInfer(request)


def text_tensor(running: Running, many: bool) -> Any:
    request = infer_request("letters", {"prompt": [b"abc"]})
    request.parameters["max_tokens"].int64_param = 2000 if many else 1
    return GRPCInferenceServiceStub(running.channel).ModelInfer(request)


class NoEngine:
    """Fails the test when a request reaches it."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError("the answer was computed")


LARGE: Final = [
    (score, "letters", "text-generation", "texts", 4000),
    (classify, "moods", "text-classification", "texts", 4000),
    (classify_stream, "moods", "text-classification", "texts", 4000),
    (forecast, "prices", "forecasting", "series", 4000),
    (forecast_stream, "prices", "forecasting", "horizon", 300),
    (state, "letters", "text-generation", "return_state", 500),
    (series_state, "prices", "forecasting", "return_state", 200),
    (sequences, "moods", "text-classification", "inputs", 4000),
    (sequence_stream, "moods", "text-classification", "input", 400),
    (sequence_state, "moods", "text-classification", "return_state", 220),
    (tensors, "moods", "text-classification", "inputs", 6000),
    (series_tensors, "prices", "forecasting", "inputs", 6000),
    (text_tensor, "letters", "text-generation", "max_tokens", 6000),
]


async def status_of(call: Any) -> Any:
    """Return the status of a call that fails, or of the one message of a stream that has an error."""
    if not hasattr(call, "__aiter__"):
        return await refused_with(call)
    try:
        answers = await finish(call)
    except Exception as error:
        failure: Any = error
        return status_in(failure)
    return answers[-1].error


@pytest.mark.parametrize(
    ("ask", "model", "task", "field", "limit"), LARGE, ids=[one[0].__name__ for one in LARGE]
)
async def test_large_answer_is_refused_before_it_is_computed(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Running, bool], Any],
    model: str,
    task: Task,
    field: str,
    limit: int,
) -> None:
    served = running.repository.table.find(model, 0, task)
    tasks: list[Any] = [one for one in (served.task, served.sequences) if one is not None]
    for one in tasks:
        monkeypatch.setattr(one, "limits", replace(one.limits, answer_bytes=limit))
    answers = await finish(ask(running, False))
    for answer in answers if isinstance(answers, list) else [answers]:
        assert answer.ByteSize() <= limit
    for one in tasks:
        monkeypatch.setattr(one, "_engine", NoEngine())
    details = unpack(await status_of(ask(running, True)))
    [violation] = details["BadRequest"].field_violations
    assert (details["ErrorInfo"].reason, violation.field) == ("ANSWER_TOO_LARGE", field)
    assert violation.description.startswith(
        f"expected a request whose answer has at most {limit} bytes (SEQSERVE_MAX_ANSWER_BYTES), found one of"
    )
    assert "; ask for " in violation.description
    assert details["ErrorInfo"].metadata["max_answer_bytes"] == str(limit)


async def test_only_the_outputs_that_are_asked_for_count(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Any = running.repository.table.find("moods", 0, "text-classification").task
    monkeypatch.setattr(task, "limits", replace(task.limits, answer_bytes=7500))
    request = infer_request("moods", {"text": [b"good film"] * 200})
    stub = GRPCInferenceServiceStub(running.channel)
    assert (await refused_with(stub.ModelInfer(request))).message.startswith("inputs: ")
    request.outputs.append(inference.ModelInferRequest.InferRequestedOutputTensor(name="probabilities"))
    assert len((await stub.ModelInfer(request)).raw_output_contents[0]) == 1600


# What no estimate has foreseen.


@pytest.mark.parametrize("kind", [*sorted({*KINDS} - {"StreamUnary"}), "WritesByItself"])
async def test_no_larger_message_is_sent(kind: str) -> None:
    async with bench_of(limits=CallLimits(answer_bytes=40_000)) as bench:
        assert (await bench.call(kind, b"x" * 40_000))[-1] == b"x" * 40_000
        error = await bench.error_of(kind, b"x" * 40_001)
    details = unpack(status_in(error))
    assert details["ErrorInfo"].reason == "ANSWER_TOO_LARGE"
    assert details["ErrorInfo"].metadata["answer_bytes"] == "40001"


# Pieces of generated text.


@given(st.text(min_size=1, max_size=50), st.integers(1, 10), st.booleans())
def test_cut_piece_is_the_same_text(text: str, count: int, has_logprobs: bool) -> None:
    logprobs = [float(index) for index in range(len(text))] if has_logprobs else []
    rest = TextPiece(text, range(1, len(text) + 1), logprobs, 7, prompt_tokens=3, generated_tokens=9)
    parts = []
    while len(rest.text) > count:
        part, rest = rest.cut(count)
        parts.append(part)
    assert "".join(part.text for part in [*parts, rest]) == text
    assert [one for part in [*parts, rest] for one in part.logprobs] == logprobs
    assert {(part.seed, part.finish, part.generated_tokens) for part in parts} <= {(7, None, 0)}
    assert (rest.prompt_tokens, rest.generated_tokens) == (3, 9)
