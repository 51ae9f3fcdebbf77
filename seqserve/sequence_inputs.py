"""Reads sequences that callers pass: texts, token ids, arrays, nested lists, and tables with named columns.

A text is a str. Whole numbers of one dimension are token ids; other numbers of one dimension are time steps
with one value each, and those of two dimensions time steps with several.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from seqserve.arguments import count, is_frame, items, number, plain, refusal, text, type_of
from seqserve.errors import WrongType, WrongValue
from seqserve.frame_order import Labels, check_oldest_first
from seqserve.frames import Frame, Rows, read_observations
from seqserve.tables.dates import is_text_date
from seqserve.v1.sequences_pb2 import SequenceInput, StepValues, TokenIds

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EXPECTED = "a str, token ids, rows of numbers or a table"
_MAX_FLOAT32 = 3.4028234663852886e38
_MOST_TOKEN_BITS = 63


def read_inputs(field: str, value: Any) -> list[SequenceInput | Frame]:
    """Read the sequences of a request; a single str or table is one sequence.

    Args:
        field: Name of the field, for errors.
        value: A str, a table, a list of sequences, or an array (sequences, time steps, values).

    Raises:
        WrongType: It is none of these, or a sequence holds something that is no number.
        WrongValue: There is no sequence, a sequence is empty, or a number does not fit.
    """
    if isinstance(value, str) or is_frame(value):
        value = [value]
    dimensions = getattr(value, "ndim", None)
    if isinstance(dimensions, int) and dimensions != 3 and _kind(value) != "O":
        what = f"expected a list of sequences, found an array of {dimensions} dimensions"
        raise refusal(WrongValue, field, f"{what}; a single sequence goes into a list: [sequence]")
    found = items(field, value, "a list of sequences")
    if not found:
        raise refusal(WrongValue, field, "expected at least 1 sequence, found 0")
    if all(_is_number(each) for each in found):
        what = f"expected a list of sequences, found {type_of(found[0])}"
        raise refusal(WrongType, f"{field}[0]", f"{what}; a single sequence goes into a list: [sequence]")
    return [read_input(f"{field}[{index}]", each) for index, each in enumerate(found)]


def read_input(field: str, value: Any) -> SequenceInput | Frame:
    """Read one sequence.

    Returns:
        The sequence, or a table, whose columns are still to be put into the model's order.

    Raises:
        WrongType: It is no sequence, or holds something that is no number.
        WrongValue: It is empty, or a number does not fit.
    """
    if isinstance(value, str):
        return SequenceInput(text=text(field, value))
    _check_index(field, value)
    if (array := _array(field, value)) is not None:
        return _of_array(field, array)
    if not is_frame(value):
        value = items(field, value, _EXPECTED)
        if not value:
            raise refusal(WrongValue, field, "expected at least 1 time step, found 0")
        if all(_is_number(each) for each in value):
            return _of_numbers(field, value)
    found = read_observations(field, value)
    return found if isinstance(found, Frame) else SequenceInput(steps=step_values(field, found))


def read_source(field: str, value: Any) -> SequenceInput:
    """Read what an encoder gets: a text, token ids, or rows of numbers.

    Raises:
        WrongType: It is none of these, or a table.
        WrongValue: It is empty, or a number does not fit.
    """
    found = read_input(field, value)
    if isinstance(found, Frame):
        what = f"expected a str, token ids or rows of numbers, found a table, {type_of(value)}"
        raise refusal(WrongType, field, f"{what}; its numbers go in the order of the model's columns")
    return found


def step_values(field: str, rows: Rows) -> StepValues:
    """Convert rows of the same width.

    Raises:
        WrongValue: There is no number, or one does not fit a float32.
    """
    flat = [value for row in rows for value in row]
    if not flat:
        raise refusal(WrongValue, field, "expected at least 1 value, found none")
    _check_floats(field, flat)
    return StepValues(features=len(rows[0]), values=flat)


def read_initial(field: str, value: Any, count_of_inputs: int) -> list[dict[str, StepValues]]:
    """Read what init graphs take: one mapping for all sequences, or a list with one for each.

    Raises:
        WrongType: It is neither, or a value is no row of numbers.
        WrongValue: The list has another length.
    """
    if value is None:
        return [{}] * count_of_inputs
    if isinstance(value, Mapping):
        return [_initial(field, value)] * count_of_inputs
    found = items(field, value, "a mapping of names to rows of numbers, or a list of such")
    if len(found) != count_of_inputs:
        what = f"expected {count_of_inputs} mappings, one for each sequence, found {len(found)}"
        raise refusal(WrongValue, field, what)
    return [_initial(f"{field}[{index}]", each) for index, each in enumerate(found)]


def _initial(field: str, value: Any) -> dict[str, StepValues]:
    if not isinstance(value, Mapping):
        what = f"expected a mapping of names to rows of numbers, found {type_of(value)}"
        raise refusal(WrongType, field, what)
    return {text(f"{field} name", name): _row(f"{field}[{name}]", row) for name, row in value.items()}


def _row(field: str, value: Any) -> StepValues:
    """Read one row of numbers; an array of shape (1, width) is one, too."""
    rows = items(field, value, "a row of numbers")
    if len(rows) == 1 and not _is_number(rows[0]):
        rows = items(f"{field}[0]", rows[0], "a row of numbers")
    found = [number(f"{field}[{index}]", each) for index, each in enumerate(rows)]
    return step_values(field, [found])


def _of_numbers(field: str, values: list[Any]) -> SequenceInput:
    if all(hasattr(type(each), "__index__") for each in values):
        ids = [count(f"{field}[{index}]", each, bits=_MOST_TOKEN_BITS) for index, each in enumerate(values)]
        return SequenceInput(tokens=TokenIds(ids=ids))
    rows = [[number(f"{field}[{index}]", each)] for index, each in enumerate(values)]
    return SequenceInput(steps=step_values(field, rows))


def _array(field: str, value: Any) -> "NDArray[Any] | None":
    """Return an array of numbers, of numpy or what becomes one without loss; None for anything else.

    Raises:
        WrongType: It holds dates or durations.
    """
    if not hasattr(type(value), "__array__") or is_frame(value) or _kind(value) in ("O", "V", "U", "S"):
        return None
    try:
        import numpy as np  # noqa: PLC0415 - whoever passes arrays has it, and others do not need it
    except ImportError:
        return None
    try:
        array = np.asarray(value)
    except (TypeError, RuntimeError):  # such as a tensor on another device: its tolist() is read instead
        return None
    if isinstance(value, np.ma.MaskedArray):  # the array has numbers where values are masked; tolist() None
        return None
    if array.dtype.kind in "Mm":
        plain(field, array)
    return array if array.dtype.kind in "iuf" else None


def _of_array(field: str, array: "NDArray[Any]") -> SequenceInput:
    if array.ndim not in (1, 2):
        what = "expected 1 dimension (token ids, or one value a time step) or 2 (time steps, values)"
        raise refusal(WrongValue, field, f"{what}, found {array.ndim}")
    if not array.size:
        raise refusal(WrongValue, field, "expected at least 1 time step with a value, found none")
    if array.ndim == 1 and array.dtype.kind in "iu":
        least, most = int(array.min()), int(array.max())
        if least < 0 or most >= 2**_MOST_TOKEN_BITS:
            count(field, least if least < 0 else most, bits=_MOST_TOKEN_BITS)
        return SequenceInput(tokens=TokenIds(ids=array.tolist()))
    flat = array.ravel().tolist()
    _check_floats(field, flat)
    width = 1 if array.ndim == 1 else array.shape[1]
    return SequenceInput(steps=StepValues(features=width, values=flat))


def _check_floats(field: str, values: list[float]) -> None:
    """Check that all numbers are finite as float32.

    Raises:
        WrongValue: One is not; the error names its place, counted row by row.
    """
    # The sum of finite numbers of float32 is finite, and that of others is not.
    if min(values) >= -_MAX_FLOAT32 and max(values) <= _MAX_FLOAT32 and math.isfinite(sum(values)):
        return
    for index, value in enumerate(values):
        if not abs(value) <= _MAX_FLOAT32:
            what = f"expected finite numbers of float32, found {value:g} as value {index}, row by row"
            raise refusal(WrongValue, field, what)


def _check_index(field: str, value: Any) -> None:
    """Check that the index of a Series of pandas does not fall: its values would be newest first.

    Raises:
        WrongType: The Series is a row of a table, by the names in its index.
        WrongValue: The index falls.
    """
    if not hasattr(type(value), "iloc") or is_frame(value):
        return
    labels = value.index.tolist()
    if any(isinstance(label, str) and not is_text_date(label) for label in labels):
        what = "expected time steps, found a row of a table; a single time step goes into a list: [row]"
        raise refusal(WrongType, field, what)
    check_oldest_first(field, [Labels("the index", value.index.name, labels)])


def _kind(value: Any) -> str:
    found = getattr(getattr(value, "dtype", None), "kind", "")
    return found if isinstance(found, str) else ""


def _is_number(value: Any) -> bool:
    kind = type(value)
    return hasattr(kind, "__float__") and not hasattr(kind, "__iter__") and not isinstance(value, (bool, str))
