"""What is sent: the same from the same seed, readable by the model, as long as asked for."""

from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.bench.distribution import parse_distribution
from seqserve.bench.workload import (
    Rpc,
    WholeTexts,
    WorkloadError,
    random_walk,
    requests,
    series_source,
    text_source,
)
from seqserve.v1.forecasting_pb2 import ForecastRequest
from seqserve.v1.text_classification_pb2 import ClassifyRequest
from seqserve.v1.text_generation_pb2 import GenerateRequest, ScoreRequest

LETTERS = {"generation": {"text": {"kind": "characters", "vocabulary": "\n abcdefgh"}}}
WORDS = {"classification": {"text": {"kind": "tokenizer"}}}
PRICES = {"forecasting": {"columns": [{"name": "open"}, {"name": "close"}], "least_observations": 7}}


@given(length=st.integers(1, 3000), seed=st.integers())
def test_the_passage_holds_nothing_that_a_model_of_characters_cannot_read(length: int, seed: int) -> None:
    drawn = text_source(Rpc.GENERATE, LETTERS, (), parse_distribution(str(length))).draw(Random(seed))
    assert len(drawn) == length
    assert set(drawn) <= set("\n abcdefgh")


@given(length=st.integers(1, 3000), seed=st.integers())
def test_lengths_are_words_where_the_model_reads_words(length: int, seed: int) -> None:
    assert (
        len(text_source(Rpc.CLASSIFY, WORDS, (), parse_distribution(str(length))).draw(Random(seed)).split())
        == length
    )


def test_a_text_to_score_has_two_tokens() -> None:
    assert len(text_source(Rpc.SCORE, LETTERS, (), parse_distribution("1")).draw(Random(0))) == 2


def test_texts_given_are_sent_whole_unless_lengths_are_given() -> None:
    texts = ["a good film", "bad"]
    whole = text_source(Rpc.CLASSIFY, WORDS, texts)
    assert {whole.draw(Random(seed)) for seed in range(20)} == set(texts)
    pieces = text_source(Rpc.CLASSIFY, WORDS, texts, parse_distribution("2"))
    assert {pieces.draw(Random(seed)) for seed in range(50)} == {"a good", "good film", "film bad", "bad a"}


def test_a_model_whose_vocabulary_the_passage_lacks_gets_its_own_characters() -> None:
    spec = {"generation": {"text": {"kind": "characters", "vocabulary": "日本"}}}
    assert set(text_source(Rpc.GENERATE, spec, (), parse_distribution("10")).draw(Random(0))) == {"日", "本"}


def test_texts_without_words_are_refused() -> None:
    with pytest.raises(WorkloadError, match="no words"):
        text_source(Rpc.CLASSIFY, WORDS, [" "], parse_distribution("2"))


def test_a_series_has_the_models_columns_and_its_least_length() -> None:
    for lengths, expected in (("3", 7), ("20", 20)):
        drawn = series_source(PRICES, (), parse_distribution(lengths), 0).draw(Random(0))
        assert [len(drawn), len(drawn[0])] == [expected, 2]


def test_a_series_given_must_be_long_enough() -> None:
    with pytest.raises(WorkloadError, match="up to 20 observations, and the series has 10"):
        series_source(PRICES, random_walk(2, 10, 0), parse_distribution("20"), 0)
    with pytest.raises(WorkloadError, match="--file"):
        series_source({}, (), parse_distribution("20"), 0)


@given(seed=st.integers(0, 2**32))
def test_a_walk_stays_positive_and_near_its_start(seed: int) -> None:
    assert all(30 < value < 300 for row in random_walk(2, 300, seed) for value in row)


@pytest.mark.parametrize("rpc", list(Rpc))
def test_requests_follow_from_the_seed(rpc: Rpc) -> None:
    source = (
        series_source(PRICES, (), parse_distribution("9"), 0)
        if rpc is Rpc.FORECAST
        else WholeTexts(["good", "bad"])
    )
    first, again, other = ([*islice(requests(rpc, source, seed, model="m"), 20)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_requests_are_those_of_the_rpc() -> None:
    source = WholeTexts(["good"])
    generate = GenerateRequest.FromString(
        next(requests(Rpc.GENERATE, source, 0, model="m", version=2, max_tokens=parse_distribution("9")))
    )
    assert (generate.prompt, generate.model, generate.version, generate.max_tokens) == ("good", "m", 2, 9)
    score = ScoreRequest.FromString(next(requests(Rpc.SCORE, source, 0, model="m", version=2, per_request=3)))
    assert score == ScoreRequest(model="m", version=2, texts=["good"] * 3)
    classify = ClassifyRequest.FromString(next(requests(Rpc.CLASSIFY, source, 0, model="m")))
    assert classify == ClassifyRequest(model="m", texts=["good"])
    series = series_source(PRICES, (), parse_distribution("9"), 0)
    forecast = ForecastRequest.FromString(next(requests(Rpc.FORECAST, series, 0, model="m", per_request=2)))
    assert [len(each.observations) for each in forecast.series] == [9, 9]
