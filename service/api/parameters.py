"""Parameters of an Open Inference Protocol request: options of the task, by name, each with a value of some
type.
"""

from collections.abc import Collection, Mapping

import numpy as np

from seqserve.inference import grpc_service_pb2 as pb
from service.api.tensors import shown
from service.errors import InvalidArgument

# Triton's clients send it where they stream; the last message says so here in any case.
_NO_EFFECT = frozenset({"triton_enable_empty_final_response"})

_MOST_DIGITS = 20  # of 2**64 - 1


class Parameters:
    """The options that came.

    Args:
        given: of the request.
        known: names that the task takes.

    Raises:
        InvalidArgument: a name is not known.
    """

    def __init__(self, given: Mapping[str, pb.InferParameter], known: Collection[str]) -> None:
        self._given = given
        for name in given:
            if name not in known and name not in _NO_EFFECT:
                expected = f"names among {', '.join(known)}" if known else "none for this model"
                raise InvalidArgument("parameters", f"expected {expected}, found {shown(name)}")

    def whole(self, name: str, bits: int) -> int | None:
        """A whole number of so many bits, or its digits: some clients send nothing above 63 bits. None where
        it did not come.

        Raises:
            InvalidArgument: it is none.
        """
        found = self._value(name)
        if found is None:
            return None
        if isinstance(found, str) and found.isascii() and found.isdecimal() and len(found) <= _MOST_DIGITS:
            found = int(found)
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << bits:
            raise InvalidArgument(name, f"expected a whole number of 0..2**{bits}-1, found {shown(found)}")
        return found

    def number(self, name: str) -> float | None:
        """A number, rounded to 32 bits as in the typed services; None where it did not come.

        Raises:
            InvalidArgument: it is none.
        """
        found = self._value(name)
        if found is None:
            return None
        if not isinstance(found, int | float) or isinstance(found, bool):
            raise InvalidArgument(name, f"expected a number, found {shown(found)}")
        with np.errstate(over="ignore"):
            return float(np.float32(found))

    def text(self, name: str) -> str | None:
        """A text; None where it did not come.

        Raises:
            InvalidArgument: it is none.
        """
        found = self._value(name)
        if found is not None and not isinstance(found, str):
            raise InvalidArgument(name, f"expected text, found {shown(found)}")
        return found

    def _value(self, name: str) -> bool | int | float | str | None:
        if name not in self._given:  # a look-up by [] would put it there
            return None
        parameter = self._given[name]
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidArgument(name, "expected a value, found none")
        value: bool | int | float | str = getattr(parameter, choice)
        return value
