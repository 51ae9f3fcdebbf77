"""The fan of quantiles: pairs, bands that stack to the quantiles, and the table of the same numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.playground.fan import EARLIER, MAX_HISTORY, Target, fan_of, fan_records, fan_series
from seqserve.results import Forecast, ForecastStep, Quantile
from tests.playground.infos import model_info

COLORS = ("#000", "#111", "#222")
LEVELS = st.lists(st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 0.95]), unique=True, min_size=1)


def forecast(levels: list[float], steps: int = 3, last: float = 10.0) -> Forecast:
    return Forecast(
        tuple(
            ForecastStep(
                last + ahead, tuple(Quantile(level, last + ahead * (level - 0.5)) for level in levels)
            )
            for ahead in range(1, steps + 1)
        ),
        last,
    )


def test_quantiles_are_paired_from_the_outside_in() -> None:
    fan = fan_of([9.0, 10.0], forecast([0.1, 0.25, 0.5, 0.75, 0.9]))
    assert [(band.low_level, band.high_level) for band in fan.bands] == [(0.1, 0.9), (0.25, 0.75)]
    assert [band.title for band in fan.bands] == ["80 % interval", "50 % interval"]
    assert fan.lines == ()


@given(LEVELS)
def test_every_quantile_but_the_median_is_drawn_and_in_the_table_once(levels: list[float]) -> None:
    fan = fan_of([10.0], forecast(levels))
    titles = {f"quantile {level:.6g}" for level in levels if level != 0.5}
    drawn = [series["name"] for series in fan_series(fan, COLORS) if series["name"].startswith("quantile")]
    assert sorted(drawn) == sorted(titles)
    assert [title for title in fan_records(fan)[0] if title.startswith("quantile")] == [
        f"quantile {level:.6g}" for level in sorted(levels) if level != 0.5
    ]


def test_a_band_stacks_to_its_upper_quantile_and_begins_at_the_last_observation() -> None:
    fan = fan_of([8.0, 9.0, 10.0], forecast([0.1, 0.5, 0.9], last=10.0))
    series = {each["name"]: each["data"] for each in fan_series(fan, COLORS)}
    low, width, high = series["band 0 from"], series["80 % interval"], series["quantile 0.9"]
    assert low[:2] == width[:2] == high[:2] == [None, None]
    assert (low[2], width[2]) == (10.0, 0.0)
    assert all(
        math.isclose(below + more, above)
        for below, more, above in zip(low[2:], width[2:], high[2:], strict=True)
    )
    assert fan.places == [-2, -1, 0, 1, 2, 3]
    assert {len(data) for name, data in series.items() if name != "observed"} == {len(fan.places)}


@pytest.mark.parametrize("history", [[8.0, 9.0, 10.0], [9.0, 10.0], [10.0]])
def test_the_median_of_one_row_earlier_begins_one_step_earlier(history: list[float]) -> None:
    earlier = fan_of(history[:-1] or history, forecast([0.5], last=9.0))
    fan = fan_of(history, forecast([0.5], last=10.0))
    [drawn] = [each["data"] for each in fan_series(fan, COLORS, earlier) if each["name"] == EARLIER]
    by_place = dict(zip(fan.places, drawn, strict=True))
    assert [by_place.get(place, 9.0) for place in range(-1, 4)] == [9.0, 10.0, 11.0, 12.0, None]


def test_only_the_end_of_a_long_history_is_drawn() -> None:
    fan = fan_of([float(value) for value in range(1000)], forecast([0.5], last=999.0))
    assert fan.history == tuple(float(value) for value in range(1000 - MAX_HISTORY, 1000))
    assert fan.naive == (999.0,) * 4


def test_a_model_without_a_forecasting_section_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="made: expected a section `forecasting`"):
        Target.of(model_info(spec={}))


def test_the_target_has_its_unit_and_its_place_among_the_columns() -> None:
    columns = [{"name": "open", "unit": "USD"}, {"name": "close", "unit": "USD"}]
    section = {"columns": columns, "target": "close", "least_observations": 7}
    target = Target.of(model_info("forecasting", spec={"forecasting": section}))
    assert (target.title, target.least, target.columns) == ("close (USD)", 7, ("open", "close"))
    assert target.history([[1.0, 2.0], [3.0, 4.0]]) == [2.0, 4.0]
