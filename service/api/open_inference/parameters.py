"""Parameters of the Open Inference Protocol: one reader for those of requests, inputs and outputs.

A client sends a value in the field of its type, or as text, since KServe's form of the protocol has only the
fields for truth values, signed integers and text. Every form of the same value gives the same result. Text
is read as JSON writes numbers and truth values.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from seqserve.inference import grpc_service_pb2 as pb
from service.api.open_inference.names import unknown_name
from service.errors import InvalidArgument, shown
from service.tasks.limits import check_count

Value = bool | int | float | str

MAX_PARAMETERS: Final = 32  # of a request, and of each tensor: more than any client sends
_MAX_NUMERAL: Final = 64  # characters of a number as text: 2**64 - 1 has 20, and no double needs more than 24
_NUMERAL: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_TRUTHS: Final = {"true": True, "false": False}
_MAX_EXACT: Final = 1 << 53  # doubles above it may be other whole numbers that were rounded
_MAX_INT64: Final = (1 << 63) - 1


def whole_of(field: str, found: Value, bits: int) -> int:
    """Return an unsigned integer: an integer, a double without a fraction, or the text of one of them.

    Args:
        field: name of the parameter.
        found: its value.
        bits: maximum size of the number in bits.

    Raises:
        InvalidArgument: the value is not such a number.
    """
    number = _number_in(found)
    if isinstance(number, float) and number.is_integer():
        if abs(number) > _MAX_EXACT:
            raise InvalidArgument(
                field,
                f"expected an integer or its digits, since a floating-point number above 2**53 may have been "
                f"rounded, found {_described(found)}",
            )
        number = int(number)
    if not isinstance(number, int) or not 0 <= number < 1 << bits:
        raise InvalidArgument(
            field, f"expected a whole number of 0..2**{bits}-1, found {_described(found, number is None)}"
        )
    return number


def number_of(field: str, found: Value) -> float:
    """Return a finite number, rounded to float32 as in the typed services.

    Raises:
        InvalidArgument: the value is not a number or the text of one, or float32 does not hold it.
    """
    number = _number_in(found)
    if number is None:
        raise InvalidArgument(field, f"expected a number, found {_described(found, True)}")
    with np.errstate(over="ignore"):
        rounded = float(np.float32(number))
    if not math.isfinite(rounded):
        raise InvalidArgument(field, f"expected a finite number that fits 32 bits, found {_described(found)}")
    return rounded


def truth_of(field: str, found: Value) -> bool:
    """Return a truth value.

    Raises:
        InvalidArgument: the value is neither a truth value nor the text true or false.
    """
    truth = _TRUTHS.get(found) if isinstance(found, str) else found
    if not isinstance(truth, bool):
        raise InvalidArgument(field, f"expected true or false, found {_described(found)}")
    return truth


def text_of(field: str, found: Value) -> str:
    """Return a text.

    Raises:
        InvalidArgument: the value is not text.
    """
    if not isinstance(found, str):
        raise InvalidArgument(field, f"expected text, found {_described(found)}")
    return found


def set_value(parameter: pb.InferParameter, value: bool | int | str) -> None:
    """Set the value of a parameter of an answer, in a form that KServe's form of the protocol has.

    Integers above 63 bits are sent as their digits.
    """
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int) and value <= _MAX_INT64:
        parameter.int64_param = value
    else:
        parameter.string_param = str(value)


class Parameters:
    """Typed access to the parameters of a request or of one of its tensors.

    Args:
        given: parameters by name.
        known: names that they may have.
        tensor: name of the tensor that they belong to; "": they belong to the request.

    Raises:
        InvalidArgument: a name is unknown, or there are too many.
    """

    def __init__(
        self, given: Mapping[str, pb.InferParameter], known: Sequence[str], tensor: str = ""
    ) -> None:
        place = tensor or "parameters"
        check_count(place, "parameters", len(given), MAX_PARAMETERS, minimum=0)
        for name in given:
            if name not in known:
                raise unknown_name(place, "parameters", name, known)
        self._given = given
        self._prefix = f"{tensor}." if tensor else ""

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._given)

    def whole(self, name: str, bits: int) -> int | None:
        """Return an unsigned integer as `whole_of` does, or None where the parameter is absent."""
        found = self.value(name)
        return None if found is None else whole_of(self.field(name), found, bits)

    def number(self, name: str) -> float | None:
        """Return a number as `number_of` does, or None where the parameter is absent."""
        found = self.value(name)
        return None if found is None else number_of(self.field(name), found)

    def truth(self, name: str) -> bool | None:
        """Return a truth value as `truth_of` does, or None where the parameter is absent."""
        found = self.value(name)
        return None if found is None else truth_of(self.field(name), found)

    def text(self, name: str) -> str | None:
        """Return a text as `text_of` does, or None where the parameter is absent."""
        found = self.value(name)
        return None if found is None else text_of(self.field(name), found)

    def field(self, name: str) -> str:
        """Return the path of a parameter for an error: its name, behind that of its tensor."""
        return f"{self._prefix}{name}"

    def value(self, name: str) -> Value | None:
        """Return a value of whatever type, or None where the parameter is absent.

        Raises:
            InvalidArgument: the parameter is there without a value.
        """
        if name not in self._given:  # indexing a protobuf map inserts the key
            return None
        parameter = self._given[name]
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidArgument(self.field(name), "expected a value, found a parameter with none set")
        value: Value = getattr(parameter, choice)
        return value


def _number_in(found: Value) -> int | float | None:
    """Return the number that a value is or that its text says; None where it is neither."""
    if isinstance(found, bool):
        return None
    if not isinstance(found, str):
        return found
    # The length is looked at first: the pattern looks at every character.
    if len(found) > _MAX_NUMERAL or (numeral := _NUMERAL.fullmatch(found)) is None:
        return None
    return int(found) if numeral.lastindex is None else float(found)


def _described(found: Value, is_number_expected: bool = False) -> str:
    """Return a value for an error's text, with the reason where it is text that is no number."""
    if not isinstance(found, str):
        return shown(found)
    text = f"the text {shown(found)}"
    return f"{text}, which is no number in JSON's form" if is_number_expected else text
