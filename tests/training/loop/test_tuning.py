"""The options that tune a run are checked where they are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.conftest import problem_of
from training.errors import TrainingError
from training.loop.tuning import Tuning, seconds_of


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": 0.0}, "--learning-rate: expected a number above 0 and at most 1, found 0.0"),
        ({"learning_rate": float("nan")}, "--learning-rate: expected .* found nan"),
        ({"batch": 0}, "--batch: expected 1 row a step or more, found 0"),
        ({"dropout": 1.0}, "--dropout: expected a number from 0 to below 1, found 1.0"),
        ({"dropout": float("nan")}, "--dropout: expected .* found nan"),
        ({"patience": -1}, "--patience: expected a number of epochs, or 0 for no end, found -1"),
        ({"time_limit_s": 0.0}, "--time-limit: expected more than 0 seconds, found 0.0"),
    ],
)
def test_value_out_of_range_is_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Tuning(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90.0), ("10m", 600.0), ("1h", 3600.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("", None)],
)
def test_duration_is_understood(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


@given(st.text(alphabet="0123456789.hms- ", min_size=1))
def test_other_durations_are_refused_or_positive(text: str) -> None:
    problem = problem_of(lambda: seconds_of(text))
    if problem is None:
        assert (seconds_of(text) or 0) > 0
    else:
        assert problem.startswith("--time-limit: expected a duration such as 90s, 10m or 1h30m, found ")


@pytest.mark.parametrize("text", ["10", "0s", "m", "5m1h", "1d", "-5m", "ten", "\u0661m"])
def test_text_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(TrainingError, match="expected a duration"):
        seconds_of(text)


def test_dropout_takes_the_place_of_the_recipes_where_it_has_one() -> None:
    assert [Tuning(dropout=0.0).dropout_or(0.5), Tuning(dropout=0.3).dropout_or(0.0)] == [0.0, 0.0]
    assert [Tuning(dropout=0.3).dropout_or(0.5), Tuning().dropout_or(0.5)] == [0.3, 0.5]


def test_batch_larger_than_the_data_is_refused() -> None:
    assert [Tuning().batch_or(64, 10), Tuning(batch=10).batch_or(64, 10)] == [64, 10]
    with pytest.raises(TrainingError, match=r"--batch: expected at most 10, .* found 11"):
        Tuning(batch=11).batch_or(64, 10)
