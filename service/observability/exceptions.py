"""Description of exceptions for the log: types and places, without local variables and without texts.

An exception's text may repeat what a caller said: a KeyError shows its key, a protobuf error its field. So a
text is shown, escaped, only where the class declares it free of that, by a class attribute
`is_text_loggable`; of an OSError the text of its number is shown.
"""

import os
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from service.observability.escaping import escaped

# A chain of causes, or a group, is cut after so many exceptions; each traceback keeps its last frames.
MAX_EXCEPTIONS, MAX_FRAMES = 10, 30

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def describe(exc_info: ExceptionInfo) -> list[dict[str, Any]]:
    """Return the exception, then its causes and the members of groups, each as plain data.

    The keys are `exc_type`, `exc_value` (where the text may be shown) and `frames`, a list of `filename`,
    `lineno` and `name`, outermost first.
    """
    described = []
    for error in _related(exc_info[1]):
        shown = {"exc_type": type(error).__qualname__, "exc_value": _text_of(error), "frames": _frames(error)}
        described.append({key: value for key, value in shown.items() if value != ""})
        if len(described) == MAX_EXCEPTIONS:
            break
    return described


def describe_as_text(exc_info: ExceptionInfo) -> str:
    """Return what `describe` does as indented text, a line for each frame and for each exception."""
    lines = []
    for one in describe(exc_info):
        lines += [f'  File "{at["filename"]}", line {at["lineno"]}, in {at["name"]}' for at in one["frames"]]
        lines.append(": ".join(one[key] for key in ("exc_type", "exc_value") if key in one))
    return "\n".join(lines)


def _related(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, the members of a group, and their causes, each once."""
    waiting, seen = [error], set()
    while waiting:
        error = waiting.pop(0)
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            waiting.append(cause)


def _text_of(error: BaseException) -> str:
    if getattr(type(error), "is_text_loggable", False):
        return escaped(str(error))  # it may hold names from a model's files
    if isinstance(error, OSError) and isinstance(error.errno, int):
        return os.strerror(error.errno)
    return ""


def _frames(error: BaseException) -> list[dict[str, Any]]:
    frames = traceback.StackSummary.extract(
        traceback.walk_tb(error.__traceback__), lookup_lines=False, limit=-MAX_FRAMES
    )
    return [{"filename": one.filename, "lineno": one.lineno, "name": one.name} for one in frames]
