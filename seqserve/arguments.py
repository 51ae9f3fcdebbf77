"""Checks of what callers pass to the client, before anything is sent: pure functions, used by both clients.

Each check takes the field's name, for the error, and the value. It returns the value in the form that the
messages take, or raises WrongType or WrongValue with the field, what was expected and what was found. No
error quotes a text, a state or a token.
"""

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, Final, TypeVar

from seqserve.errors import InvalidArgument, Violation, WrongType, WrongValue

MAX_TIMEOUT_S: Final = 1e9
"""Longest timeout in seconds, 31 years. gRPC counts nanoseconds since 1970 in 64 bits: later overflows."""

_MAX_FLOAT32: Final = 3.4028234663852886e38

Refusal = TypeVar("Refusal", bound=InvalidArgument)


def refusal(kind: type[Refusal], field: str, description: str) -> Refusal:
    """Return an error that names one field."""
    error = kind(f"{field}: {description}")
    error.violations = (Violation(field, description),)
    return error


def type_of(value: object) -> str:
    """Return the type of a value with its article, or None."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def plain(field: str, value: Any) -> Any:
    """Return the values of an array (numpy, torch, a buffer, a column of a frame) as nested lists.

    Numpy's numbers become Python's; anything else is returned as it is.

    Raises:
        WrongType: The array holds dates or durations, which numpy would convert to integers.
    """
    if getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m"):
        raise refusal(WrongType, field, "expected numbers, found dates or durations")
    for name in ("tolist", "to_list"):
        if callable(convert := getattr(value, name, None)):
            return convert()
    if hasattr(type(value), "__array__"):
        return value.__array__().tolist()
    return value


def items(field: str, value: Any, expected: str) -> list[Any]:
    """Return the items of an ordered collection, such as a list, an array or a generator.

    A text, a dict, a set and a table are refused: iterating over one gives no items in order.

    Args:
        field: Name of the field.
        value: The collection.
        expected: What the field takes, for the error.
    """
    if type(value) in (list, tuple):
        return list(value)
    values = plain(field, value)
    is_refused = isinstance(values, (str, bytes, bytearray, Mapping, Set)) or is_frame(value)
    try:
        iterator = None if is_refused else iter(values)
    except TypeError:
        iterator = None
    if iterator is None:
        raise refusal(WrongType, field, f"expected {expected}, found {type_of(value)}")
    return list(iterator)


def iterator(field: str, value: Any) -> Iterator[Any]:
    """Return an iterator over the requests of a stream, without reading any."""
    expected = "pairs of an id and the texts"
    if isinstance(value, Mapping):
        raise refusal(WrongType, field, f"expected {expected}, found {type_of(value)}; pass its .items()")
    found: Iterator[Any] | None = None
    try:
        if not (isinstance(value, (str, bytes, bytearray)) or is_frame(value)):
            found = iter(value)
    except TypeError:
        found = None
    if found is None:
        raise refusal(WrongType, field, f"expected {expected}, found {type_of(value)}")
    return found


def is_frame(value: object) -> bool:
    """Return whether the value is a table with named columns; iterating over one yields no rows."""
    # Asked of the type: to read `columns` of a lazy frame of polars computes it.
    return any(hasattr(type(value), name) for name in ("columns", "column_names", "__dataframe__"))


def text(field: str, value: object) -> str:
    """Check a text: a str that UTF-8 can encode."""
    if not isinstance(value, str):
        raise refusal(WrongType, field, f"expected a str, found {type_of(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = f"found a lone surrogate at character {error.start}"
        raise refusal(WrongValue, field, f"expected text that UTF-8 can encode, {found}") from None
    return value


def texts(field: str, value: str | Iterable[str]) -> list[str]:
    """Check texts, or a single one."""
    found = [value] if isinstance(value, str) else items(field, value, "a str or a list of str")
    return [text(f"{field}[{index}]", each) for index, each in enumerate(found)]


def some_texts(field: str, value: str | Iterable[str]) -> list[str]:
    """Check texts of which there must be at least one."""
    found = texts(field, value)
    if not found:
        raise refusal(WrongValue, field, "expected at least 1 text, found 0")
    return found


def count(field: str, value: object, *, bits: int = 32) -> int:
    """Check a whole number that an unsigned field of so many bits can hold."""
    most = 2**bits - 1
    try:
        found = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        found = None
    if found is None:
        raise refusal(WrongType, field, f"expected a whole number from 0 to {most}, found {type_of(value)}")
    if not 0 <= found <= most:
        # Python refuses to write very long numbers out.
        shown = str(found) if found.bit_length() <= 128 else f"one of {found.bit_length()} bits"
        raise refusal(WrongValue, field, f"expected a whole number from 0 to {most}, found {shown}")
    return found


def seed(field: str, value: object) -> int | None:
    """Check a seed; None lets the server draw one."""
    return None if value is None else count(field, value, bits=64)


def number(field: str, value: object) -> float:
    """Check a finite number, of any type that converts to float; neither bool nor text."""
    found = plain(field, value)
    if isinstance(found, (bool, str, bytes, bytearray)) or not hasattr(type(found), "__float__"):
        raise refusal(WrongType, field, f"expected a number, found {type_of(found)}")
    try:
        converted = float(found)
    except OverflowError:
        converted = math.inf
    except (TypeError, ValueError) as error:
        raise refusal(WrongType, field, f"expected a number, found {type_of(found)}") from error
    if not math.isfinite(converted):
        raise refusal(WrongValue, field, f"expected a finite number, found {converted}")
    return converted


def temperature(field: str, value: object) -> float | None:
    """Check a temperature: at least 0, and within float32; None is the server's default."""
    found = None if value is None else number(field, value)
    if found is not None and not 0 <= found <= _MAX_FLOAT32:
        raise refusal(WrongValue, field, f"expected 0 or more, found {found:g}")
    return found


def share(field: str, value: object) -> float | None:
    """Check a share of the probability, in (0, 1]; None is the server's default."""
    found = None if value is None else number(field, value)
    if found is not None and not 0 < found <= 1:
        raise refusal(WrongValue, field, f"expected more than 0 and at most 1, found {found:g}")
    return found


def levels(field: str, value: object) -> list[float]:
    """Check quantile levels, each in (0, 1)."""
    found = [
        number(f"{field}[{index}]", each)
        for index, each in enumerate(items(field, value, "a list of levels between 0 and 1"))
    ]
    for index, level in enumerate(found):
        if not 0 < level < 1:
            raise refusal(
                WrongValue, f"{field}[{index}]", f"expected a level between 0 and 1, found {level:g}"
            )
    return found


def flag(field: str, value: object) -> bool:
    """Check a switch: True or False, of Python or numpy."""
    found = plain(field, value)
    if not isinstance(found, bool):
        raise refusal(WrongType, field, f"expected True or False, found {type_of(value)}")
    return found


def state(field: str, value: object) -> bytes:
    """Check a sealed state; None is no state, and returned as empty bytes."""
    if value is None:
        return b""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise refusal(WrongType, field, f"expected bytes, found {type_of(value)}")
    return bytes(value)


def timeout(field: str, value: object) -> float | None:
    """Check a timeout in seconds; None and infinity mean no limit and are returned as None."""
    if value is None:
        return None
    expected = f"expected seconds above 0, at most {MAX_TIMEOUT_S:g}, or None for no limit"
    found = plain(field, value)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise refusal(WrongType, field, f"{expected}, found {type_of(value)}")
    if found == math.inf:
        return None
    if not 0 < found <= MAX_TIMEOUT_S:
        shown = f"{found:.6g}" if not abs(found) > 1e300 else "far more"
        raise refusal(WrongValue, field, f"{expected}, found {shown}")
    return float(found)


def token(field: str, value: object) -> str | None:
    """Check a bearer token; None is none. The error does not show the token."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise refusal(WrongType, field, f"expected a str or None, found {type_of(value)}")
    if not value or not value.isascii() or not value.isprintable() or value != value.strip():
        raise refusal(
            WrongValue, field, "expected printable ASCII characters without surrounding spaces, found others"
        )
    return value


def instance(field: str, value: object, *kinds: type[Any]) -> None:
    """Check that the value is None or of one of the classes."""
    if value is not None and not isinstance(value, kinds):
        names = ", ".join(kind.__name__ for kind in kinds)
        raise refusal(WrongType, field, f"expected {names} or None, found {type_of(value)}")


def pairs(field: str, value: Any) -> list[tuple[str, Any]]:
    """Check channel options: pairs of a name and a value."""
    found = items(field, value, "pairs of a name and a value")
    for index, each in enumerate(found):
        if not (isinstance(each, (tuple, list)) and len(each) == 2 and isinstance(each[0], str)):
            raise refusal(
                WrongType,
                f"{field}[{index}]",
                f"expected a pair of a name and a value, found {type_of(each)}",
            )
    return [(name, each) for name, each in found]
