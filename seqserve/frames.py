"""Reads observations that callers pass: nested lists, arrays, and tables with named columns.

A table is a DataFrame of pandas or polars, a Table of pyarrow, a structured array of numpy, or rows that
carry names (dicts, named tuples, rows of pandas). They are recognised by their methods, so that none of these
packages is needed. A table's columns are matched to the model's by name, since iterating over a table yields
columns, names of columns, or rows in the order of the table and not of the model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from seqserve.arguments import is_frame, items, number, refusal, type_of
from seqserve.errors import WrongType, WrongValue
from seqserve.frame_order import Labels, check_oldest_first, may_tell_order
from seqserve.results import ModelInfo

Rows: TypeAlias = list[list[float]]
"""Observations, oldest first, each with the values in the model's order."""

_TABLES = "a pandas or polars DataFrame, or a pyarrow Table"
_NUM_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Frame:
    """A table of observations.

    Attributes:
        names: Names of the columns.
        columns: Values of each column, in the order of `names`.
        index: Labels of the rows, or None where the table has none.
        index_name: Name of the index, or None.
    """

    names: Sequence[object]
    columns: Sequence[list[Any]]
    index: list[Any] | None = None
    index_name: object = None


class ModelColumns(NamedTuple):
    """The columns of a version of a model that takes rows of numbers.

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
        WrongValue: A number is not finite, the observations differ in length, or their labels do not rise.
    """
    frame = _read_frame(field, value)
    if frame is not None:
        return frame
    rows = items(field, value, f"observations (lists of numbers, an array of 2 dimensions, {_TABLES})")
    if _is_single(value, rows):
        what = f"expected an observation (a list of numbers), found {type_of(rows[0])}"
        hint = "push([row])" if field == "observations" else "[[row]]"
        raise refusal(
            WrongType, f"{field}[0]", f"{what}; a single observation goes into a list of them: {hint}"
        )
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
    """Return the columns of a model, in its order; without names if neither server nor model.json says."""
    section = model.spec.get("forecasting") or model.spec.get("sequences")
    columns = section.get("columns") if isinstance(section, dict) else None
    names = [column.get("name") for column in columns or () if isinstance(column, dict)]
    named = [each.name for each in model.features] or [name for name in names if isinstance(name, str)]
    return ModelColumns(model.name, model.version, tuple(named) if all(named) else ())


def in_order(field: str, frame: Frame, model: ModelColumns) -> Rows:
    """Return the rows of a table with the columns in the model's order.

    Names are matched in any case. A column or an index of dates is left out once its dates are seen to rise,
    and so are row numbers. Any other column that the model has not is refused, since its rows may be of
    several series.

    Args:
        field: Name of the field, for errors.
        frame: The table.
        model: Columns of the model.

    Raises:
        WrongType: A column of the model holds something that is no number.
        WrongValue: Columns are missing, unknown or given twice, dates or row numbers do not rise, or a number
            is not finite.
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
    if not first:
        raise refusal(
            WrongValue, f"{field}[0]", f"expected named values, found {type_of(rows[0])} without any"
        )
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
    return Frame(first, [list(column) for column in zip(*found, strict=True)], _labels_of(rows))


def _labels_of(rows: list[Any]) -> list[Any] | None:
    """Return what the index of a table of pandas called each of its rows, or None."""
    labels = [row.name if _is_pandas_row(row) else None for row in rows]
    return None if all(label is None for label in labels) else labels


def _is_pandas_row(row: Any) -> bool:
    return hasattr(type(row), "iloc") and not is_frame(row)


def _is_single(value: Any, rows: list[Any]) -> bool:
    """Return whether a single observation was passed where a list of them is expected."""
    kind = type(rows[0]) if rows else list
    is_number = hasattr(kind, "__float__") and not (hasattr(kind, "__iter__") or _names_of(rows[0]))
    is_text = kind in (str, bytes)
    return is_number or (_is_pandas_row(value) and (is_text or not hasattr(kind, "__iter__")))


def _names_of(row: Any) -> list[object] | None:
    if isinstance(row, Mapping):
        return list(row.keys())
    if isinstance(row, tuple) and hasattr(row, "_fields"):
        return list(row._fields)
    if _is_pandas_row(row):
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
            what = f"expected {len(found[0])} values, as in the first, found {len(values)}"
            raise refusal(WrongValue, f"{field}[{index}]", what)
        found.append(values)
    if labels := _labels_of(rows):
        check_oldest_first(field, [Labels("the index", None, labels)])
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
    unknown = [place for place in others if not may_tell_order(frame.names[place], frame.columns[place])]
    if unknown:
        what = f"expected the columns {', '.join(model.names)} of {model.model}, and dates"
        found = _shown([frame.names[place] for place in unknown])
        hint = f"sort the rows oldest first, then leave {'it' if len(unknown) == 1 else 'them'} out"
        raise refusal(WrongValue, field, f"{what}, found also {found}; {hint}")
    labels = [
        Labels(f"column {frame.names[place]!s:.40}", frame.names[place], frame.columns[place])
        for place in others
    ]
    if frame.index:
        labels.append(Labels("the index", frame.index_name, frame.index))
    check_oldest_first(field, labels)


def _shown(names: Sequence[object]) -> str:
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return ", ".join(f"{name!s:.40}" for name in names[:_NUM_SHOWN]) + more if names else "none"
