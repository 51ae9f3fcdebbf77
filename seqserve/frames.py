"""Reads observations that callers pass: nested lists, arrays, and tables with named columns.

A table is a DataFrame of pandas or polars, a Table of pyarrow, a structured array of numpy, or rows that
carry names (dicts, named tuples, rows of pandas). They are recognised by their methods, so that none of these
packages is needed. A table's columns are matched to the model's by name, since iterating over a table yields
columns, names of columns, or rows in the order of the table and not of the model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from seqserve.arguments import is_frame, items, number, refusal, type_of
from seqserve.errors import WrongType, WrongValue
from seqserve.results import ModelInfo

Rows: TypeAlias = list[list[float]]
"""Observations, oldest first, each with the values in the model's order."""

_TABLES = "a pandas or polars DataFrame, or a pyarrow Table"
_DATE_TITLES = frozenset({"date", "datetime", "day", "time", "timestamp", "index"})
_NUM_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Frame:
    """A table of observations.

    Attributes:
        names: Names of the columns.
        columns: Values of each column, in the order of `names`.
        index: Labels of the rows, or None where the kind of table has none.
        index_name: Name of the index, or None.
    """

    names: Sequence[object]
    columns: Sequence[list[Any]]
    index: list[Any] | None = None
    index_name: object = None


class ModelColumns(NamedTuple):
    """The columns of a forecasting model's version.

    Attributes:
        model: Name of the model.
        version: Its version.
        names: Names of the values of an observation, in order.
    """

    model: str
    version: int
    names: tuple[str, ...]


def read_observations(field: str, value: Any) -> Rows | Frame:
    """Read the observations of one series.

    Args:
        field: Name of the field, for errors.
        value: A table, an array of shape (observations, values), or nested collections of numbers.

    Raises:
        WrongType: It is neither, or holds something that is no number.
        WrongValue: A number is not finite, or the observations differ in length.
    """
    frame = _read_frame(field, value)
    if frame is not None:
        return frame
    rows = items(field, value, f"observations (lists of numbers, an array of 2 dimensions, {_TABLES})")
    return _named_rows(field, rows) or _number_rows(field, rows)


def read_series(field: str, value: Any) -> list[Rows | Frame]:
    """Read any number of series; a single table is one series.

    Raises:
        WrongType: A series cannot be read, or the array has other than 3 dimensions.
        WrongValue: There is no series, or a number is not finite.
    """
    dimensions = getattr(value, "ndim", 3)
    if is_frame(value) or _field_names(value):
        value = [value]
    elif isinstance(dimensions, int) and dimensions != 3 and not _holds_objects(value):
        raise refusal(
            WrongValue,
            field,
            f"expected 3 dimensions (series, observations, values), found {dimensions}; "
            "a single series goes into a list",
        )
    found = items(field, value, "series, each a list of observations")
    if not found:
        raise refusal(WrongValue, field, "expected at least 1 series, found 0")
    return [read_observations(f"{field}[{index}].observations", each) for index, each in enumerate(found)]


def model_columns(model: ModelInfo) -> ModelColumns:
    """Return the columns of a forecasting model, in its order; without names if model.json does not say."""
    forecasting = model.spec.get("forecasting")
    columns = forecasting.get("columns") if isinstance(forecasting, dict) else None
    names = [column.get("name") for column in columns or () if isinstance(column, dict)]
    return ModelColumns(model.name, model.version, tuple(name for name in names if isinstance(name, str)))


def in_order(field: str, frame: Frame, model: ModelColumns) -> Rows:
    """Return the rows of a table with the columns in the model's order.

    Names are matched in any case. A column or an index of dates is left out once its dates are seen to rise.
    Any other column that the model has not is refused, since its rows may be of several series.

    Args:
        field: Name of the field, for errors.
        frame: The table.
        model: Columns of the model.

    Raises:
        WrongType: A column of the model holds something that is no number.
        WrongValue: Columns are missing, unknown or given twice, dates do not rise, or a number is not finite.
    """
    names = model.names
    if not names:
        what = f"expected values alone, as {model.model} version {model.version} names no columns"
        raise refusal(WrongValue, field, f"{what}, found a table; pass frame.to_numpy()")
    found = [name.strip().lower() if isinstance(name, str) else None for name in frame.names]
    places = [_place(field, frame, found, name) for name in names]
    missing = [name for name, place in zip(names, places, strict=True) if place is None]
    if missing:
        what = f"expected the columns {', '.join(names)} of {model.model}, found {_shown(frame.names)}"
        raise refusal(WrongValue, field, f"{what}; missing: {', '.join(missing)}")
    chosen = [place for place in places if place is not None]
    _check_others(field, frame, model, chosen)
    _check_index(field, frame)
    columns = [_numbers(field, name, frame.columns[place]) for name, place in zip(names, chosen, strict=True)]
    return [list(values) for values in zip(*columns, strict=True)]


def _numbers(field: str, name: str, column: list[Any]) -> list[float]:
    if _are_floats(column):
        return column
    return [number(f"{field}[{row}].{name}", value) for row, value in enumerate(column)]


def _read_frame(field: str, value: Any) -> Frame | None:
    """Read a table by the methods of its kind; return None for anything that has no named columns."""
    kind = type(value)
    if fields := _field_names(value):
        return Frame(fields, [value[name].tolist() for name in fields])
    if not is_frame(value):
        return None
    if hasattr(kind, "iloc"):
        return Frame(
            list(value.columns),
            [value.iloc[:, place].tolist() for place in range(len(value.columns))],
            value.index.tolist(),
            value.index.name,
        )
    if hasattr(kind, "get_column"):
        return Frame(list(value.columns), [value.get_column(name).to_list() for name in value.columns])
    if hasattr(kind, "column_names") and hasattr(kind, "column"):
        return Frame(
            list(value.column_names),
            [value.column(place).to_pylist() for place in range(len(value.column_names))],
        )
    raise refusal(WrongType, field, f"expected {_TABLES}, found {type_of(value)}")


def _holds_objects(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "") == "O"


def _named_rows(field: str, rows: list[Any]) -> Frame | None:
    """Read rows that carry names as a table; return None if the first row has none."""
    first = _names_of(rows[0]) if rows else None
    if first is None:
        return None
    found = []
    for index, row in enumerate(rows):
        names = _names_of(row)
        if names is None or set(names) != set(first):
            what = f"expected the names of {field}[0] ({_shown(first)})"
            raise refusal(
                WrongValue, f"{field}[{index}]", f"{what}, found {_shown(names) if names else type_of(row)}"
            )
        values = dict(zip(names, _values_of(row), strict=True))
        found.append([values[name] for name in first])
    return Frame(first, [list(column) for column in zip(*found, strict=True)])


def _names_of(row: Any) -> list[object] | None:
    if isinstance(row, Mapping):
        return list(row.keys())
    if isinstance(row, tuple) and hasattr(row, "_fields"):
        return list(row._fields)
    if hasattr(type(row), "iloc") and not is_frame(row):  # a row of pandas
        labels = row.index.tolist()
        return labels if any(isinstance(label, str) for label in labels) else None
    return list(_field_names(row)) or None


def _field_names(value: Any) -> tuple[str, ...]:
    """Return the names of a structured array's fields, or of one of its rows; none for anything else."""
    names = getattr(getattr(value, "dtype", None), "names", None)
    return names if isinstance(names, tuple) else ()


def _values_of(row: Any) -> list[Any]:
    return list(row.values()) if isinstance(row, Mapping) else list(getattr(row, "tolist", lambda: row)())


def _number_rows(field: str, rows: list[Any]) -> Rows:
    found: Rows = []
    for index, row in enumerate(rows):
        is_list = type(row) in (list, tuple)
        values = row if is_list else items(f"{field}[{index}]", row, "an observation (a list of numbers)")
        if not _are_floats(values):
            place = f"{field}[{index}].values"
            values = [number(f"{place}[{column}]", value) for column, value in enumerate(values)]
        if found and len(values) != len(found[0]):
            what = f"expected {len(found[0])} values, as in {field}[0], found {len(values)}"
            raise refusal(WrongValue, f"{field}[{index}]", what)
        found.append(values)
    return found


def _are_floats(values: Sequence[Any]) -> bool:
    """Return whether all are finite floats, which need no conversion; a quick answer for the common case."""
    return set(map(type, values)) <= {float} and all(map(math.isfinite, values))


def _place(field: str, frame: Frame, found: list[str | None], name: str) -> int | None:
    """Return the position of one of the model's columns, or None.

    A name in the same case comes before one in another case.

    Raises:
        WrongValue: Several columns have the name.
    """
    exact = [place for place, each in enumerate(frame.names) if each == name]
    places = exact or [place for place, each in enumerate(found) if each == name.strip().lower()]
    if len(places) > 1:
        raise refusal(
            WrongValue, field, f"expected one column {name}, found {len(places)}: {_shown(frame.names)}"
        )
    return places[0] if places else None


def _check_others(field: str, frame: Frame, model: ModelColumns, places: Sequence[int]) -> None:
    others = [place for place in range(len(frame.names)) if place not in places]
    unknown = [place for place in others if not _has_dates(frame.names[place], frame.columns[place])]
    if unknown:
        what = f"expected the columns {', '.join(model.names)} of {model.model}, and dates"
        found = _shown([frame.names[place] for place in unknown])
        raise refusal(WrongValue, field, f"{what}, found also {found}; leave them out")
    for place in others:
        _check_rising(field, f"column {frame.names[place]!s:.40}", frame.columns[place])


def _check_index(field: str, frame: Frame) -> None:
    """Refuse an index of dates that do not rise, of row numbers that fall, or of anything else."""
    index = frame.index
    if not index:
        return
    are_numbers = all(isinstance(label, (int, float)) for label in index)
    if not are_numbers or _is_date_title(frame.index_name):
        _check_rising(field, "the index", index)
    elif len(index) > 1 and all(later < earlier for earlier, later in pairwise(index)):
        what = (
            f"expected observations oldest first, found row numbers that fall from {index[0]} to {index[-1]}"
        )
        raise refusal(WrongValue, field, what)


def _has_dates(name: object, column: list[Any]) -> bool:
    return _is_date_title(name) or (bool(column) and all(_is_date(value) for value in column))


def _is_date_title(name: object) -> bool:
    return isinstance(name, str) and name.strip().lower() in _DATE_TITLES


def _is_date(value: Any) -> bool:
    return all(hasattr(value, part) for part in ("year", "month", "day"))


def _check_rising(field: str, where: str, values: list[Any]) -> None:
    """Refuse dates that are out of order, and what cannot be compared as dates.

    Many tables are newest first; their forecast would be of the past, and look plausible.
    """
    moments = [_moment(field, where, row, value) for row, value in enumerate(values)]
    try:
        back = next((row for row in range(1, len(moments)) if moments[row] < moments[row - 1]), None)
    except TypeError as error:
        what = f"expected dates of one kind in {where}, found some that cannot be compared"
        raise refusal(WrongType, field, what) from error
    if back is not None:
        what = f"expected dates that rise (oldest first) in {where}"
        found = f"found {values[back]!s:.40} in row {back} after {values[back - 1]!s:.40}"
        raise refusal(WrongValue, field, f"{what}, {found}; sort the rows by date")


def _moment(field: str, where: str, row: int, value: Any) -> Any:
    """Return a date (or its ISO text, or a number such as seconds since 1970) as something that compares."""
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    is_number = isinstance(moment, (int, float)) and not isinstance(moment, bool)
    if not (is_number or _is_date(moment)) or moment != moment:  # noqa: PLR0124 - NaN and NaT differ from themselves
        what = f"expected dates (ISO text or values that compare) in {where}"
        hint = "leave them out, or reset_index(drop=True)"
        raise refusal(WrongValue, field, f"{what}, found {value!s:.40} in row {row}; {hint}")
    return moment


def _shown(names: Sequence[object]) -> str:
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return ", ".join(f"{name!s:.40}" for name in names[:_NUM_SHOWN]) + more if names else "none"
