"""Logging to stderr, as console text or as JSON, one object per line; libraries log the same way.

No line waits for a reader of stderr, forges another line, or repeats what a caller said.
"""

import logging
import os
import sys
from typing import Any, Literal

import structlog

from service.observability.escaping import escaped
from service.observability.exceptions import describe, describe_as_text
from service.observability.hooks import log_uncaught
from service.observability.library_records import hide_arguments
from service.observability.line_writer import LineWriter

# gRPC's core writes to stderr itself: at level INFO bytes from unknown peers, and with traces the metadata of
# calls, tokens included. So these settings are not the environment's. It reads them on import, and
# `service.__main__` imports it after this module.
_IGNORED = [
    name for name in ("GRPC_VERBOSITY", "GRPC_TRACE") if os.environ.get(name, "") not in ("", "ERROR")
]
os.environ |= {"GRPC_VERBOSITY": "ERROR", "GRPC_TRACE": ""}
# Its handlers of fork stop and start threads, and abort the process where none can be started.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# grpcio's logger, and the beginnings of those of its messages that a peer causes at will: metadata that is
# not UTF-8, with its bytes, and an answer to a peer that has gone, with a traceback.
_GRPCIO = "grpc._cython.cygrpc"
_UNWANTED = ("Invalid encoding on %s", "ExecuteBatchError raised in core by servicer method")
# Deeper values are shown by their type.
_MAX_DEPTH = 5
_STDERR = 2


def set_up_logging(form: Literal["auto", "console", "json"], level: str) -> None:
    """Configure structlog and the standard library's logging.

    Args:
        form: output format; auto means console on a terminal, else json.
        level: minimum level.
    """
    is_console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = (
        [
            structlog.processors.ExceptionRenderer(describe_as_text),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
        if is_console
        else [structlog.processors.ExceptionRenderer(describe), structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Handler()
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, escape_values, *last],
    )
    handler.setFormatter(formatter)
    logging.getLogger(_GRPCIO).addFilter(_is_wanted)
    logging.root.handlers = [handler]
    logging.root.setLevel(level.upper())
    log_uncaught()
    _warn_of_ignored()


def num_dropped() -> int:
    """Return the number of log lines that were dropped because stderr did not take them."""
    return sum(one.writer.num_dropped for one in logging.getLogger().handlers if isinstance(one, _Handler))


def print_line(text: str) -> None:
    """Write a line for people to stderr, after the log lines before it and without waiting for a reader."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            handler.writer.put(escaped(text))


def _warn_of_ignored() -> None:
    if _IGNORED:
        text = "settings of gRPC's own log are ignored, as it repeats what callers send: %s"
        logging.getLogger(__name__).warning(text, ", ".join(_IGNORED))


class _Handler(logging.Handler):
    """Formats records and hands the lines to a writer, which the end of the process closes."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(hide_arguments)
        self.writer = LineWriter(_STDERR, _report_dropped)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.writer.put(self.format(record))
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- as declared by logging
        """Say that a record could not be formatted; its message and arguments may hold a caller's text."""
        error = sys.exc_info()[0]
        name = error.__name__ if error is not None else ""
        self.writer.put(f"a log record of {escaped(record.name)} could not be formatted: {name}")

    def close(self) -> None:
        """Write the lines that wait, for a second at most; `logging` calls this at the end of the process."""
        self.writer.close()
        super().close()


def _report_dropped(number: int) -> None:
    logging.getLogger(__name__).warning("log lines were dropped, as stderr did not take them: %d", number)


def escape_values(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape all that is not printable in an event's keys and values, as a processor of structlog.

    A newline, a terminal's control sequence or a byte of a file name that is not UTF-8 then cannot begin
    another line, change the terminal, or fail to be written.
    """
    return {escaped(key): value if key == "exc_info" else _plain(value) for key, value in event.items()}


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value of JSON's types in which every text is printable."""
    if isinstance(value, str):
        return escaped(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth == _MAX_DEPTH:
        return type(value).__name__
    if isinstance(value, dict):
        return {escaped(str(key)): _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner, depth + 1) for inner in value]
    return escaped(repr(value))


def _is_wanted(record: logging.LogRecord) -> bool:
    """Return whether to log a record of grpcio."""
    return not str(record.msg).startswith(_UNWANTED)
