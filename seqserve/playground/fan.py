"""Turns a history and a forecast into the lines and bands of a fan of quantiles, and into a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seqserve.results import Forecast, ModelInfo
from seqserve.tabular import Record

MAX_HISTORY = 60
EARLIER = "median one row earlier"
_MEDIAN = 0.5


@dataclass(frozen=True, slots=True)
class Target:
    """The columns of a forecasting model and its target, from its model.json.

    Attributes:
        columns: Names of an observation's values, in order.
        name: Name of the forecast column.
        unit: Unit of that column; "": none.
        least: Observations that a new series needs.
        calendar: Name of the column whose values are the seconds since 1970 of the dates; "": there is none.
    """

    columns: tuple[str, ...]
    name: str
    unit: str
    least: int
    calendar: str = ""

    @classmethod
    def of(cls, model: ModelInfo) -> "Target":
        """Read the section of a model's model.json.

        Raises:
            ValueError: The model has no such section; the text says what was expected and found.
        """
        section = model.spec.get("forecasting")
        if not section:
            raise ValueError(
                f"{model.name}: expected a section `forecasting` in model.json, found none; "
                "is it a forecasting model that serves?"
            )
        units = {column["name"]: column["unit"] for column in section["columns"]}
        name = section["target"]
        calendar = next((column["name"] for column in section["columns"] if column.get("calendar")), "")
        return cls(tuple(units), name, units[name], section["least_observations"], calendar)

    @property
    def title(self) -> str:
        """The name with the unit in brackets."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def history(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """Return the target's values of observations."""
        place = self.columns.index(self.name)
        return [row[place] for row in rows]


@dataclass(frozen=True, slots=True)
class Band:
    """The values between two quantiles, from the last observation on: one of each a step, S + 1.

    Attributes:
        low_level: Level of the lower quantile.
        high_level: Level of the upper one.
        low: Values of the lower quantile.
        high: Values of the upper one.
    """

    low_level: float
    high_level: float
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def title(self) -> str:
        """The share of outcomes that should lie in the band, in words."""
        return f"{100 * (self.high_level - self.low_level):.4g} % interval"


@dataclass(frozen=True, slots=True)
class Fan:
    """A history and the forecast after it.

    Attributes:
        history: The target's last observed values, at most MAX_HISTORY, oldest first.
        median: The last observed value, then the median of each step ahead, S + 1.
        naive: The last observed value, S + 1 times: the naive forecast.
        bands: Between pairs of quantiles, the widest first.
        lines: Quantiles without a partner, by level.
    """

    history: tuple[float, ...]
    median: tuple[float, ...]
    naive: tuple[float, ...]
    bands: tuple[Band, ...]
    lines: tuple[tuple[float, tuple[float, ...]], ...]

    @property
    def places(self) -> list[int]:
        """The steps from the first value of the history to the last forecast; 0 is the last observation."""
        return list(range(1 - len(self.history), len(self.median)))


def fan_of(history: Sequence[float], forecast: Forecast) -> Fan:
    """Pair the quantiles of a forecast: the lowest with the highest, and so on inwards.

    Args:
        history: The target's observed values, oldest first, one or more.
        forecast: The forecast after the last of them.
    """
    last, steps = forecast.last_value, forecast.steps
    values = {
        each.level: (last, *(step.quantiles[place].value for step in steps))
        for place, each in enumerate(steps[0].quantiles)
    }
    low = sorted(level for level in values if level < _MEDIAN)
    high = sorted((level for level in values if level > _MEDIAN), reverse=True)
    pairs = list(zip(low, high, strict=False))
    alone = [*low[len(pairs) :], *high[len(pairs) :]]
    return Fan(
        tuple(history[-MAX_HISTORY:]),
        (last, *(step.value for step in steps)),
        (last,) * (len(steps) + 1),
        tuple(Band(first, second, values[first], values[second]) for first, second in pairs),
        tuple((level, values[level]) for level in sorted(alone)),
    )


def fan_series(fan: Fan, colors: Sequence[str], before: Fan | None = None) -> list[dict[str, Any]]:
    """Return the fan as series of an ECharts chart over the categories `Fan.places`.

    A band is a transparent line with the difference to its upper quantile stacked on it.

    Args:
        fan: The fan.
        colors: Of the history, of the forecast with its bands, and of the naive forecast.
        before: The fan one observation earlier, whose median is drawn, too; None: there was none.
    """
    observed, forecast, naive = colors[:3]
    past = [None] * (len(fan.history) - 1)
    series: list[dict[str, Any]] = [
        _line("observed", list(fan.history), observed, {"width": 2}),
        _line("naive", [*past, *fan.naive], naive, {"type": "dashed", "width": 2}),
        _line(EARLIER, _earlier(fan, before), observed, {"type": "dotted", "width": 2}),
    ]
    for number, band in enumerate(fan.bands):
        series += _band(band, past, forecast, f"band {number}")
    series += [
        _line(f"quantile {level:.6g}", [*past, *values], forecast, {"type": "dotted", "width": 1})
        for level, values in fan.lines
    ]
    return [*series, _line("median", [*past, *fan.median], forecast, {"width": 3})]


def _earlier(fan: Fan, before: Fan | None) -> list[float | None]:
    """Return the median of one observation earlier over the same categories: it begins one step earlier."""
    if before is None:
        return [None] * len(fan.places)
    padded = [*[None] * (len(fan.history) - 2), *before.median, None]
    return padded[-len(fan.places) :]


def fan_records(fan: Fan) -> list[Record]:
    """Return the forecast as rows of a table: steps ahead, median, quantiles by level, and naive forecast."""
    quantiles: dict[float, tuple[float, ...]] = dict(fan.lines)
    for band in fan.bands:
        quantiles |= {band.low_level: band.low, band.high_level: band.high}
    records: list[Record] = []
    for ahead in range(1, len(fan.median)):
        record: Record = {"ahead": ahead, "median": fan.median[ahead]}
        record |= {f"quantile {level:.6g}": quantiles[level][ahead] for level in sorted(quantiles)}
        records.append(record | {"naive": fan.naive[ahead]})
    return records


def _band(band: Band, past: list[None], color: str, stack: str) -> list[dict[str, Any]]:
    thin = {"type": "dotted", "width": 1}
    widths = [high - low for low, high in zip(band.low, band.high, strict=True)]
    filled = {
        "stack": stack,
        "stackStrategy": "all",
        "lineStyle": {"opacity": 0},
        "tooltip": {"show": False},
        "silent": True,
    }
    return [
        _line(f"quantile {band.low_level:.6g}", [*past, *band.low], color, thin),
        _line(f"quantile {band.high_level:.6g}", [*past, *band.high], color, thin),
        _line(f"{stack} from", [*past, *band.low], color, {}) | filled,
        _line(band.title, [*past, *widths], color, {})
        | filled
        | {"areaStyle": {"color": color, "opacity": 0.25}},
    ]


def _line(name: str, values: Sequence[float | None], color: str, style: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "type": "line",
        "data": list(values),
        "symbol": "none",
        "color": color,
        "lineStyle": {"color": color, **style},
    }
