"""Requests go out as the contract has them, and answers come back as results; the same through both
clients.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seqserve import (
    AsyncClient,
    Classification,
    Client,
    FinishReason,
    Forecast,
    ForecastStep,
    Generation,
    LabelProbability,
    ModelCard,
    ModelStatus,
    Quantile,
    TextScore,
    TokenAlternative,
    Usage,
    WrongValue,
    messages,
)
from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import models_pb2 as models
from seqserve.v1 import sequences_pb2 as sequences
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, stock_forecast, text_pieces


@pytest.fixture(params=["sync", "aio"])
def ask(request: pytest.FixtureRequest, server: ScriptedServer) -> Callable[..., Any]:
    """Calls a method of the client under test, by name, and awaits what must be awaited."""

    async def sync(method: str, *args: Any, **options: Any) -> Any:
        with Client(server.address, timeout_s=WAIT_S) as client:
            answer = getattr(client, method)(*args, **options)
            return answer.read() if method == "generate" else answer

    async def aio(method: str, *args: Any, **options: Any) -> Any:
        async with AsyncClient(server.address, timeout_s=WAIT_S) as client:
            answer = getattr(client, method)(*args, **options)
            return await (answer.read() if method == "generate" else answer)

    return sync if request.param == "sync" else aio


async def test_generate_sends_every_option(server: ScriptedServer, ask: Callable[..., Any]) -> None:
    server.pieces = text_pieces()
    await ask(
        "generate",
        "Hi",
        model="other",
        version=3,
        max_tokens=9,
        temperature=0.5,
        top_k=4,
        top_p=0.25,
        seed=2**64 - 1,
        stop=["\n\n", "END"],
        logprobs=True,
        initial={"image": [0.5, 2]},
    )
    assert server.requests == [
        generation.GenerateRequest(
            model="other",
            version=3,
            prompt="Hi",
            max_tokens=9,
            temperature=0.5,
            top_k=4,
            top_p=0.25,
            seed=2**64 - 1,
            stop=["\n\n", "END"],
            logprobs=True,
            initial={"image": sequences.StepValues(features=2, values=[0.5, 2])},
        )
    ]


async def test_generate_leaves_unset_what_is_not_given(
    server: ScriptedServer, ask: Callable[..., Any]
) -> None:
    server.pieces = text_pieces()
    await ask("generate")
    assert server.requests == [generation.GenerateRequest(model="charlm")]


async def test_zero_temperature_and_seed_are_sent(server: ScriptedServer, ask: Callable[..., Any]) -> None:
    server.pieces = text_pieces()
    await ask("generate", temperature=0.0, seed=0)
    assert server.requests == [generation.GenerateRequest(model="charlm", temperature=0.0, seed=0)]


async def test_read_gives_the_whole_generation(server: ScriptedServer, ask: Callable[..., Any]) -> None:
    server.pieces = text_pieces()
    found = await ask("generate", "Hi", logprobs=True)
    assert found.version == 3
    assert found == Generation(
        text="To be or",
        logprobs=(-0.5,) * 5 + (-0.25,) * 3,
        seed=7,
        finish_reason=FinishReason.STOP,
        usage=Usage(2, 9),
    )


async def test_score_gives_one_score_a_text(server: ScriptedServer, ask: Callable[..., Any]) -> None:
    server.scores = generation.ScoreResponse(
        scores=[generation.TextScore(token_logprobs=[-1.0, -2.0], total_logprob=-3.0, perplexity=4.5)]
    )
    (score,) = await ask("score", ["abc"], version=2)
    assert server.requests == [generation.ScoreRequest(model="charlm", version=2, texts=["abc"])]
    assert score == TextScore((-1.0, -2.0), -3.0, 4.5)
    assert score.nats_per_token == 1.5


async def test_classify_gives_one_class_a_text(server: ScriptedServer, ask: Callable[..., Any]) -> None:
    probabilities = (LabelProbability("positive", 0.75), LabelProbability("negative", 0.25))
    assert await ask("classify", ["so good", "so so so"]) == [
        Classification("positive", 0.75, probabilities, 2),
        Classification("positive", 0.75, probabilities, 3),
    ]
    assert server.requests == [
        classification.ClassifyRequest(model="sentiment", texts=["so good", "so so so"])
    ]


@pytest.mark.parametrize("include_spec", [False, True])
async def test_list_asks_for_model_json_when_told(
    server: ScriptedServer, ask: Callable[..., Any], include_spec: bool
) -> None:
    server.models = models.ListModelsResponse(models=[models.Model(name="charlm", version=2)])
    for asked in ({"include_spec": include_spec}, {}):
        assert [model.name for model in await ask("models", **asked)] == ["charlm"]
    assert server.requests == [
        models.ListModelsRequest(include_spec=include_spec),
        models.ListModelsRequest(),
    ]


async def test_a_single_string_is_one_text(server: ScriptedServer, ask: Callable[..., Any]) -> None:
    assert len(await ask("classify", "so good")) == 1
    assert server.requests == [classification.ClassifyRequest(model="sentiment", texts=["so good"])]


@pytest.mark.parametrize(
    "series",
    [
        pytest.param([[[1, 2], [3, 4]], [[5, 6]]], id="lists of integers"),
        pytest.param(
            [np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5, 6]], dtype=np.float32)],
            id="numpy arrays of unequal length",
        ),
        pytest.param(iter([iter([(1, 2), (3, 4)]), iter([(5, 6)])]), id="iterators"),
    ],
)
def test_forecast_request_takes_whatever_nests(series: Any) -> None:
    request, _ = messages.forecast_request(series, model="stock", version=0, horizon=2, quantiles=[0.1])
    assert [[list(each.values) for each in one.observations] for one in request.series] == [
        [[1.0, 2.0], [3.0, 4.0]],
        [[5.0, 6.0]],
    ]


async def test_forecast_gives_one_forecast_a_series(server: ScriptedServer, ask: Callable[..., Any]) -> None:
    server.forecasts = stock_forecast()
    (forecast,) = await ask("forecast", [[[1.5]]], horizon=2, quantiles=[0.1, 0.5, 0.9])
    assert server.requests == [
        forecasting.ForecastRequest(
            model="stock",
            series=[forecasting.Series(observations=[forecasting.Observation(values=[1.5])])],
            horizon=2,
            quantiles=[0.1, 0.5, 0.9],
        )
    ]
    assert forecast == Forecast(
        (
            ForecastStep(101.0, (Quantile(0.1, 97.0), Quantile(0.5, 101.0), Quantile(0.9, 105.0))),
            ForecastStep(102.0, (Quantile(0.1, 98.0), Quantile(0.5, 102.0), Quantile(0.9, 106.0))),
        ),
        last_value=100.0,
    )


async def test_model_comes_with_its_parsed_spec(server: ScriptedServer, ask: Callable[..., Any]) -> None:
    server.models.models.add(
        name="stock",
        version=2,
        status=models.MODEL_STATUS_READY,
        layers=1,
        metrics={"mae": 0.5},
        spec_json='{"horizon": 5}',
    )
    model = await ask("model", "stock")
    assert server.requests == [models.GetModelRequest(model="stock")]
    assert (model.name, model.version, model.status, model.layers) == ("stock", 2, ModelStatus.READY, 1)
    assert (model.metrics, model.spec) == ({"mae": 0.5}, {"horizon": 5})


async def test_a_broken_spec_does_not_hide_why_the_model_failed(
    server: ScriptedServer, ask: Callable[..., Any]
) -> None:
    server.models.models.add(
        name="bad", status=models.MODEL_STATUS_FAILED, message="model.json: not JSON", spec_json="{"
    )
    (model,) = await ask("models")
    assert (model.status, model.message, model.spec) == (ModelStatus.FAILED, "model.json: not JSON", {})


def test_every_finish_reason_and_status_is_known() -> None:
    reasons = [
        messages.text_piece(generation.GenerateResponse(finish_reason=number)).finish_reason
        for number in generation.FinishReason.values()
    ]
    assert reasons == [None, FinishReason.LENGTH, FinishReason.STOP, FinishReason.END_TOKEN]
    statuses = [
        messages.model_info(models.Model(status=number)).status for number in models.ModelStatus.values()
    ]
    assert statuses == [
        ModelStatus.UNKNOWN,
        ModelStatus.LOADING,
        ModelStatus.READY,
        ModelStatus.DRAINING,
        ModelStatus.FAILED,
    ]


def test_values_that_no_field_holds_are_refused_at_once(client: Client, server: ScriptedServer) -> None:
    with pytest.raises(ValueError, match=r"^seed: expected a whole number from 0 to"):
        client.generate(seed=2**64)
    with pytest.raises(ValueError, match=r"^version: expected a whole number from 0 to"):
        client.score(["ab"], version=-1)
    assert server.requests == []


@pytest.mark.parametrize(
    "result",
    [
        messages.text_piece(generation.GenerateResponse(version=3)),
        *messages.text_scores(generation.ScoreResponse(scores=[generation.TextScore()], version=3)),
        *messages.classifications(
            classification.ClassifyResponse(results=[classification.Classification()], version=3)
        ),
        *messages.classify_answer(
            classification.ClassifyResponse(results=[classification.Classification()], version=3)
        ).results,
        *messages.forecasts(forecasting.ForecastResponse(forecasts=[forecasting.Forecast()], version=3)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_result_says_which_version_answered(result: Any) -> None:
    assert result.version == 3
    assert result == replace(result, version=4), "results are compared by what they say"


def test_card_has_its_pictures_by_name() -> None:
    pictures = [models.CardPicture(name="loss.png", png=b"png")]
    response = models.GetCardResponse(markdown="# m", pictures=pictures, version=3)
    assert messages.model_card(response) == ModelCard("# m", {"loss.png": b"png"}, 3)


def test_alternatives_are_read_in_order() -> None:
    tokens = [generation.TokenAlternative(text="a", logprob=-0.5), generation.TokenAlternative(logprob=-1)]
    one = generation.TextScore(
        token_logprobs=[-1.0], alternatives=[generation.TokenAlternatives(tokens=tokens)]
    )
    [score] = messages.text_scores(generation.ScoreResponse(scores=[one]))
    assert score.alternatives == ((TokenAlternative("a", -0.5), TokenAlternative("", -1.0)),)


def test_wrong_number_of_alternatives_is_refused() -> None:
    with pytest.raises(WrongValue, match="alternatives"):
        messages.score_request(["ab"], model="m", version=0, alternatives=-1)
