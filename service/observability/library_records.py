"""Takes out of the log records of libraries what a caller may have said.

A library logs objects, whose representation may hold a request, and texts, which may repeat one: asyncio in
its debug mode the arguments of a slow callback, for instance. A record has a template and arguments, and the
template is a constant of the library. So of the libraries whose calls of `logging` have been read here, the
template is shown with its numbers and enumerations, and the type of each other argument in its place. Of
any other record only the place that logged it is shown.
"""

import logging
from collections.abc import Mapping
from enum import Enum
from typing import Any

# The loggers of this program itself; its records are its own business.
_OWN = ("service",)
# Libraries that pass to `logging` constant templates, with arguments or alone.
_WITH_TEMPLATES = ("asyncio", "concurrent.futures", "grpc", "opentelemetry")
_WITH_CONSTANTS = ("opentelemetry",)


class _Hidden:
    """Stands for an argument in a text by the name of its type."""

    def __init__(self, value: object) -> None:
        self._name = type(value).__name__

    def __repr__(self) -> str:
        return f"<{self._name}>"


def hide_arguments(record: logging.LogRecord) -> bool:
    """Replace a library's message and arguments by what may be shown, as a filter of `logging`; return True.

    A record of structlog, whose message is a dict, and one of this program stay as they are.
    """
    if isinstance(record.msg, dict) or _is_of(record.name, _OWN):
        return True
    if isinstance(record.msg, str) and record.args and _is_of(record.name, _WITH_TEMPLATES):
        if isinstance(record.args, Mapping):
            record.args = {key: _shown(value) for key, value in record.args.items()}
        else:
            record.args = tuple(_shown(value) for value in record.args)
    elif record.args or not isinstance(record.msg, str) or not _is_of(record.name, _WITH_CONSTANTS):
        record.msg = "a library has logged a text that is not shown: %s, %s:%d"
        record.args = (record.name, record.filename, record.lineno)
    return True


def _is_of(name: str, libraries: tuple[str, ...]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in libraries)


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | Enum) else _Hidden(value)
