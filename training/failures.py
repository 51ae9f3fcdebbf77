"""Ends a command: what went wrong is one line on standard error and an exit status, never a traceback."""

import errno
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from training.fit import TrainingError
from training.writing import WriteError

FAILED = 1
_OUTPUT_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
WRONG_INPUT = 2

# typer raises its own copy of click's exceptions, or click's, depending on its version; both tell a usage
# error by this base class.
_USAGE_ERROR: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def exit_status(command: Callable[[], object]) -> int:
    """Run a command.

    Returns:
        What it returns, 0 for None; 1 if a file or standard output cannot be written; 2 if options or
        data are wrong.
    """
    try:
        status = command()
        # Standard output that cannot be written is found out here, not when the interpreter has ended.
        sys.stdout.flush()
    except (TrainingError, ConnectionError) as error:
        return _reported(str(error), WRONG_INPUT)
    except _USAGE_ERROR as error:
        return _reported(error.format_message(), WRONG_INPUT)
    except WriteError as error:
        return _reported(str(error), FAILED)
    except OSError as error:
        if error.filename is None and error.errno not in _OUTPUT_ERRORS:
            raise
        if error.filename is None:
            _drop_output()
        name = error.filename or "standard output"
        return _reported(f"{name}: cannot be read or written: {error.strerror}", FAILED)
    return status if isinstance(status, int) else 0


def _reported(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


def _drop_output() -> None:
    """Drop what standard output has not taken, since writing it would fail again at the interpreter's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
