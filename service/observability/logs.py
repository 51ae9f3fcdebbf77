"""Logging to stderr, as console text or as JSON, one object per line; libraries log the same way."""

import logging
import os
import sys
from typing import Literal

import structlog

# gRPC's core writes to stderr itself, at level INFO even bytes from unknown peers. It reads this variable on
# import, and `service.__main__` imports it after this module.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# Logger of grpcio, and its message, with a traceback, for each metadata value that is not UTF-8.
_GRPCIO, _NOT_UTF8 = "grpc._cython.cygrpc", "Invalid encoding on %s"

# structlog's default tracebacks show the frames' local variables, which hold prompts and tokens.
_JSON_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


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
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if is_console
        else [_JSON_TRACEBACKS, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler.setFormatter(formatter)
    logging.getLogger(_GRPCIO).addFilter(_is_wanted)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


def _is_wanted(record: logging.LogRecord) -> bool:
    """Return whether to log a record of grpcio: not those that a peer causes at will with its own bytes."""
    return record.msg != _NOT_UTF8
