"""What a wrong request gets: the code, the field, what was expected and what came; the server goes on."""

from typing import Any

import grpc
import pytest

from seqserve.v1 import text_generation_pb2 as generation
from tests.integration.calls import Calls, refusal
from tests.integration.test_tasks import prices

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NAN, INFINITY = float("nan"), float("inf")


async def test_unknown_model_is_not_found_and_names_what_there_is(tiny: Calls) -> None:
    for call in (
        tiny.generate("nobody", prompt="a"),
        tiny.score(["ab"], "nobody"),
        tiny.classify(["a"], "nobody"),
        tiny.forecast([], "nobody"),
    ):
        found = await refusal(call)
        assert found.code == grpc.StatusCode.NOT_FOUND
        assert all(name in found.text for name in ("nobody", "letters", "moods", "prices"))
        assert found.reason == "MODEL_NOT_FOUND"
    assert (await refusal(tiny.get_model("nobody"))).code == grpc.StatusCode.NOT_FOUND


async def test_unknown_version_is_not_found_and_names_those_that_serve(tiny: Calls) -> None:
    found = await refusal(tiny.classify(["a"], version=7))
    assert found.code == grpc.StatusCode.NOT_FOUND
    assert found.text == "model 'moods': expected one of the versions that serve (1), found 7"


@pytest.mark.parametrize("name", ["x" * 100_000, "\U0001f600" * 25_000], ids=["ascii", "emoji"])
async def test_very_long_name_is_not_found_in_a_short_text(tiny: Calls, name: str) -> None:
    found = await refusal(tiny.classify(["good"], name))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert len(found.text) < 1100


async def test_missing_model_name_is_invalid(tiny: Calls) -> None:
    assert (await refusal(tiny.classify(["a"], ""))).violations == {
        "model": "expected the name of a model (moods), found none"
    }


async def test_model_of_another_task_is_invalid_and_names_the_right_ones(tiny: Calls) -> None:
    found = await refusal(tiny.generate("moods", prompt="a"))
    assert found.code == INVALID
    assert "letters" in found.violations["model"]
    assert "text-classification" in found.violations["model"]


async def test_character_outside_the_vocabulary_is_named_with_its_position(tiny: Calls) -> None:
    expected = "character 'ä' (U+00E4) at position 2 is not among the 10 of model letters"
    assert (await refusal(tiny.generate(prompt="abäc"))).violations == {"prompt": expected}
    assert (await refusal(tiny.score(["ab", "abäc"]))).violations == {"texts[1]": expected}


@pytest.mark.parametrize(
    ("fields", "field", "description"),
    [
        ({"temperature": -0.5}, "temperature", "expected a finite number >= 0, found -0.5"),
        ({"temperature": NAN}, "temperature", "expected a finite number >= 0, found nan"),
        ({"temperature": INFINITY}, "temperature", "expected a finite number >= 0, found inf"),
        ({"top_p": 0.0}, "top_p", "expected a number in (0, 1], found 0.0"),
        ({"top_p": 1.5}, "top_p", "expected a number in (0, 1], found 1.5"),
        ({"top_p": NAN}, "top_p", "expected a number in (0, 1], found nan"),
        ({"max_tokens": 100_001}, "max_tokens", "expected at most 100000 tokens, found 100001"),
        ({"stop": [""]}, "stop[0]", "expected at least 1 characters, found 0"),
        ({"stop": ["a", "b" * 201]}, "stop[1]", "expected at most 200 characters, found 201"),
        ({"stop": ["a"] * 17}, "stop", "expected at most 16 stop strings, found 17"),
        ({"prompt": "a" * 100_001}, "prompt", "expected at most 100000 characters, found 100001"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_generate_refuses_what_is_out_of_range(
    tiny: Calls, fields: dict[str, Any], field: str, description: str
) -> None:
    found = await refusal(tiny.generate(**{"prompt": "a", **fields}))
    assert found.code == INVALID
    assert found.violations == {field: description}


@pytest.mark.parametrize(
    ("texts", "field", "description"),
    [
        ([], "texts", "expected at least 1 texts, found 0"),
        (["a"], "texts[0]", "expected at least 2 tokens, found 1"),
        (["ab", ""], "texts[1]", "expected at least 2 tokens, found 0"),
        (["ab"] * 257, "texts", "expected at most 256 texts, found 257"),
        (["ab", "a" * 100_001], "texts[1]", "expected at most 100000 characters, found 100001"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_score_refuses_what_it_cannot_score(
    tiny: Calls, texts: list[str], field: str, description: str
) -> None:
    assert (await refusal(tiny.score(texts))).violations == {field: description}


@pytest.mark.parametrize(
    ("texts", "field", "description"),
    [
        ([], "texts", "expected at least 1 texts, found 0"),
        (["good", " \n"], "texts[1]", "expected at least one token, found none"),
        (["good"] * 257, "texts", "expected at most 256 texts, found 257"),
        (["a" * 100_001], "texts[0]", "expected at most 100000 characters, found 100001"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_classify_refuses_what_it_cannot_classify(
    tiny: Calls, texts: list[str], field: str, description: str
) -> None:
    assert (await refusal(tiny.classify(texts))).violations == {field: description}


def with_value(value: float, row: int = 3, column: int = 4) -> list[list[float]]:
    rows = prices(8)
    rows[row][column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "field", "description"),
    [
        (
            with_value(NAN),
            "series[0].observations[3].values[4]",
            "expected a finite number above 0 for volume, found nan",
        ),
        (
            with_value(INFINITY, 0, 0),
            "series[0].observations[0].values[0]",
            "expected a finite number above 0 for open, found inf",
        ),
        (
            with_value(-1.0, 7, 3),
            "series[0].observations[7].values[3]",
            "expected a finite number above 0 for close, found -1.0",
        ),
        (
            with_value(0.0, 7, 3),
            "series[0].observations[7].values[3]",
            "expected a finite number above 0 for close, found 0.0",
        ),
        (prices(6), "series[0].observations", "expected at least 7 observations, found 6"),
        ([], "series[0].observations", "expected at least 7 observations, found 0"),
        (
            [*prices(8)[:7], [1.0, 2.0]],
            "series[0].observations[7].values",
            "expected 5 values (open, high, low, close, volume), found 2",
        ),
        (prices(1) * 10_001, "series[0].observations", "expected at most 10000 observations, found 10001"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_forecast_refuses_wrong_observations(
    tiny: Calls, rows: list[list[float]], field: str, description: str
) -> None:
    found = await refusal(tiny.forecast([rows]))
    assert found.code == INVALID
    assert found.violations == {field: description}


@pytest.mark.parametrize(
    ("fields", "field", "description"),
    [
        ({"horizon": 6}, "horizon", "expected 1..5 steps, or 0 for all, found 6"),
        ({"quantiles": [0.5, 0.25]}, "quantiles", "expected levels among [0.1, 0.5, 0.9], found [0.25]"),
        ({"quantiles": [NAN]}, "quantiles", "expected levels among [0.1, 0.5, 0.9], found [nan]"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_forecast_refuses_what_the_model_was_not_trained_for(
    tiny: Calls, fields: dict[str, Any], field: str, description: str
) -> None:
    assert (await refusal(tiny.forecast([prices(8)], **fields))).violations == {field: description}


async def test_forecast_without_series_is_invalid(tiny: Calls) -> None:
    assert (await refusal(tiny.forecast([]))).violations == {"series": "expected at least 1 series, found 0"}


async def test_message_over_the_size_limit_is_refused(tiny: Calls) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tiny.score(["a" * (5 << 20)])
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_bytes_that_are_no_message_are_the_callers_error_and_the_server_goes_on(tiny: Calls) -> None:
    raw: Any = tiny.channel.unary_unary("/seqserve.v1.TextGeneration/Score")
    with pytest.raises(grpc.aio.AioRpcError):
        await raw(b"\xff\xff\xff")
    stream: Any = tiny.channel.stream_stream("/seqserve.v1.TextClassification/ClassifyStream")
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in stream(iter([b"\xff\xff\xff"])):
            pass
    assert isinstance((await tiny.score(["ab"]))[0], generation.TextScore)
