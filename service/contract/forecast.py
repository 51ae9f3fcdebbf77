"""The section of a forecasting model: its columns, the features made of them, and what its outputs mean."""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from service.contract.sections import Count, Level, SpecPart, Width

Cycle = Literal["hour", "weekday", "month"]
# Length of each cycle in seconds, and seconds from its start to 1970-01-01 00:00, a Thursday. The year of
# the months is the mean one of the Gregorian calendar, which begins within two days of 1 January.
CYCLES: dict[Cycle, tuple[int, int]] = {
    "hour": (86_400, 0),
    "weekday": (604_800, 3 * 86_400),
    "month": (31_556_952, 0),
}


class ColumnLevel(SpecPart):
    """A further feature of a column: (f(value) - mean) / scale.

    Attributes:
        mean: mean of f(value) over the training split.
        scale: its standard deviation there.
    """

    mean: FiniteFloat
    scale: Annotated[FiniteFloat, Field(gt=0)]


class Column(SpecPart):
    """Transform of one observed value into features, which follow those of the columns before it.

    The first feature is (f(value) - f(reference one step before)) / scale. The first observation serves as
    its own predecessor. A level adds a second one. A calendar column has two features for each of its
    cycles and no others: sine and cosine of 2 pi ((value + offset) mod length) / length (`CYCLES`), the value
    being seconds since 1970-01-01 00:00 UTC, or local time counted as if it were UTC, as in training.

    Attributes:
        name: name of the value in an observation.
        unit: unit of the value, shown to users.
        transform: f, either the natural logarithm (values must be positive) or the identity.
        reference: name of the column whose previous value is subtracted.
        scale: standard deviation over the training split; 1 of a calendar column.
        level: mean and scale of the feature of the level; None: there is none.
        calendar: cycles of a calendar column; None: it is none.
    """

    name: str
    unit: str
    transform: Literal["log", "none"]
    reference: str
    scale: Annotated[FiniteFloat, Field(gt=0)]
    level: ColumnLevel | None = None
    calendar: Annotated[list[Cycle], Field(min_length=1, max_length=len(CYCLES), fail_fast=True)] | None = (
        None
    )

    @property
    def num_features(self) -> int:
        """Number of features of the column."""
        if self.calendar is not None:
            return 2 * len(self.calendar)
        return 1 if self.level is None else 2

    @model_validator(mode="after")
    def _is_calendar_alone(self) -> Self:
        if self.calendar is None:
            return self
        if len(set(self.calendar)) != len(self.calendar):
            raise ValueError(f"cycles of {self.name} must differ, found {self.calendar}")
        if self.transform != "none" or self.reference != self.name or self.level is not None:
            raise ValueError(
                f"the calendar column {self.name} must have the transform none, itself as reference "
                "and no level"
            )
        return self


class Anomaly(SpecPart):
    """When a value counts as an anomaly.

    The score of a value is its distance from the median forecast for it one step before, divided by the
    distance of the outermost quantile on its side from that median.

    Attributes:
        threshold: scores above it are anomalies; measured on the development split.
        false_alarm_rate: share of the development split's values with such a score.
    """

    threshold: Annotated[FiniteFloat, Field(gt=0)]
    false_alarm_rate: Level


class ForecastSpec(SpecPart):
    """Section of a forecasting model; the outputs are horizon x quantiles changes, step by step.

    Output [s, q] is the change of the target from its last observed value to step s ahead:
    f(target at step s) = f(last) + output[s, q] * scales[s], where f is the target column's transform.

    Attributes:
        columns: values of an observation, in order.
        target: name of the column that is forecast.
        horizon: number of steps ahead.
        quantiles: levels in ascending order, including 0.5.
        scales: one scale for each step ahead, from the training split.
        least_observations: minimum series length that the model was trained on.
        anomaly: when a value counts as an anomaly; None: nothing was measured.
    """

    columns: Annotated[list[Column], Field(min_length=1, fail_fast=True)]
    target: str
    horizon: Width
    quantiles: Annotated[list[Level], Field(min_length=1, fail_fast=True)]
    scales: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], Field(fail_fast=True)]
    least_observations: Count
    anomaly: Anomaly | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"column names must differ, found {names}")
        if self.target not in names:
            raise ValueError(f"target must be one of {names}, found {self.target!r}")
        self._check_references(names)
        if len(self.scales) != self.horizon:
            raise ValueError(f"scales must be {self.horizon}, one a step ahead, found {len(self.scales)}")
        if self.quantiles != sorted(set(self.quantiles)) or 0.5 not in self.quantiles:
            raise ValueError(f"quantiles must rise and hold 0.5, found {self.quantiles}")
        return self

    def _check_references(self, names: list[str]) -> None:
        if self.column(self.target).calendar is not None:
            raise ValueError(f"target must be no calendar column, found {self.target!r}")
        if sum(column.calendar is not None for column in self.columns) > 1:
            raise ValueError("calendar columns must be one at most")
        for column in self.columns:
            if column.reference not in names:
                raise ValueError(
                    f"reference of {column.name} must be one of {names}, found {column.reference!r}"
                )
            if self.column(column.reference).calendar is not None and column.calendar is None:
                raise ValueError(f"reference of {column.name} must be no calendar column")
            if column.transform != self.column(column.reference).transform:
                raise ValueError(
                    f"{column.name} and its reference {column.reference} must have one transform"
                )

    @property
    def num_features(self) -> int:
        """Number of features of an observation."""
        return sum(column.num_features for column in self.columns)

    @property
    def calendar(self) -> str:
        """Name of the calendar column; "" where there is none."""
        return next((column.name for column in self.columns if column.calendar is not None), "")

    @property
    def needs_contract_2(self) -> bool:
        """Return whether the section has fields that readers of contract 1 do not know."""
        return self.anomaly is not None or any(
            column.calendar is not None or column.level is not None for column in self.columns
        )

    def column(self, name: str) -> Column:
        """Return the column named `name`; it must exist."""
        return next(column for column in self.columns if column.name == name)
