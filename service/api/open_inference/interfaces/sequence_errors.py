"""Errors of the task for sequences, with the names of tensors in place of those of messages."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from service.errors import AnswerTooLarge, InvalidArgument

# inputs[1].steps.values[17], inputs[1].text, input.tokens.ids[3], inputs[0].initial[image].values[2].
_PATH: Final = re.compile(r"inputs?(?:\[(\d+)\])?(?:\.(\w+)(?:\[([^\]]+)\])?)?(?:\.\w+)?(?:\[(\d+)\])?")

# initial, initial[image].values, initial[image].values[2].
_INITIAL: Final = re.compile(r"initial(?:\[(.+)\]\.\w+(?:\[(\d+)\])?)?")


@contextmanager
def sequence_errors(width: int, initial: Mapping[str, str]) -> Iterator[None]:
    """Rename the field in the task's InvalidArgument to the tensor's.

    Args:
        width: values of a time step; 0: the model takes none.
        initial: tensor of each input of the init graph.
    """
    try:
        yield
    except AnswerTooLarge:
        raise
    except InvalidArgument as error:
        [violation] = error.violations
        raise InvalidArgument(_tensor_field(violation.field, width, initial), violation.description) from None


def _tensor_field(path: str, width: int, initial: Mapping[str, str]) -> str:
    """Return the tensor and the place in it; any other name as it is."""
    found = _PATH.fullmatch(path)
    if found is None:
        return path
    row, kind, name = found[1] or "0", found[2], found[3]
    place = found[4] if kind == "initial" else found[4] or name
    if kind is None or (kind == "initial" and name not in initial):
        return "inputs"
    tensor = "text" if kind == "text" else initial[name] if kind == "initial" else "input"
    places = [row]
    if place is not None:
        places += map(str, divmod(int(place), width)) if kind == "steps" else [place]
    return f"{tensor}[{', '.join(places)}]"


@contextmanager
def initial_errors(initial: Mapping[str, str]) -> Iterator[None]:
    """Rename the field `initial` in the InvalidArgument of the task for generation to the tensor's.

    Args:
        initial: tensor of each input of the init graph.
    """
    try:
        yield
    except InvalidArgument as error:
        [violation] = error.violations
        found = _INITIAL.fullmatch(violation.field)
        if found is None:
            raise
        tensor = initial.get(found[1])
        place = "" if found[2] is None else f"[0, {found[2]}]"
        raise InvalidArgument(f"{tensor}{place}" if tensor else "inputs", violation.description) from None
