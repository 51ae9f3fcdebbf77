"""Classify, ClassifyStream, Forecast and ForecastStream over the wire, against PyTorch and each other."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import text_classification_pb2 as pb
from tests.integration.calls import Calls, unpacked
from tests.tiny import COLUMNS, WORDS, network
from training.networks.network import NetworkConfig

FILM = "the film a good not bad film"


def prices(days: int, seed: int = 0) -> list[list[float]]:
    """A random walk of open, high, low, close, volume."""
    generator = np.random.default_rng(seed)
    closes = 100 * np.exp(np.cumsum(generator.normal(0, 0.02, days)))
    return [
        [close * 0.99, close * 1.02, close * 0.97, close, float(generator.integers(1_000, 9_000))]
        for close in closes
    ]


async def test_classification_equals_pytorchs(tiny: Calls) -> None:
    classifier = network(NetworkConfig("lstm", 1, 16, 2, vocabulary=len(WORDS), embedding=8))
    texts = ["good", FILM, "very " * 100 + "bad"]
    for text, found in zip(texts, await tiny.classify(texts), strict=True):
        ids = torch.tensor([[WORDS.index(word) for word in text.split()]])
        with torch.no_grad():
            hidden, _ = classifier(ids)
            expected = torch.softmax(classifier.outputs_of(hidden[0, -1]), dim=0).tolist()
        assert found.token_count == ids.shape[1]
        assert {one.label: one.probability for one in found.probabilities} == pytest.approx(
            {"negative": expected[0], "positive": expected[1]}, abs=1e-5
        )


async def test_label_is_the_most_probable_one_and_comes_first(tiny: Calls) -> None:
    (found,) = await tiny.classify([FILM])
    ranked = [one.probability for one in found.probabilities]
    assert ranked == sorted(ranked, reverse=True)
    assert (found.label, found.probability) == (
        found.probabilities[0].label,
        found.probabilities[0].probability,
    )
    assert math.isclose(sum(ranked), 1.0, abs_tol=1e-6)


async def test_unknown_word_becomes_the_unknown_token(tiny: Calls) -> None:
    first, second = await tiny.classify(["a gewgaw film", "a trinket film"])
    assert first == second


async def test_classify_returns_the_id(tiny: Calls) -> None:
    response = await tiny.classification.Classify(
        pb.ClassifyRequest(model="moods", texts=["good"], id="seven")
    )
    assert response.id == "seven"


async def test_classify_stream_answers_every_request_once_and_as_classify_does(tiny: Calls) -> None:
    texts = {
        str(number): " ".join(WORDS[1 + (number + step) % 7] for step in range(1 + number % 50))
        for number in range(300)
    }
    requests = [pb.ClassifyRequest(model="moods", texts=[text], id=name) for name, text in texts.items()]
    answers = {one.id: one async for one in tiny.classification.ClassifyStream(iter(requests))}
    alone = await tiny.classify(list(texts.values())[:200])
    assert set(answers) == set(texts)
    assert [answers[str(number)].results[0] for number in range(200)] == alone


async def test_wrong_request_in_a_stream_gets_its_own_error_and_the_stream_goes_on(tiny: Calls) -> None:
    requests = [
        pb.ClassifyRequest(model="moods", texts=["good"], id="right"),
        pb.ClassifyRequest(model="moods", texts=["good", ""], id="empty text"),
        pb.ClassifyRequest(model="nobody", texts=["good"], id="no model"),
        pb.ClassifyRequest(model="moods", texts=["bad"], id="right again"),
    ]
    answers = {one.id: one async for one in tiny.classification.ClassifyStream(iter(requests))}
    assert {name: answer.error.code for name, answer in answers.items()} == {
        "right": 0,
        "empty text": 3,
        "no model": 5,
        "right again": 0,
    }
    assert unpacked(answers["empty text"].error)[1] == {"texts[1]": "expected at least one token, found none"}
    assert len(answers["right again"].results) == 1


async def test_empty_classify_stream_ends_at_once(tiny: Calls) -> None:
    assert [one async for one in tiny.classification.ClassifyStream(iter([]))] == []


async def test_forecast_equals_the_networks_quantiles_in_the_targets_unit(tiny: Calls) -> None:
    forecaster = network(NetworkConfig("gru", 1, 16, 15, features=len(COLUMNS)))
    scales = [0.01, 0.02, 0.03, 0.04, 0.05]
    series = [prices(days, seed=days) for days in (7, 8, 60)]
    for rows, found in zip(series, await tiny.forecast(series), strict=True):
        logs = np.log(np.array(rows))
        before = np.concatenate([logs[:1], logs[:-1]])[:, [3, 3, 3, 3, 4]]
        features = torch.tensor(((logs - before) / 0.02).astype(np.float32))
        with torch.no_grad():
            hidden, _ = forecaster(features[None])
            outputs = forecaster.outputs_of(hidden[0, -1]).numpy().reshape(5, 3)
        expected = np.sort(rows[-1][3] * np.exp(outputs * np.array(scales)[:, None]), axis=1)
        quantiles = [[one.value for one in step.quantiles] for step in found.steps]
        assert np.allclose(quantiles, expected, rtol=1e-5)
        assert [step.value for step in found.steps] == [row[1] for row in quantiles]
        assert [[one.level for one in step.quantiles] for step in found.steps] == [[0.1, 0.5, 0.9]] * 5
        assert found.last_value == rows[-1][3]


async def test_horizon_and_quantiles_choose_from_the_whole_forecast(tiny: Calls) -> None:
    (whole,), (part,) = (
        await tiny.forecast([prices(9)]),
        await tiny.forecast([prices(9)], horizon=2, quantiles=[0.9, 0.1]),
    )
    assert len(part.steps) == 2
    for chosen, full in zip(part.steps, whole.steps[:2], strict=True):
        assert list(chosen.quantiles) == [full.quantiles[2], full.quantiles[0]]
        assert chosen.value == full.value


async def test_series_of_one_request_are_forecast_as_each_alone(tiny: Calls) -> None:
    series = [prices(7 + number, seed=number) for number in range(20)]
    assert await tiny.forecast(series) == [(await tiny.forecast([one]))[0] for one in series]


def pushed(rows: Sequence[Sequence[float]], **fields: Any) -> forecasting.ForecastStreamRequest:
    return forecasting.ForecastStreamRequest(
        observations=[forecasting.Observation(values=row) for row in rows], **fields
    )


async def test_forecast_stream_gives_after_each_day_what_forecast_gives_for_the_whole_series(
    tiny: Calls,
) -> None:
    series = {name: prices(40, seed=seed) for seed, name in enumerate(("", "other", "third"))}
    requests = [pushed(rows[:7], id=name, model="prices") for name, rows in series.items()]
    requests += [pushed(series[name][day : day + 1], id=name) for day in range(7, 40) for name in series]
    answers = [one async for one in tiny.forecasting.ForecastStream(iter(requests))]
    for name, rows in series.items():
        alone = [(await tiny.forecast([rows[:days]]))[0] for days in range(7, 41)]
        assert [one.forecast for one in answers if one.id == name] == alone


async def test_wrong_day_in_a_stream_gets_its_own_error_and_the_series_goes_on(tiny: Calls) -> None:
    rows = prices(9)
    requests = [
        pushed(rows[:7], model="prices"),
        pushed([[1.0, 2.0]]),
        pushed([[math.nan] * 5]),
        pushed(rows[7:8]),
        pushed(rows[8:]),
    ]
    answers = [one async for one in tiny.forecasting.ForecastStream(iter(requests))]
    assert [one.error.code for one in answers] == [0, 3, 3, 0, 0]
    assert unpacked(answers[1].error)[1] == {
        "observations[0].values": "expected 5 values (open, high, low, close, volume), found 2"
    }
    assert unpacked(answers[2].error)[1] == {
        "observations[0].values[0]": "expected a finite number above 0 for open, found nan"
    }
    assert answers[-1].forecast == (await tiny.forecast([rows]))[0]


async def test_forecast_stream_of_the_shipped_model_equals_forecast(shipped: Calls) -> None:
    rows = prices(30, seed=5)
    requests = [
        pushed(rows[:12], model="stock"),
        pushed(rows[12:13]),
        pushed(rows[13:20]),
        *(pushed([row]) for row in rows[20:]),
    ]
    answers = [one async for one in shipped.forecasting.ForecastStream(iter(requests))]
    ends = [12, 13, *range(20, 31)]
    assert [one.forecast for one in answers] == [
        (await shipped.forecast([rows[:end]], "stock"))[0] for end in ends
    ]
