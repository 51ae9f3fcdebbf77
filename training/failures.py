"""Ends a command: what went wrong is one line on standard error and an exit status, never a traceback.

`seqserve.cli.output` does so for a standard output that cannot be written.
"""

import sys
from collections.abc import Callable
from typing import Any

import typer

from seqserve.cli.output import escape_controls
from training.errors import NotBetterError, TrainingError
from training.writing import WriteError

FAILED = 1
WRONG_INPUT = 2

# typer raises its own copy of click's exceptions, or click's, depending on its version; both tell a usage
# error by this base class.
_USAGE_ERROR: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def exit_status(command: Callable[[], object]) -> int:
    """Run a command.

    Returns:
        What it returns, 0 for None; 1 if a file cannot be read or written, or a model
        is not better than required; 2 if options or data are wrong.
    """
    try:
        status = command()
    except NotBetterError as error:
        return _reported(str(error), FAILED)
    except (TrainingError, ConnectionError) as error:
        return _reported(str(error), WRONG_INPUT)
    except _USAGE_ERROR as error:
        return _reported(error.format_message(), WRONG_INPUT)
    except WriteError as error:
        return _reported(str(error), FAILED)
    except OSError as error:
        if error.filename is None:
            raise
        return _reported(f"{error.filename}: cannot be read or written: {error.strerror}", FAILED)
    return status if isinstance(status, int) else 0


def _reported(message: str, status: int) -> int:
    print("error: " + escape_controls(message, keep="\n"), file=sys.stderr)
    return status
