"""Conversion of tensors to what the tasks take, and of the tasks' errors to the names of tensors."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from service.api.open_inference.tensors import Tensor
from service.errors import InvalidArgument


def require(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise InvalidArgument where a tensor is missing."""
    if name not in tensors:
        raise InvalidArgument("inputs", f"expected the tensor {name}, found none of that name")


def require_text_or_input(tensors: Mapping[str, Tensor]) -> None:
    """Raise InvalidArgument unless there is either `text`, without `lengths`, or `input`."""
    if ("text" in tensors) == ("input" in tensors):
        raise InvalidArgument(
            "inputs", f"expected either text or input, found {'both' if 'text' in tensors else 'neither'}"
        )
    if "text" in tensors and "lengths" in tensors:
        raise InvalidArgument("lengths", "expected it beside input alone, found it beside text")


def texts_of(name: str, elements: Tensor) -> list[str]:
    """Return the elements of a tensor of BYTES as texts.

    Raises:
        InvalidArgument: an element is not UTF-8.
    """
    texts = []
    for index, element in enumerate(elements):
        try:
            texts.append(element.decode())
        except UnicodeDecodeError as error:
            raise InvalidArgument(
                f"{name}[{index}]", f"expected UTF-8 text, found another byte at position {error.start}"
            ) from None
    return texts


def rows_of(tensors: Mapping[str, Tensor]) -> list[NDArray[Any]]:
    """Return the rows of `input` without their padding.

    Raises:
        InvalidArgument: a length is not within 1 to the time steps of `input`.
    """
    rows, lengths = tensors["input"], tensors.get("lengths")
    assert not isinstance(rows, list)
    if lengths is None:
        return list(rows)
    steps = rows.shape[1]
    for index, length in enumerate(lengths):
        if not 1 <= length <= steps:
            raise InvalidArgument(
                f"lengths[{index}]", f"expected 1..{steps}, the time steps of input, found {length}"
            )
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


@contextmanager
def tensor_errors() -> Iterator[None]:
    """Rename the field in a task's InvalidArgument from that of the typed service to the tensor's."""
    try:
        yield
    except InvalidArgument as error:
        [violation] = error.violations
        raise InvalidArgument(_tensor_field(violation.field), violation.description) from None


def _tensor_field(name: str) -> str:
    """Map texts[1] to text[1], series[1].observations[6].values[3] to input[1, 6, 3], stop[0] to stop."""
    if name.startswith("observations"):  # of the one series of a sequence
        name = f"series[0].{name}"
    head, _, rest = name.partition("[")
    place = ", ".join(re.findall(r"\d+", rest))
    tensor = {"texts": "text", "series": "input"}.get(head, head)
    return f"{tensor}[{place}]" if place and head != "stop" else tensor
