"""Parameters of an Open Inference Protocol request, which are the options of its task."""

from collections.abc import Collection, Mapping

import numpy as np

from seqserve.inference import grpc_service_pb2 as pb
from service.api.open_inference.tensors import MAX_PARAMETERS
from service.errors import InvalidArgument, shown
from service.tasks.limits import check_count

# Triton's clients send it with streams, where the last message is marked in any case.
_NO_EFFECT = frozenset({"triton_enable_empty_final_response"})

_MAX_DIGITS = 20  # 2**64 - 1 has as many


class Parameters:
    """Typed access to the parameters of a request.

    Args:
        given: parameters of the request by name.
        known: names of the task's options.

    Raises:
        InvalidArgument: a name is unknown, or there are too many.
    """

    def __init__(self, given: Mapping[str, pb.InferParameter], known: Collection[str]) -> None:
        check_count("parameters", "parameters", len(given), MAX_PARAMETERS, minimum=0)
        self._given = given
        for name in given:
            if name not in known and name not in _NO_EFFECT:
                expected = f"names among {', '.join(known)}" if known else "none for this model"
                raise InvalidArgument("parameters", f"expected {expected}, found {shown(name)}")

    def whole(self, name: str, bits: int) -> int | None:
        """Return an unsigned integer, or None where the parameter is absent.

        Digits in a string are accepted, as some clients cannot send integers above 63 bits.

        Args:
            name: name of the parameter.
            bits: maximum size of the number in bits.

        Raises:
            InvalidArgument: the value is not such a number.
        """
        found = self._value(name)
        if found is None:
            return None
        # The length is looked at first: the other tests look at every character.
        if isinstance(found, str) and len(found) <= _MAX_DIGITS and found.isascii() and found.isdecimal():
            found = int(found)
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << bits:
            raise InvalidArgument(name, f"expected a whole number of 0..2**{bits}-1, found {shown(found)}")
        return found

    def number(self, name: str) -> float | None:
        """Return a number, rounded to float32 as in the typed services, or None where it is absent.

        Raises:
            InvalidArgument: the value is not a number.
        """
        found = self._value(name)
        if found is None:
            return None
        if not isinstance(found, int | float) or isinstance(found, bool):
            raise InvalidArgument(name, f"expected a number, found {shown(found)}")
        with np.errstate(over="ignore"):
            return float(np.float32(found))

    def text(self, name: str) -> str | None:
        """Return a text, or None where the parameter is absent.

        Raises:
            InvalidArgument: the value is not text.
        """
        found = self._value(name)
        if found is not None and not isinstance(found, str):
            raise InvalidArgument(name, f"expected text, found {shown(found)}")
        return found

    def _value(self, name: str) -> bool | int | float | str | None:
        if name not in self._given:  # indexing a protobuf map inserts the key
            return None
        parameter = self._given[name]
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidArgument(name, "expected a value, found none")
        value: bool | int | float | str = getattr(parameter, choice)
        return value
