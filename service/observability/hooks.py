"""Logging of the exceptions that nobody caught: of threads, of the event loop, of finalizers, of the program.

Python and asyncio would print them to stderr with their texts, which may repeat what a caller said, and would
wait for a reader of stderr.
"""

import asyncio
import re
import sys
import threading
import warnings
from typing import Any, TextIO

import structlog

_log = structlog.get_logger(__name__)

# asyncio's messages go on with the representation of objects and arguments.
_BEFORE_OBJECTS = re.compile(r"[^<({\n]{0,100}")


def log_uncaught() -> None:
    """Log what ends the program or a thread, what a finalizer raises, and warnings."""
    sys.excepthook = _log_end_of_program
    threading.excepthook = _log_end_of_thread
    sys.unraisablehook = _log_unraisable
    warnings.showwarning = _log_warning


def log_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log what an event loop reports: errors of callbacks, of tasks and futures that nobody awaits."""
    loop.set_exception_handler(_log_loop_error)


def _log_warning(
    message: Warning | str,  # noqa: ARG001 -- as declared by warnings; it may repeat what a caller said
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Log the kind and the place of a warning."""
    _log.warning("a warning", category=category.__name__, filename=filename, lineno=lineno)


def _log_end_of_program(_: type[BaseException], error: BaseException, __: Any) -> None:
    _log.error("the program has ended on an error", exc_info=error)


def _log_end_of_thread(arguments: threading.ExceptHookArgs) -> None:
    name = arguments.thread.name if arguments.thread is not None else ""
    _log.error("a thread has ended on an error", thread=name, exc_info=arguments.exc_value or True)


def _log_unraisable(arguments: "sys.UnraisableHookArgs") -> None:
    where = getattr(arguments.object, "__qualname__", type(arguments.object).__qualname__)
    _log.error("an error could not be raised", where=where, exc_info=arguments.exc_value or True)


def _log_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    found = _BEFORE_OBJECTS.match(str(context.get("message", "")))
    what = found.group().strip() if found else ""
    work = context.get("task") or context.get("future")
    coroutine = work.get_coro() if isinstance(work, asyncio.Task) else None
    error = context.get("exception")
    _log.error(
        "error in the event loop", what=what, where=getattr(coroutine, "__qualname__", ""), exc_info=error
    )
