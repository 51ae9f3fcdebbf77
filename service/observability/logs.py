"""Logging: one line an event, console or JSON, to stderr; what libraries log goes the same way."""

import logging
import os
import sys
from typing import Literal

import structlog

# grpc's core writes past all logging, at its level INFO the very bytes that a stranger sends. It reads this
# when it is imported, which `service.__main__` does after this module.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# Where grpcio logs, and what it logs with its trace for each field of a call's metadata that is not UTF-8, and bears.
_GRPCIO, _NOT_UTF8 = "grpc._cython.cygrpc", "Invalid encoding on %s"


def set_up_logging(form: Literal["auto", "console", "json"], level: str) -> None:
    """Configure structlog and the standard library's logging.

    Args:
        form: auto: console on a terminal, else json.
        level: least severe level logged.
    """
    is_console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if is_console
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
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
    """Whether a line of grpcio's says more than which bytes a stranger has sent, as often as he likes."""
    return record.msg != _NOT_UTF8
