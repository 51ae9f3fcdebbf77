"""training.data.calendar: which cycles rows can show, and their sines and cosines."""

import numpy as np
import pytest

from training.data.calendar import chosen_cycles, cycle_features, seconds_of
from training.errors import TrainingError

HOUR_US = 3_600_000_000
DAY_S = 86_400
MONDAY_S = 4 * DAY_S  # 1970-01-05
NO_DATES = np.zeros(0, np.int64)


@pytest.mark.parametrize(
    ("hours_a_row", "rows", "expected"),
    [
        pytest.param(1, 24 * 14 + 1, ("hour", "weekday"), id="two weeks of hours"),
        pytest.param(1, 24 * 14, ("hour",), id="an hour less than two weeks"),
        pytest.param(1, 48, (), id="an hour less than two days"),
        pytest.param(6, 300, ("hour", "weekday"), id="four rows a day"),
        pytest.param(8, 300, ("weekday",), id="three rows a day"),
        pytest.param(24, 800, ("weekday", "month"), id="two years of days"),
        pytest.param(24, 700, ("weekday",), id="less than two years of days"),
        pytest.param(24 * 30, 60, ("month",), id="five years of months"),
        pytest.param(24 * 365, 60, (), id="years"),
    ],
)
def test_chosen_cycles_are_seen_twice_in_training_and_in_several_rows(
    hours_a_row: int, rows: int, expected: tuple[str, ...]
) -> None:
    moments = np.arange(2 * rows) * hours_a_row * HOUR_US
    assert chosen_cycles("auto", moments, rows) == expected


@pytest.mark.parametrize("option", ["auto", "none"])
def test_rows_without_dates_have_no_cycles(option: str) -> None:
    assert chosen_cycles(option, NO_DATES, 100) == ()


def test_named_cycles_come_in_one_order() -> None:
    moments = np.arange(200) * HOUR_US
    assert chosen_cycles("month, hour", moments, 100) == ("hour", "month")


@pytest.mark.parametrize("option", ["hours", "hour,hour", "", "hour,", "auto,hour"])
def test_unknown_or_repeated_cycles_are_refused(option: str) -> None:
    with pytest.raises(TrainingError, match=r"--calendar: expected auto, none, .* found"):
        chosen_cycles(option, np.arange(200) * HOUR_US, 100)


def test_cycles_of_rows_without_dates_are_refused() -> None:
    with pytest.raises(TrainingError, match="--calendar: expected with a --date-column alone"):
        chosen_cycles("hour", NO_DATES, 100)


def test_features_begin_at_midnight_on_monday_and_return_after_a_cycle() -> None:
    sine, cosine, weekly_sine, weekly_cosine = cycle_features(
        np.array([MONDAY_S, MONDAY_S + 6 * 3600, MONDAY_S + 7 * DAY_S], np.float64), ("hour", "weekday")
    )
    np.testing.assert_allclose(sine, [0, 1, 0], atol=1e-9)
    np.testing.assert_allclose(cosine, [1, 0, 1], atol=1e-9)
    np.testing.assert_allclose(weekly_sine, [0, np.sin(2 * np.pi / 28), 0], atol=1e-9)
    np.testing.assert_allclose(weekly_cosine, [1, np.cos(2 * np.pi / 28), 1], atol=1e-9)


def test_seconds_keep_fractions() -> None:
    assert seconds_of(np.array([1_500_000])).tolist() == [1.5]
